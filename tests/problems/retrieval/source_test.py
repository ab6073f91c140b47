"""Pairs of image and caption; what every source of batches promises is tested in tests/data/loader_test.py."""

import numpy as np

from lpi_jax.data.batches import Plan, training_batches
from lpi_jax.data.loader import Transform
from lpi_jax.problems.retrieval.source import Pairs
from tests.support.pixels import loading
from tests.support.splits import split_of

CAPTIONS = (("a", "b"), ("c",), ("d", "e", "f"))
IMAGES = np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), 12, 16, 3), np.uint8)
PAIRS = sum(map(len, CAPTIONS))


def test_captions_without_placeholders_come_along_where_a_method_asks_and_are_cut_to_the_same_length():
    """Behind placeholders a caption is longer; both are cut to what the longest of the global batch needs."""
    asked = []

    def captions(words, placeholders):
        asked.append((placeholders, list(words)))
        ids = np.zeros((len(words), 77), np.int32)
        ids[:, 1] = np.arange(len(words)) + 2  # tells the caption
        ids[:, 11 if placeholders else 7] = 999
        return ids

    split = split_of(("x", "y", "z"), CAPTIONS, loading(IMAGES))
    source = Pairs(split, Transform(8), captions, 4, asking=True)
    words = [caption for own in CAPTIONS for caption in own]
    assert asked == [(4, words), (0, words)]
    (batch,) = training_batches(Plan({0: source}, 0, 4, 0), 0, 1)
    shapes = {name: part.shape for name, part in batch.items()}
    assert shapes == {"images": (4, 8, 8, 3), "token_ids": (4, 16), "query_ids": (4, 16)}
    np.testing.assert_array_equal(batch["token_ids"].argmax(1), [11] * 4)
    np.testing.assert_array_equal(batch["query_ids"].argmax(1), [7] * 4)
    np.testing.assert_array_equal(batch["token_ids"][:, 1], batch["query_ids"][:, 1])  # of the same caption
    assert [source.length(pair) for pair in range(PAIRS)] == [12] * PAIRS
    assert len(source) == PAIRS
