"""Holds the fast ranks of `lpi_jax.problems.retrieval.ranks` against the slow NumPy oracle."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lpi_jax.problems.retrieval import ranks as package
from tests.reference import ranks

FEW = settings(max_examples=25, deadline=None, derandomize=True)
small = st.integers(-2, 2)  # products of small integers are exact in float32, so that ties are true ties


def both_ways(images, captions, owner):
    """The package's ranks, image to text and text to image."""
    numbers = np.arange(len(images))
    return package.ranks(images, captions, numbers, owner), package.ranks(captions, images, owner, numbers)


def check(images, captions, owner):
    scores = images.astype(np.float64) @ captions.astype(np.float64).T
    to_text, to_image = both_ways(images, captions, owner)
    np.testing.assert_array_equal(to_text, ranks.image_to_text_ranks(scores, owner))
    np.testing.assert_array_equal(to_image, ranks.text_to_image_ranks(scores, owner))


# -------------------------------------------------------------------------------------------------------------- ranks


@FEW
@given(
    images=hnp.arrays(np.float32, (4, 3), elements=small),
    captions=hnp.arrays(np.float32, (9, 3), elements=small),
    more=st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_ranks_are_the_oracles_with_ties_and_several_captions(images, captions, more):
    check(images, captions, np.array([2, 0, 3, 1, *more]))


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
    found = package.ranks(items[:50], np.concatenate([items, items])[owners], np.arange(50), owners)
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


def test_no_queries_have_no_ranks_and_no_recall():
    none = package.ranks(np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32), np.zeros(0, int), np.arange(2))
    assert none.shape == (0,)
    assert np.isnan(package.recall(none, 1))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_the_oracles(k):
    found = np.array([0, 0, 1, 4, 5, 9, 10, 300])
    assert package.recall(found, k) == pytest.approx(ranks.recall_at(found, k))
    assert package.recall(found, k) == {1: 25.0, 5: 50.0, 10: 75.0}[k]
