"""What a guess finds, against counting and against the binomials."""

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
