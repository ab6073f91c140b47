"""Holds every score against the formula, pair by pair, and the vectors of an index against the score."""

import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.problems.retrieval import score
from lpi_jax.problems.retrieval.options import SCORES
from lpi_jax.problems.retrieval.score import SMOOTHING, joined, matrix, scored, vectors
from tests.reference import scores as reference

SCALE = 27.0
PRODUCTS = [name for name in SCORES if "matched" not in name]  # what one vector a side can say


def unit_rows(rng, count, width=5):
    rows = rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def items(seed, count, tasks=3, certain=False):
    """Features, plain features, posteriors and adapters."""
    rng = np.random.default_rng(seed)
    posterior = rng.dirichlet(np.full(tasks + 1, 0.3), count).astype(np.float32)
    if certain:
        posterior = np.eye(tasks + 1, dtype=np.float32)[rng.integers(0, tasks + 1, count)]
    best = posterior.argmax(1)
    adapters = np.where(best == tasks, -1, best).astype(np.int32)
    return unit_rows(rng, count), unit_rows(rng, count), posterior, adapters


def test_there_are_eight_scores():
    assert len(SCORES) == 8
    assert {part for name in SCORES for part in name.split("+")} == {"prompted", "plain", "matched", "prior"}


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_the_sum_of_the_parts_that_it_is_named_after(name, certain):
    queries, others = items(0, 6, certain=certain), items(1, 9, certain=certain)
    found = matrix(scored(*queries, name), scored(*others, name), SCALE)
    expected = reference.matrix(queries, others, name.split("+"), SMOOTHING, SCALE)
    assert (found.shape, found.dtype) == ((6, 9), np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_smoothing_spreads_a_little_evenly_and_leaves_nothing_at_zero():
    assert 0 < SMOOTHING < 0.01
    certain = np.eye(4, dtype=np.float32)
    found = score.smoothed(certain)
    np.testing.assert_allclose(found, reference.smoothed(certain, SMOOTHING), rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found > 0).all()


def test_what_belongs_to_no_task_may_have_a_partner_in_any_of_them():
    found = score.smoothed(np.array([[0, 0, 1], [1, 0, 0]], np.float32))
    np.testing.assert_allclose(found, [[0.15, 0.15, 0.7], [1, 0, 0]], atol=1e-4)
    assert score.smoothed(np.ones((2, 1), np.float32)) == pytest.approx(1.0)  # no task yet: nothing to tell apart


def test_a_score_without_a_prior_keeps_no_posteriors_and_one_of_two_kinds_keeps_both():
    features, plain, posterior, adapters = items(0, 3)
    assert scored(*items(0, 3), "prompted").posterior is None
    np.testing.assert_array_equal(scored(*items(0, 3), "plain").features, plain)
    np.testing.assert_array_equal(scored(*items(0, 3), "matched").adapters, adapters)
    both = scored(features, plain, posterior, adapters, "prompted+plain+prior")
    np.testing.assert_array_equal(both.features, np.concatenate([features, plain], axis=1))
    assert both.posterior.shape == (3, 4)


def test_rows_can_be_chosen_and_parts_joined_again():
    for name in ("prompted", "prompted+plain+prior"):
        whole = scored(*items(0, 7), name)
        parts = [whole[np.arange(0, 3)], whole[np.arange(3, 3)], whole[np.arange(3, 7)]]
        assert [len(part) for part in parts] == [3, 0, 4]
        for one, other in zip(joined(parts), whole, strict=True):
            np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------- vectors of an index


@pytest.mark.parametrize("tasks", [0, 1, 2, 12])
@pytest.mark.parametrize("name", PRODUCTS)
def test_where_queries_are_certain_of_their_tasks_inner_products_are_the_score_whatever_the_items_are(name, tasks):
    queries, others = scored(*items(0, 8, tasks, certain=True), name), scored(*items(1, 11, tasks), name)
    asking = vectors(queries, SCALE, asking=True)
    products = asking @ vectors(others, SCALE).T
    np.testing.assert_allclose(products, matrix(queries, others, SCALE), rtol=0, atol=3e-6)
    assert asking.dtype == vectors(others, SCALE).dtype == np.float32


@pytest.mark.parametrize("name", PRODUCTS)
def test_where_posteriors_are_certain_an_index_ranks_as_the_score_does(name):
    rng = np.random.default_rng(0)
    # Sums of quarters are exact: what is equal is equal in both.
    coarse = [(np.round(4 * rng.normal(size=(count, 3))) / 4).astype(np.float32) for count in (20, 30, 20, 30)]
    own, theirs = (np.eye(4, dtype=np.float32)[rng.integers(0, 4, count)] for count in (20, 30))
    ids = np.zeros(20, np.int32), np.zeros(30, np.int32)
    queries, others = (
        scored(coarse[0], coarse[2], own, ids[0], name),
        scored(coarse[1], coarse[3], theirs, ids[1], name),
    )
    exact = matrix(queries, others, SCALE)
    products = vectors(queries, SCALE, asking=True) @ vectors(others, SCALE).T
    for scores, found in zip(exact, products, strict=True):
        larger = scores[:, None] > scores + 1e-5
        assert (found[:, None] > found)[larger].all()
        equal = np.abs(scores[:, None] - scores) <= 1e-5
        assert (np.abs(found[:, None] - found)[equal] < 1e-5).all()


def test_a_query_that_is_not_certain_counts_as_one_of_the_task_it_most_likely_belongs_to():
    features, plain, posterior, ids = items(0, 9)
    likely = np.eye(4, dtype=np.float32)[score.smoothed(posterior).argmax(1)]
    one, other = (scored(features, plain, part, ids, "prompted+prior") for part in (posterior, likely))
    np.testing.assert_array_equal(vectors(one, SCALE, asking=True), vectors(other, SCALE, asking=True))


def test_without_a_prior_the_vectors_are_the_features():
    whole = scored(*items(0, 4), "prompted+plain")
    np.testing.assert_array_equal(vectors(whole, SCALE), whole.features)


@pytest.mark.parametrize("name", ["matched", "matched+prior"])
def test_a_matched_score_is_the_inner_product_with_an_index_of_the_queries_own_task(name):
    queries, others = scored(*items(0, 12, 3, certain=True), name), scored(*items(1, 11, 3), name)
    asking, exact = vectors(queries, SCALE, asking=True), matrix(queries, others, SCALE)
    assert len(np.unique(queries.adapters)) > 1
    for task in np.unique(queries.adapters):
        own = queries.adapters == task
        products = asking[own] @ vectors(others, SCALE, task=int(task)).T
        np.testing.assert_allclose(products, exact[own], rtol=0, atol=3e-6)


def test_a_matched_score_needs_to_be_told_whose_index_is_meant():
    with pytest.raises(UserError, match=r"there is an index for the queries of each task; expected task, whose index"):
        vectors(scored(*items(0, 4), "matched+prior"), SCALE)


def test_prompts_that_give_no_numbers_spoil_the_scores_of_their_own_task_alone():
    features, plain, posterior, _ = items(0, 4)
    features[:2] = np.nan
    broken = scored(features, plain, posterior, np.array([0, 0, 1, -1], np.int32), "matched")
    found = np.isnan(matrix(broken, broken, SCALE))
    np.testing.assert_array_equal(found, [[True, True, False, False]] * 2 + [[False] * 4] * 2)
