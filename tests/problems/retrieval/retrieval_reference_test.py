"""Holds the NumPy references of routing, scores and intervals against numbers worked by hand."""

import math

import numpy as np
import pytest

from tests.reference import bootstrap, discriminant, neighbours, ranks, scores

LINE = [np.array([[0.0], [2.0]]), np.array([[10.0], [12.0]])]  # means 1 and 11, every item 1 away: C = 1, h = 1


def test_the_covariance_is_that_of_items_about_their_own_means_and_partly_round():
    np.testing.assert_allclose(discriminant.scatter_of(LINE), [[4]])
    flat = [np.array([[1.0, 7.0], [-1.0, 7.0]])]
    np.testing.assert_allclose(discriminant.covariance_of(flat, 0.0), [[1, 0], [0, 0]])
    np.testing.assert_allclose(discriminant.covariance_of(flat, 0.5), [[0.75, 0], [0, 0.25]])
    assert discriminant.distance([4.0, 8.0], [1.0, 7.0], np.diag([0.75, 0.25])) == pytest.approx(9 / 0.75 + 1 / 0.25)


def test_a_quantile_lies_between_two_values_in_proportion():
    assert discriminant.quantile([3, 1, 2], 0.75) == 2.5
    assert discriminant.quantile([3, 1, 2], 1.0) == 3
    assert discriminant.quantile([5], 0.3) == 5


def test_the_posterior_of_items_on_a_line():
    assert discriminant.average(LINE, 0.1) == pytest.approx(1)
    assert discriminant.border(LINE, 0.1, 0.5) == pytest.approx(1)
    # m = 4 / 2 and k = 4 / (1 - 0.9 * 2 / 4) = 4 / 0.55; the border is at k itself.
    likely = np.exp([-1 * 0.55 / 8, -81 * 0.55 / 8, -1 / 2])
    np.testing.assert_allclose(discriminant.posterior(LINE, [[2.0]], 0.1, 0.5), [likely / likely.sum()])
    likely[2] = 0
    np.testing.assert_allclose(discriminant.posterior(LINE, [[2.0]], 0.1, 1.0), [likely / likely.sum()])


def test_without_an_item_the_mean_is_the_others_and_the_covariance_what_is_left():
    # Of two items, 2 apart, the one that is left has no covariance but the round part.
    np.testing.assert_allclose(discriminant.left_out_distances(LINE[:1], 0.1), [4 / 0.1] * 2)
    np.testing.assert_allclose(discriminant.left_out_distances(LINE, 0.1), [4 / (0.9 * 2 / 4 + 0.1)] * 4)


def test_neighbours_vote_within_the_border():
    east, north = [[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0]]
    assert neighbours.border([east, north], 1.0) == pytest.approx(0.2)  # 0.4 and, of one item, 0
    items = [[0.8, 0.6], [-1.0, 0.0]]
    np.testing.assert_allclose(neighbours.posterior([east, north], items, 1, 1.0), [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(neighbours.posterior([east, north], items, 1, 0.99), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(neighbours.posterior([east, north], items[:1], 3, 1.0), [[2 / 3, 1 / 3, 0]])


def test_a_score_is_the_sum_of_its_parts():
    query, item = ([1, 0], [0, 1], [1, 0]), ([0.5, 0.5], [0, 0.25], [0.5, 0.5])
    assert scores.score(query, item, ["prompted"], 0, 2) == 0.5
    assert scores.score(query, item, ["plain"], 0, 2) == 0.25
    assert scores.score(query, item, ["plain", "prior"], 0, 2) == pytest.approx(0.25 + math.log(0.65) / 2)
    np.testing.assert_allclose(scores.smoothed([[1, 0]], 0.1), [[0.95, 0.05]])
    np.testing.assert_allclose(scores.smoothed([[0, 0, 1]], 0), [[0.15, 0.15, 0.7]])


def test_a_bootstrap_averages_queries_then_tasks_and_takes_images_whole():
    alone = [[[100, 0]], [[30]]]
    np.testing.assert_allclose(bootstrap.draws(alone, 5, seed=0), [40] * 5)
    two = [[[100], [0, 0]]]  # both alike: 100 or 0; one each: a third
    assert {round(value, 6) for value in bootstrap.draws(two, 50, seed=0)} == {0, 33.333333, 100}


def test_ranks_count_wrong_items_alone_and_their_averages_are_those_by_hand():
    found = ranks.ranks([[3, 1, 2, 2], [0, 0, -np.inf, 5], [1, np.nan, 0, 0]], [[2], [0, 1], [0]])
    np.testing.assert_array_equal(found, [2, 1, 1])
    assert ranks.mean_reciprocal_rank([0, 1, 3]) == pytest.approx(100 * 1.75 / 3)
    assert ranks.median_rank([3, 0, 1]) == 2
    assert ranks.median_rank([3, 0]) == 2.5
