"""What a guess finds, against counting all orders and against the binomials."""

import itertools
import math

import numpy as np
import pytest

from lpi_jax.problems.retrieval import chance


@pytest.mark.parametrize("items", [1, 2, 5, 7])
@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_it_is_the_share_of_choices_that_hold_a_right_answer(items, k):
    right = np.arange(1, items + 1)
    choices = list(itertools.combinations(range(items), min(k, items)))
    counted = [np.mean([min(choice) < r for choice in choices]) for r in right]
    np.testing.assert_allclose(chance.hits(items, right, k), counted, rtol=1e-12)


def test_it_is_the_formula_in_a_large_gallery():
    for k in (1, 5, 10):
        exact = [1 - math.comb(25_000 - r, k) / math.comb(25_000, k) for r in (1, 5, 7)]
        np.testing.assert_allclose(chance.hits(25_000, np.array([1, 5, 7]), k), exact, rtol=1e-9)
    assert chance.recall(5_000, np.array([1, 1]), 10) == pytest.approx(100 * 10 / 5_000)


@pytest.mark.parametrize("items", range(1, 7))
def test_the_mean_reciprocal_rank_is_that_of_all_orders_of_the_gallery(items):
    """Places of wrong items before the best right one count; a query's other right answers do not."""
    expected = []
    for right in range(1, items + 1):
        reciprocal = []
        for order in itertools.permutations(range(items)):  # the first `right` items are right
            before = next(place for place, item in enumerate(order) if item < right)
            reciprocal.append(1 / (1 + before))
        expected.append(100 * np.mean(reciprocal))
        assert chance.mean_reciprocal_rank(items, np.array([right])) == pytest.approx(expected[-1], rel=1e-12)
    several = np.array([1, items, 1, items])
    assert chance.mean_reciprocal_rank(items, several) == pytest.approx((expected[0] + expected[-1]) / 2, rel=1e-12)


def test_of_one_right_answer_the_mean_reciprocal_rank_is_the_harmonic_number_over_the_items():
    harmonic = sum(1 / place for place in range(1, 5001))
    assert chance.mean_reciprocal_rank(5000, np.array([1, 1])) == pytest.approx(100 * harmonic / 5000, rel=1e-9)
