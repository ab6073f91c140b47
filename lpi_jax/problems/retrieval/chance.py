"""What a guess finds: recall@k and MRR of a gallery in random order. Without JAX, so that reports can compute it."""

import numpy as np


def hits(items: int, right: np.ndarray, k: int) -> np.ndarray:
    """Probability that one of several right answers is among the first k: 1 - C(n - r, k) / C(n, k).

    Args:
      items: n >= 1, of the gallery. right: [N] int, r of every query, 1 <= r <= n. k: places looked at.

    Returns:
      [N] float64, 0..1; k / n where one answer is right.
    """
    places = np.arange(min(k, items))
    # The product of the chances that a place holds a wrong answer while all places before it did.
    wrong = np.clip(items - np.asarray(right)[:, None] - places, 0, None) / (items - places)
    return 1.0 - wrong.prod(axis=1)


def recall(items: int, right: np.ndarray, k: int) -> float:
    """Expected recall@k of queries with so many right answers each, per cent; arguments as in `hits`, right [N]."""
    return 100.0 * float(np.mean(hits(items, right, k)))


def mean_reciprocal_rank(items: int, right: np.ndarray) -> float:
    """Expected MRR of a gallery in random order, per cent; arguments as in `recall`, right [N].

    A query's best right answer has at least m wrong ones before it where the first m places hold wrong ones alone.
    """
    counts, queries = np.unique(np.asarray(right), return_counts=True)
    expected = []
    for count in counts:
        places = np.arange(items)
        at_least = np.concatenate([[1.0], np.cumprod(np.clip(items - count - places, 0, None) / (items - places))])
        expected.append(((at_least[:-1] - at_least[1:]) / (1.0 + places)).sum())
    return 100.0 * float(np.average(expected, weights=queries))
