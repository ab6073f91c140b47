"""Holds the reference of instruction tasks against examples worked by hand: question texts, scores, boxes, averages."""

import math

import pytest

from tests.reference import conversation

NAN = math.nan
SYSTEM = "A chat between a curious user and an artificial intelligence assistant."


@pytest.mark.parametrize(
    ("decoded", "question"),
    [
        ("...USER:  \nQ1\nSuffix ASSISTANT: a", "Q1\nSuffix"),
        ("...USER:  \nQ1\nSuffix ASSISTANT:", "Q1\nSuffix"),
        (f"{SYSTEM} USER:  \nQ1 ASSISTANT: a\nb USER: Q2\nmore ASSISTANT: c", "Q1"),
        (f"{SYSTEM} USER: one line ASSISTANT: a", ""),
        (f"{SYSTEM} USER: first line\nsecond line\nthird ASSISTANT: a", "second line\nthird"),
        ("USER:  \nIs the ASSISTANT right? ASSISTANT: a", "Is the"),
        ("USER:  \nASSISTANTs at work ASSISTANT: a", "ASSISTANTs at work"),
        ("USER:  \nno answer follows", "no answer follows"),
    ],
)
def test_the_question_for_clip_is_cut_out_of_the_conversation(decoded, question):
    assert conversation.question_text(decoded) == question


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("  Yes.", "yes"),
        ("A dog, an apple and the Cat?", "dog apple and cat"),
        ("two\ndogs\tat ten", "2 dogs at 10"),
        ("None", "0"),
        ("the dog's", "dog 's"),
        ("red/blue", "red blue"),
        ("red/ blue", "red blue"),
        ("well-known semi - final", "wellknown semi final"),  # this dash touches a space, so both are removed
        ("t-shirt", "t shirt"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("p.m.", "pm"),
        (".5", ".5"),
        ("@home!", "home"),
        ("dont", "don't"),
        ("Couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("y'alld've twas", "y'all'd've 'twas"),
        ("Im", "im"),
        ("can't", "can't"),
        ("", ""),
    ],
)
def test_answers_are_normalised(answer, normal):
    assert conversation.normalise(answer) == normal


def test_an_answer_counts_as_far_as_the_others_give_it():
    assert conversation.soft_accuracy("Yes.", ["yes"] * 3 + ["no"] * 7) == pytest.approx(0.9)
    assert conversation.soft_accuracy("yes", ["yes"] * 2 + ["no"] * 8) == pytest.approx(0.6)
    assert conversation.soft_accuracy("yes", ["yes"] + ["no"] * 9) == pytest.approx(0.3)
    assert conversation.soft_accuracy("yes", ["The yes"] * 4 + ["no"] * 6) == 1
    assert conversation.soft_accuracy("maybe", ["yes"] * 4 + ["no"] * 6) == 0
    assert conversation.soft_accuracy("", ["a", "the"] + ["no"] * 8) == pytest.approx(0.6)


def test_coin_loses_the_first_and_the_last_character_of_a_box():
    assert conversation.coin_parse("[0.53, 0.2, 0.93, 0.76]") == (0.53, 0.2, 0.93, 0.7)
    assert conversation.clean_parse("[0.53, 0.2, 0.93, 0.76]") == (0.53, 0.2, 0.93, 0.76)
    assert conversation.coin_parse("[1.53, 0.2, 0.93, 0.76]") == (0.53, 0.2, 0.93, 0.7)


@pytest.mark.parametrize("text", ["", "[]", "[0.1, 0.2, 0.3]", "[0.1, 0.2, 0.3, 0.4, 0.5]", "The box is [0, 0, 1, 1]"])
def test_what_is_no_box_is_none(text):
    assert conversation.clean_parse(text) is None
    assert conversation.coin_parse(text) is None


def test_overlap_of_boxes():
    assert conversation.iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert conversation.iou((0, 0, 0.4, 0.2), (0, 0, 0.4, 0.2)) == 1
    assert conversation.iou((0, 0, 1, 1), (0, 0, 1, 0.5)) == pytest.approx(0.5)
    assert conversation.iou((0, 0, 1, 1), (2, 0, 3, 1)) == conversation.iou((0, 0, 1, 1), (1, 1, 2, 2)) == 0
    assert conversation.iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0
    assert conversation.iou((1, 1, 0, 0), (0, 0, 1, 1)) == 0  # corners in the wrong order meet nothing


def test_averages_of_a_worked_stream_of_three_tasks_and_both_signs():
    matrix = [[50.0, NAN, NAN], [60.0, 40.0, NAN], [30.0, 30.0, 20.0]]
    assert conversation.final_average(matrix) == pytest.approx(80 / 3)
    assert conversation.immediate_average(matrix) == pytest.approx(110 / 3)
    assert conversation.mean_average(matrix) == pytest.approx((50 + 50 + 80 / 3) / 3)
    assert conversation.backward_transfer(matrix) == pytest.approx((-20 - 10 + 0) / 3)
    assert conversation.forgetting(matrix) == pytest.approx((20 + 10) / 2)
    assert conversation.forgetting(matrix, stage=1) == pytest.approx(-10)
    assert conversation.forgetting(matrix, stage=0) == 0


def test_the_two_signs_are_one_number_apart_from_the_count_of_tasks():
    matrix = [[50.0], [60.0, 40.0], [30.0, 45.0, 20.0]]
    assert conversation.backward_transfer(matrix) == pytest.approx(-conversation.forgetting(matrix) * 2 / 3)
    assert conversation.forgetting([[50.0]]) == conversation.backward_transfer([[50.0]]) == 0
