"""What a guess finds: recall@k of a gallery in random order. Without JAX, so that reports can compute it too."""

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
