"""Retrieval ranks and what they are summed up to.

Ranks are counted on the device in chunks of queries; a full similarity matrix never exists on the host.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.problems.retrieval.score import Scored, products

QUERY_CHUNK = 256
GALLERY_BLOCK = 1024
NONE = -1  # fills a row of right answers


def ranks(queries: Scored, gallery: Scored, right: np.ndarray, logit_scale: float = 1.0) -> np.ndarray:
    """Rank of each query's best right answer among the wrong ones: 0 is first place.

    Ties are broken against the method: a wrong item with exactly the score of the best right one stands before it. A
    query's other right answers never push it back.

    Args:
      queries: Q items. gallery: G items.
      right: [Q, R] int32, the places in the gallery of each query's right answers, the rest of a row NONE.
      logit_scale: the factor itself; what the prior is divided by.

    Returns:
      [Q] int32.
    """
    items = jax.device_put(_padded(gallery.features, GALLERY_BLOCK))
    there = jax.device_put(np.arange(len(items)) < len(gallery))
    likely = None if gallery.posterior is None else jax.device_put(_padded(gallery.posterior, GALLERY_BLOCK, 1))
    theirs = None if gallery.adapters is None else jax.device_put(_padded(gallery.adapters, GALLERY_BLOCK))
    scale = jnp.float32(logit_scale)
    right = _padded(right.T, 4, NONE).T  # so that few shapes are compiled
    found = []
    for start in range(0, len(queries), QUERY_CHUNK):
        some = slice(start, start + QUERY_CHUNK)
        asked = _padded(queries.features[some], QUERY_CHUNK)
        prior = None if likely is None else (_padded(queries.posterior[some], QUERY_CHUNK, 1), likely, scale)
        pair = None if theirs is None else (_padded(queries.adapters[some], QUERY_CHUNK), theirs)
        found.append(_count_before(asked, items, there, _padded(right[some], QUERY_CHUNK, NONE), prior, pair))
    return np.concatenate([np.asarray(f) for f in found])[: len(queries)] if found else np.zeros(0, np.int32)


@jax.jit
def _count_before(
    queries: Array,
    gallery: Array,
    there: Array,
    right: Array,
    prior: tuple[Array, Array, Array] | None,
    adapters: tuple[Array, Array] | None,
) -> Array:
    with jax.default_matmul_precision("highest"):
        scores = products(queries, gallery, *(adapters or ()))
    if prior is not None:
        own, theirs, scale = prior
        scores += jnp.log(jnp.matmul(own, theirs.T, precision="highest")) / scale
    known = right >= 0
    of_right = jnp.take_along_axis(scores, jnp.maximum(right, 0), axis=1)
    best = jnp.where(known, of_right, -jnp.inf).max(1, keepdims=True)
    # "Not behind" rather than "before": where a score is NaN, every wrong item counts, and a broken model ranks last.
    before = (there & ~(scores < best)).sum(1, dtype=jnp.int32)
    return before - (known & ~(of_right < best)).sum(1, dtype=jnp.int32)


def _padded(array: np.ndarray, multiple: int, value: int = 0) -> np.ndarray:
    """Pads the first axis up to a multiple, so that few shapes are ever compiled."""
    missing = -len(array) % multiple
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1), constant_values=value)


def recall(found: np.ndarray, k: int) -> float:
    """Per cent of queries [Q] whose best right answer is among the first k; NaN without queries."""
    return 100.0 * float(np.mean(found < k)) if len(found) else float("nan")


def mean_reciprocal_rank(found: np.ndarray) -> float:
    """MRR of ranks [Q] from 0: the mean of 1 / (1 + rank), per cent; NaN without queries."""
    return 100.0 * float(np.mean(1.0 / (1.0 + found))) if len(found) else float("nan")


def median_rank(found: np.ndarray) -> float:
    """The median of ranks [Q], counted from 1; NaN without queries."""
    return 1.0 + float(np.median(found)) if len(found) else float("nan")
