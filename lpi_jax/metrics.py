"""Retrieval ranks, recall, and what a continual run is judged by.

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
    """Per cent of queries whose best right answer is among the first k; NaN without queries."""
    return 100.0 * float(np.mean(found < k)) if len(found) else float("nan")


def incremental_average(matrix: np.ndarray) -> float:
    """Mean over tasks t of the mean over stages s >= t of R[s][t] (the release's "average"); per cent.

    Args:
      matrix: [T, T] float, R[s][t] = recall on task t after stage s; only t <= s is read. So for all functions below.
    """
    return _mean([matrix[t:, t].mean() for t in range(len(matrix))])


def final_average(matrix: np.ndarray) -> float:
    """Mean over tasks of the last stage's row, R[T-1][t]; per cent."""
    return _mean(matrix[-1])


def forgetting(matrix: np.ndarray) -> float:
    """The release's: mean over t < T-1 of R[T-1][t] - max_{t <= s < T-1} R[s][t]; points, negative = forgot."""
    last = len(matrix) - 1
    return _mean([matrix[last, t] - matrix[t:last, t].max() for t in range(last)])


def chaudhry_forgetting(matrix: np.ndarray) -> float:
    """Chaudhry et al. 2018: the best earlier recall minus the last one, averaged; points, positive = forgot."""
    return 0.0 - forgetting(matrix)


def backward_transfer(matrix: np.ndarray) -> float:
    """Mean over t < T-1 of R[T-1][t] - R[t][t]; points, negative = later tasks harmed earlier ones."""
    last = len(matrix) - 1
    return _mean([matrix[last, t] - matrix[t, t] for t in range(last)])


def forward_transfer(before: np.ndarray, zero_shot: np.ndarray) -> float:
    """Mean over tasks t >= 1 of (recall just before learning t) - (zero-shot recall on that gallery); points.

    Args:
      before: [T] float, recall on task t under the prompts of tasks < t. zero_shot: [T] float, on the same gallery.
    """
    return _mean(before[1:] - zero_shot[1:])


def zero_shot_retention(before: np.ndarray, zero_shot: np.ndarray) -> float:
    """What is left of the backbone's zero-shot recall on tasks not learnt yet: 100 * sum(before) / sum(zero_shot).

    Arguments as in `forward_transfer`, tasks t >= 1; 100 without such tasks or where zero-shot recall is 0 throughout.
    """
    floor = zero_shot[1:].sum()
    return float(100.0 * before[1:].sum() / floor) if floor > 0 else 100.0


def summary(matrix: np.ndarray) -> dict[str, float]:
    """Every average of one recall matrix by name."""
    functions = (incremental_average, final_average, forgetting, chaudhry_forgetting, backward_transfer)
    return {function.__name__: function(matrix) for function in functions}


def _mean(values: list[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0
