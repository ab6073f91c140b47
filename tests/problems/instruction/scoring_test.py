"""How right an answer is: hand-made tables for every kind of task, as the releases count and as it is meant."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpi_jax.data.instructed import SCORINGS, Instructed
from lpi_jax.problems.instruction.boxes import clean_parse, coin_parse, iou
from lpi_jax.problems.instruction.cider import cider, consensus, words
from lpi_jax.problems.instruction.scoring import SCORERS, coin_letter, letter, scores
from lpi_jax.problems.instruction.vqa import normalised, soft_accuracy


def record(*answers, scoring="exact", annotation=None):
    return Instructed("k", (("what?", answers[0]),), answers, scoring=scoring, annotation=annotation)


def judged(scoring, answer, *answers, annotation=None):
    """(as released, as it is meant)."""
    one = record(*answers, scoring=scoring, annotation=annotation)
    return SCORERS[scoring].released(answer, one), SCORERS[scoring].official(answer, one)


def test_every_name_that_a_record_may_have_has_a_scorer():
    assert set(SCORERS) == set(SCORINGS)


@pytest.mark.parametrize(
    ("scoring", "answer", "reference", "released", "official"),
    [
        ("exact", "Kite", "kite", 1, 1),
        ("exact", " kite. ", "kite", 0, 1),
        ("exact", "kites", "kite", 0, 0),
        ("exact", "", "kite", 0, 0),
        ("imagenet", "American lobster", "American lobster", 1, 1),
        ("imagenet", "It is an American lobster", "American lobster", 1, 0),
        ("imagenet", "lobster", "American lobster", 1, 0),
        ("imagenet", "american lobster.", "American lobster", 0, 1),
        ("imagenet", "", "American lobster", 1, 0),
        ("imagenet", "tench", "American lobster", 0, 0),
        ("gqa", "Yes.", "yes", 1, 1),
        ("gqa", " yes...", "yes", 1, 0),
        ("gqa", "yes ", "yes", 0, 1),
        ("gqa", "no", "yes", 0, 0),
        ("vizwiz", "Unanswerable", "unanswerable", 1, 1),
        ("vizwiz", "two.", "2", 0, 1),
        ("vqav2", "YES", "yes", 1, 1),
        ("vqav2", "the dog", "dog", 0, 1),
        ("ocr_vqa", "J. K. Rowling", "j. k. rowling", 1, 1),
        ("ocr_vqa", "J. K. Rowling.", "J. K. Rowling", 0, 1),
        ("ocr_vqa", "Unanswerable", "Unanswerable", 0, 1),
        ("ocr_vqa", "unanswerable", "unanswerable", 1, 1),
        ("text_vqa", "Stop!", "stop", 1, 1),
    ],
)
def test_texts(scoring, answer, reference, released, official):
    assert judged(scoring, answer, reference) == (released, official)


@pytest.mark.parametrize(
    ("answer", "released", "official"),
    [
        ("B", "B", "B"),
        ("B. a magnet", "B", "B"),
        ("b", "B", "B"),
        ("(B)", "B", "B"),
        ("B) a magnet", "B", "B"),
        ("The answer is B.", "B", "B"),
        ("Answer: (b)", "B", "B"),
        ("a magnet", "A", ""),
        ("I think the answer is C", "I", "C"),
        ("The answer is a magnet", "A", ""),
        ("F", "F", "F"),
        ("", "", ""),
        ("magnet", "", ""),
    ],
)
def test_letters(answer, released, official):
    assert (coin_letter(answer), letter(answer)) == (released, official)
    for scoring in ("science_qa", "choice"):
        assert judged(scoring, answer, "B") == (released == "B", official == "B")


def test_an_unreadable_answer_is_wrong_even_beside_an_unreadable_reference():
    assert judged("choice", "none", "neither") == (0, 0)


@pytest.mark.parametrize(
    ("people", "answer", "accuracy"),
    [
        (["yes"] * 3 + ["no"] * 7, "yes", 0.9),
        (["yes"] * 1 + ["no"] * 9, "yes", 0.3),
        (["yes"] * 2 + ["no"] * 8, "yes", 0.6),
        (["yes"] * 4 + ["no"] * 6, "yes", 1.0),
        (["yes"] * 10, "yes", 1.0),
        (["yes"] * 10, "no", 0.0),
        (["Yes.", "the yes", "YES!"] + ["no"] * 7, "yes", 0.9),
        (["yes"], "Yes", 1.0),
        (["yes"], "no", 0.0),
    ],
)
def test_soft_accuracy_leaves_each_of_the_people_out_once(people, answer, accuracy):
    assert soft_accuracy(answer, people) == pytest.approx(accuracy, abs=1e-12)


def test_ten_answers_count_where_they_count():
    people = ["red", *["dark red"] * 6, *["red"] * 2, "blue"]
    assert judged("vqav2", "Red", *people) == (1, pytest.approx(0.9))
    assert judged("vizwiz", "dark red", *people) == (0, 1)
    assert judged("text_vqa", "red", *people) == (pytest.approx(0.9), pytest.approx(0.9))


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Two Dogs", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("an apple, a pear?", "apple pear"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("wed", "wed"),
        ("3.50", "3.50"),
        ("mr. x.", "mr x"),
        ("1,000", "1000"),
        ("dog's", "dog 's"),
        ("black/white", "black white"),
        ("black / white/grey", "black whitegrey"),
        ("t-shirt", "t shirt"),
        ("a\nb\tc", "b c"),
        ("", ""),
        ("the", ""),
    ],
)
def test_the_normal_form(answer, normal):
    assert normalised(answer) == normal


@given(st.text(alphabet="aTno,.?!'-/ \n\t0123", max_size=20))
def test_answers_are_as_right_as_their_normal_form(text):
    assert normalised(text) == " ".join(normalised(text).split())
    assert soft_accuracy(text, [text] * 10) == 1.0


@pytest.mark.parametrize(
    ("answer", "released", "official"),
    [
        ("[0.53, 0.2, 0.93, 0.76]", (0.53, 0.2, 0.93, 0.7), (0.53, 0.2, 0.93, 0.76)),
        (" [0.53,0.2,0.93,0.76]", (0.53, 0.2, 0.93, 0.7), (0.53, 0.2, 0.93, 0.76)),
        ("0.53, 0.2, 0.93, 0.76", (0.53, 0.2, 0.93, 0.7), (0.53, 0.2, 0.93, 0.76)),
        ("[1, 0, 1, 1]", None, (1, 0, 1, 1)),
        ("The kite is at [0.1, 0.2, 0.3, 0.4].", None, (0.1, 0.2, 0.3, 0.4)),
        ("[0.1, 0.2, 0.3]", None, None),
        ("[0.1, 0.2, 0.3, 0.4, 0.5]", None, None),
        ("[0.1, nan, 0.3, 0.40]", None, None),
        ("[0.1, 1e999, 0.3, 0.40]", None, None),
        ("", None, None),
        ("no kite", None, None),
    ],
)
def test_boxes_as_they_are_written(answer, released, official):
    assert coin_parse(answer) == (released and pytest.approx(released))
    assert clean_parse(answer) == official


def test_more_than_half_must_be_shared():
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1 and iou((0, 0, 1, 1), (2, 0, 3, 1)) == 0
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((1, 1, 0, 0), (0, 0, 1, 1)) == 0 and iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    known = {"box": (0.0, 0.0, 1.0, 1.0), "size": (640, 480)}
    for answer, right in [("[0.0, 0.0, 1.0, 0.5]", 0), ("[0.0, 0.0, 1.0, 0.51]", 1), ("a kite", 0)]:
        assert judged("grounding", answer, answer, annotation=known)[1] == right
    # The release loses the last digit: .55 is read as .5, which is not more than half.
    assert judged("grounding", "[0.0, 0.0, 1.0, 0.55]", "x", annotation=known) == (0, 1)


def test_words_of_captions():
    assert words("A man's dog, isn't it? A black-and-white one (3.5 kg).") == [
        "a", "man", "'s", "dog", "is", "n't", "it", "a", "black-and-white", "one", "3.5", "kg",
    ]  # fmt: skip


def test_cider_of_a_small_corpus_by_hand():
    # Two images, so that what both are said to show weighs log(2/2) = 0 and every other n-gram log 2.
    references = [["a red kite"], ["a dog"]]
    # "a red kite": all n-grams agree, there is none of four words: (1 + 1 + 1 + 0) / 4 * 10.
    assert cider(["a red kite", "a dog"], references) == pytest.approx([7.5, 5.0])
    # "red kite": "red" and "kite" agree, and so does one of two pairs, so that the cosine is 1 / sqrt(2).
    apart = math.exp(-1 / 72)
    expected = 10 * apart * (1 + 1 / math.sqrt(2) + 0 + 0) / 4
    assert cider(["red kite", ""], references) == pytest.approx([expected, 0.0])
    # Said three times, a word counts as often as people say it: (3, 1) and (1, 1) share (1, 1). Of the pairs "red red"
    # (twice) and "red kite" one agrees with one of two.
    alone, pairs = 2 / math.sqrt(10 * 2), 1 / math.sqrt(5 * 2)
    apart = math.exp(-1 / 72)
    assert cider(["red red red kite", "cat"], references) == pytest.approx([10 * apart * (alone + pairs) / 4, 0])


def test_cider_is_the_mean_over_the_people():
    both = cider(["a red kite", "a dog"], [["a red kite", "a bird"], ["a dog"]])[0]
    alone = cider(["a red kite", "a dog"], [["a red kite"], ["a dog"]])[0]
    assert both == pytest.approx(alone / 2)


def test_captions_count_among_all_of_a_split_and_other_answers_by_themselves():
    records = [
        record("a red kite", scoring="caption"),
        record("B", scoring="choice"),
        record("a dog", scoring="caption"),
        record("yes"),
    ]
    answers = ["a red kite", "B", "a dog", "no"]
    for way in ("released", "official"):
        assert scores(answers, records, way) == pytest.approx([0.75, 1.0, 0.5, 0.0])
    assert scores(["", "a magnet", "", "yes."], records, "released") == [0, 0, 0, 0]
    assert scores(["", "B", "", "yes."], records, "official") == [0, 1, 0, 1]


def test_one_caption_alone():
    assert consensus("a red kite flies", ["a red kite flies"]) == pytest.approx(1)
    assert judged("caption", "", "a red kite")[1] == 0 and 0 < judged("caption", "a kite", "a red kite")[1] < 1


@given(
    st.sampled_from(SCORINGS), st.text(max_size=30), st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=10)
)
def test_any_answer_scores_between_0_and_1(scoring, answer, answers):
    for points in judged(scoring, answer, *answers, annotation={"box": (0.1, 0.2, 0.5, 0.6)}):
        assert 0 <= points <= 1 + 1e-9
