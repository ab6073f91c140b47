"""Which task does an unseen item belong to? Centres per task from frozen features, nearest centre in L1.

Plain NumPy on the host: it is exact, the same on any number of devices, and small beside the towers.
"""

import numpy as np

RESTARTS = 10
ITERATIONS = 100
CHUNK = 2048


def kmeans(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Centres of `features` by Lloyd's iterations from k-means++ starts; the best of ten restarts.

    Args:
      features: [N, E] float32, N >= 1. With fewer than k distinct rows some centres coincide.
      k: number of centres.
      seed: equal seeds and features give equal centres.

    Returns:
      [k, E] float32. Minimises the sum of squared L2 distances to the nearest centre.
    """
    points = np.asarray(features, np.float64)
    rng = np.random.default_rng(seed)
    runs = [_lloyd(points, _spread_start(points, k, rng)) for _ in range(RESTARTS)]
    centres, _ = min(runs, key=lambda run: run[1])
    return centres.astype(np.float32)


def distances(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """L1 distance of every item to a task's nearest centre: min_k sum_e |f_e - c_ke|.

    Args:
      features: [N, E] float32. centres: [K, E] float32, of one task.

    Returns:
      [N] float32.
    """
    chunks = [
        np.abs(features[i : i + CHUNK, None, :] - centres[None]).sum(-1).min(1) for i in range(0, len(features), CHUNK)
    ]
    return np.concatenate(chunks).astype(np.float32) if chunks else np.zeros(0, np.float32)


def route(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The task of each item: the one that owns the nearest centre; of equally near tasks the earliest.

    Args:
      features: [N, E] float32, made without prompts. centres: [T, K, E] float32.

    Returns:
      [N] int32 task indices.
    """
    return np.stack([distances(features, own) for own in centres], 1).argmin(1).astype(np.int32)


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """[N, k] squared L2 distances."""
    cross = points @ centres.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * cross + (centres**2).sum(1)[None], 0.0)


def _spread_start(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is drawn with probability proportional to its squared distance from those before."""
    centres = points[rng.integers(len(points))][None]
    while len(centres) < k:
        weight = _squared(points, centres).min(1)
        total = weight.sum()
        chosen = rng.choice(len(points), p=weight / total) if total > 0 else rng.integers(len(points))
        centres = np.concatenate([centres, points[chosen][None]])
    return centres


def _lloyd(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    owner = None
    for _ in range(ITERATIONS):
        squared = _squared(points, centres)
        nearest = squared.argmin(1)
        if owner is not None and (nearest == owner).all():
            break
        owner = nearest
        # An empty cluster keeps its centre.
        centres = np.stack([points[owner == j].mean(0) if (owner == j).any() else c for j, c in enumerate(centres)])
    return centres, float(_squared(points, centres).min(1).sum())
