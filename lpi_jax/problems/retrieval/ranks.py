"""Retrieval ranks and recall.

Ranks are counted on the device in chunks of queries; a full similarity matrix never exists on the host.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

QUERY_CHUNK = 256
GALLERY_BLOCK = 1024
_PADDED_QUERY, _PADDED_ITEM = -2, -1


def ranks(queries: np.ndarray, gallery: np.ndarray, query_owner: np.ndarray, gallery_owner: np.ndarray) -> np.ndarray:
    """Rank of each query's best right answer among the wrong ones: 0 is first place.

    An answer is right if it has the query's owner. Ties are broken against the method: a wrong item with exactly the
    score of the best right one stands before it. A query's other right answers never push it back.

    Args:
      queries: [Q, E] float32, L2-normalised. gallery: [G, E] float32, L2-normalised.
      query_owner: [Q] int. gallery_owner: [G] int; owners are image numbers >= 0, each query's occurs in the gallery.

    Returns:
      [Q] int32.
    """
    items = _padded(gallery, GALLERY_BLOCK)
    owners = _padded(gallery_owner.astype(np.int32), GALLERY_BLOCK, _PADDED_ITEM)
    items, owners = jax.device_put(items), jax.device_put(owners)
    found = []
    for start in range(0, len(queries), QUERY_CHUNK):
        chunk = _padded(queries[start : start + QUERY_CHUNK], QUERY_CHUNK)
        own = _padded(query_owner[start : start + QUERY_CHUNK].astype(np.int32), QUERY_CHUNK, _PADDED_QUERY)
        found.append(_count_before(chunk, items, own, owners))
    return np.concatenate([np.asarray(f) for f in found])[: len(queries)] if found else np.zeros(0, np.int32)


@jax.jit
def _count_before(queries: Array, gallery: Array, query_owner: Array, gallery_owner: Array) -> Array:
    scores = jnp.matmul(queries, gallery.T, precision="highest")
    right = query_owner[:, None] == gallery_owner[None, :]
    best = jnp.where(right, scores, -jnp.inf).max(1, keepdims=True)
    wrong = ~right & (gallery_owner >= 0)[None, :]
    # "Not behind" rather than "before": where a score is NaN, every wrong item counts, and a broken model ranks last.
    return (wrong & ~(scores < best)).sum(1, dtype=jnp.int32)


def _padded(array: np.ndarray, multiple: int, value: int = 0) -> np.ndarray:
    """Pads the first axis up to a multiple, so that few shapes are ever compiled."""
    missing = -len(array) % multiple
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1), constant_values=value)


def recall(found: np.ndarray, k: int) -> float:
    """Per cent of queries [Q] whose best right answer is among the first k; NaN without queries."""
    return 100.0 * float(np.mean(found < k)) if len(found) else float("nan")
