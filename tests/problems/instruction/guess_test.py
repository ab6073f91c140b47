"""What a guess finds: the best single answer, by each way of counting."""

import pytest

from lpi_jax.data.instructed import Instructed
from lpi_jax.problems.instruction.guess import TRIED, guess


def record(*answers, scoring="exact"):
    return Instructed("key", (("Which?", answers[0]),), answers, scoring=scoring)


def test_it_is_the_share_of_the_commonest_answer():
    records = [record(answer) for answer in ("a", "b", "b", "c", "b", "a", "d", "e")]
    assert guess(records, "official") == pytest.approx(100 * 3 / 8)


def test_an_answer_may_be_right_for_samples_that_call_it_otherwise():
    records = [record("a"), record("a"), record("b", "c"), record("c", "b"), record("b", "d")]
    assert guess(records, "official") == pytest.approx(100 * 3 / 5)


def test_each_way_of_counting_has_its_own_best_answer():
    # The releases' script takes a part of an answer for right: "cat" is in "cathedral".
    records = [record(name, scoring="imagenet") for name in ("dog", "dog", "cat", "cathedral", "catfish")]
    assert guess(records, "official") == pytest.approx(40)
    assert guess(records, "released") == pytest.approx(60)


def test_only_the_commonest_answers_are_tried():
    many = [record(f"answer {k}") for k in range(4 * TRIED)]
    assert guess([*many, record("x"), record("x")], "official") == pytest.approx(100 * 2 / len([*many, 0, 0]))
