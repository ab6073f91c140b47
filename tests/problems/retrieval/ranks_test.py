"""Holds the fast ranks of `lpi_jax.problems.retrieval.ranks` against the slow NumPy oracle."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lpi_jax.problems.retrieval import ranks as package
from lpi_jax.problems.retrieval.score import Scored, matrix
from tests.reference import ranks

FEW = settings(max_examples=25, deadline=None, derandomize=True)
small = st.integers(-2, 2)  # products of small integers are exact in float32, so that ties are true ties


def places(queries, gallery):
    """[Q, R] int32: for each owner of a query the places of the items with that owner."""
    found = [np.flatnonzero(np.asarray(gallery) == owner) for owner in queries]
    return listed(found)


def listed(found):
    """[Q, R] int32: rows of different lengths, filled up with -1."""
    room = max(map(len, found), default=1)
    return np.array([[*own, *[-1] * (room - len(own))] for own in found], np.int32).reshape(len(found), room)


def ranked(queries, gallery, right):
    return package.ranks(Scored(queries), Scored(gallery), right)


def both_ways(images, captions, owner):
    """The package's ranks, image to text and text to image."""
    numbers = np.arange(len(images))
    return (
        ranked(images, captions, places(numbers, owner)),
        ranked(captions, images, places(owner, numbers)),
    )


def check(images, captions, owner):
    scores = images.astype(np.float64) @ captions.astype(np.float64).T
    to_text, to_image = both_ways(images, captions, owner)
    np.testing.assert_array_equal(to_text, ranks.image_to_text_ranks(scores, owner))
    np.testing.assert_array_equal(to_image, ranks.text_to_image_ranks(scores, owner))


def unit_rows(rng, count, width=16):
    rows = rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- ranks


@FEW
@given(
    images=hnp.arrays(np.float32, (4, 3), elements=small),
    captions=hnp.arrays(np.float32, (9, 3), elements=small),
    more=st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_ranks_are_the_oracles_with_ties_and_several_captions(images, captions, more):
    check(images, captions, np.array([2, 0, 3, 1, *more]))


@FEW
@given(
    queries=hnp.arrays(np.float32, (5, 3), elements=small),
    gallery=hnp.arrays(np.float32, (7, 3), elements=small),
    right=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6, unique=True), min_size=5, max_size=5),
)
def test_ranks_are_the_oracles_whatever_is_right(queries, gallery, right):
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    np.testing.assert_array_equal(ranked(queries, gallery, listed(right)), ranks.ranks(scores, right))


@pytest.mark.parametrize(("queries", "block"), [(1, 1), (3, 5), (16, 64), (17, 4), (256, 1024)])
def test_ranks_do_not_depend_on_the_chunk_sizes(monkeypatch, queries, block):
    monkeypatch.setattr(package, "QUERY_CHUNK", queries)
    monkeypatch.setattr(package, "GALLERY_BLOCK", block)
    rng = np.random.default_rng(0)
    images, captions = (rng.integers(-3, 4, size=(n, 4)).astype(np.float32) for n in (16, 48))
    check(images, captions, rng.permutation(np.repeat(np.arange(16), 3)))


def test_ranks_of_random_features_beyond_one_chunk_are_the_oracles():
    rng = np.random.default_rng(0)
    images, captions = (rng.normal(size=(n, 16)) for n in (300, 600))
    captions += 0.5 * images[np.arange(600) // 2]
    images, captions = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (images, captions))
    check(images, captions, np.arange(600) // 2)


def test_a_model_that_gives_everything_the_same_score_ranks_last():
    same = np.ones((6, 4), np.float32) / 2
    to_text, to_image = both_ways(same, np.repeat(same, 2, axis=0), np.repeat(np.arange(6), 2))
    np.testing.assert_array_equal(to_text, [10] * 6)  # its own other caption is no competitor
    np.testing.assert_array_equal(to_image, [5] * 12)


def test_an_item_twice_in_the_gallery_under_two_owners_stands_before_the_right_one():
    rng = np.random.default_rng(0)
    items = rng.normal(size=(700, 33)).astype(np.float32)
    owners = rng.permutation(1400)
    found = ranked(items[:50], np.concatenate([items, items])[owners], places(range(50), owners))
    assert found.min() >= 1


def test_a_perfect_model_ranks_everything_first():
    eye = np.eye(5, dtype=np.float32)
    to_text, to_image = both_ways(eye, np.repeat(eye, 2, axis=0), np.repeat(np.arange(5), 2))
    chex.assert_shape((to_text, to_image), [(5,), (10,)])
    assert not to_text.any()
    assert not to_image.any()


def test_features_that_are_not_numbers_rank_last():
    eye = np.eye(4, dtype=np.float32)
    to_text, to_image = both_ways(eye, np.full_like(eye, np.nan), np.arange(4))
    np.testing.assert_array_equal(to_text, [3] * 4)
    np.testing.assert_array_equal(to_image, [3] * 4)


def test_one_right_answer_that_is_not_a_number_ranks_last_and_a_wrong_one_stands_before():
    queries, gallery = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    gallery[1] = np.nan
    right = listed([[0, 1], [2], [3], [4]])
    scores = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    np.testing.assert_array_equal(ranked(queries, gallery, right), ranks.ranks(scores, [[0, 1], [2], [3], [4]]))
    np.testing.assert_array_equal(ranked(queries, gallery, right), [3, 1, 1, 1])


def test_no_queries_have_no_ranks_and_no_metrics():
    none = ranked(np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32), np.zeros((0, 1), np.int32))
    assert none.shape == (0,)
    assert np.isnan([package.recall(none, 1), package.mean_reciprocal_rank(none), package.median_rank(none)]).all()


# -------------------------------------------------------------------------------------------------------- with a prior


def posteriors(rng, count, tasks=3):
    return rng.dirichlet(np.full(tasks + 1, 0.3), count).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_with_a_prior_ranks_are_those_of_the_formula(scale):
    rng = np.random.default_rng(0)
    queries, gallery = unit_rows(rng, 60), unit_rows(rng, 90)
    own, theirs = posteriors(rng, 60), posteriors(rng, 90)
    right = [sorted(rng.choice(90, rng.integers(1, 7), replace=False)) for _ in range(60)]
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    scores += np.log(own.astype(np.float64) @ theirs.astype(np.float64).T) / scale
    found = package.ranks(Scored(queries, own), Scored(gallery, theirs), listed(right), scale)
    expected = ranks.ranks(scores, right)
    np.testing.assert_array_equal(found, expected)
    assert (expected != ranks.ranks(queries.astype(np.float64) @ gallery.T, right)).any()  # the prior decides something


@FEW
@given(
    queries=hnp.arrays(np.float32, (6, 3), elements=small),
    gallery=hnp.arrays(np.float32, (8, 3), elements=small),
    own=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    theirs=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    right=st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True), min_size=6, max_size=6),
)
def test_what_was_routed_elsewhere_is_never_found_and_a_query_without_a_right_answer_near_ranks_last(
    queries, gallery, own, theirs, right
):
    """Posteriors that are certain: log 0 is minus infinity, log 1 nothing."""
    certain = np.eye(3, dtype=np.float32)
    own, theirs = np.array(own), np.array(theirs)
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    scores = np.where(own[:, None] == theirs, scores, -np.inf)
    found = package.ranks(Scored(queries, certain[own]), Scored(gallery, certain[theirs]), listed(right))
    np.testing.assert_array_equal(found, ranks.ranks(scores, right))
    for rank, task, places in zip(found, own, right, strict=True):
        if not (theirs[places] == task).any():
            assert rank == len(gallery) - len(places)


@pytest.mark.parametrize(("queries", "gallery"), [(255, 1023), (256, 1024), (257, 1025)])
@pytest.mark.parametrize("prior", [False, True])
def test_at_the_borders_of_chunks_ranks_are_those_of_the_whole_matrix(queries, gallery, prior):
    """Near ties may round either way: between a rank that loses them and one that wins them lies every rounding."""
    rng = np.random.default_rng(queries)
    asked, shown = unit_rows(rng, queries), unit_rows(rng, gallery)
    shown[rng.integers(0, gallery, gallery // 2)] = shown[0]  # true ties
    own, theirs = (posteriors(rng, count) if prior else None for count in (queries, gallery))
    if prior:
        theirs[(shown == shown[0]).all(1)] = theirs[0]
    right = [sorted(rng.choice(gallery, rng.integers(1, 6), replace=False)) for _ in range(queries)]
    found = package.ranks(Scored(asked, own), Scored(shown, theirs), listed(right), 20.0)
    scores = matrix(Scored(asked, own), Scored(shown, theirs), 20.0).astype(np.float64)
    best = np.array([row[places].max() for row, places in zip(scores, right, strict=True)])[:, None]
    wrong = np.ones(scores.shape, bool)
    for row, places in zip(wrong, right, strict=True):
        row[places] = False
    equal = np.array(
        [(shown[places] == shown[0]).all(1)[row[places].argmax()] for row, places in zip(scores, right, strict=True)]
    )
    same = equal[:, None] & (shown == shown[0]).all(1)  # equal to the best right one: before it, however both round
    least = (wrong & (same | (scores > best + 1e-5))).sum(1)
    most = (wrong & (scores >= best - 1e-5)).sum(1)
    assert ((least <= found) & (found <= most)).all()
    assert (least == most).mean() > 0.9


# ------------------------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_the_oracles(k):
    found = np.array([0, 0, 1, 4, 5, 9, 10, 300])
    assert package.recall(found, k) == pytest.approx(ranks.recall_at(found, k))
    assert package.recall(found, k) == {1: 25.0, 5: 50.0, 10: 75.0}[k]


def test_mean_reciprocal_and_median_ranks_are_worked_out_by_hand():
    found = np.array([0, 3, 1, 9], np.int32)
    assert package.mean_reciprocal_rank(found) == pytest.approx(100 * (1 + 1 / 4 + 1 / 2 + 1 / 10) / 4)
    assert package.median_rank(found) == 3.0  # between 2 and 4
    assert package.median_rank(found[:3]) == 2.0
    assert package.mean_reciprocal_rank(np.zeros(3, np.int32)) == 100.0
    assert package.median_rank(np.zeros(3, np.int32)) == 1.0


@FEW
@given(found=st.lists(st.integers(0, 50), min_size=1, max_size=9))
def test_mean_reciprocal_and_median_ranks_are_the_oracles(found):
    own = np.array(found, np.int32)
    assert package.mean_reciprocal_rank(own) == pytest.approx(ranks.mean_reciprocal_rank(found))
    assert package.median_rank(own) == pytest.approx(ranks.median_rank(found))


@pytest.mark.parametrize("prior", [False, True])
def test_prompts_that_are_matched_rank_by_the_score_of_each_pair(prior):
    rng = np.random.default_rng(4)
    asked, shown = (np.concatenate([unit_rows(rng, count), unit_rows(rng, count)], axis=1) for count in (300, 1100))
    own, theirs = (rng.integers(-1, 3, count).astype(np.int32) for count in (300, 1100))
    likely = [posteriors(rng, count) if prior else None for count in (300, 1100)]
    queries, items = Scored(asked, likely[0], own), Scored(shown, likely[1], theirs)
    right = [[int(place)] for place in rng.integers(0, 1100, 300)]
    found = package.ranks(queries, items, listed(right), 20.0)
    scores = matrix(queries, items, 20.0).astype(np.float64)
    best = scores[np.arange(300), np.ravel(right)][:, None]
    # Near ties may round either way.
    surely, maybe = (scores > best + 1e-5).sum(1), (scores > best - 1e-5).sum(1) - 1
    assert ((surely <= found) & (found <= maybe)).all()
    assert (maybe - surely).max() < 5
