"""The release's routing rule: k-means centres per task, the nearest centre in L1. It gives no probabilities.

State of a side: `centres` [T, K, E] float32.
"""

import numpy as np

from lpi_jax.methods.base import Assigned, one_hot
from lpi_jax.parallel import processes
from lpi_jax.types import Tree

RESTARTS = 10  # at most; fewer where AGREEING of them end at the same, best centres
AGREEING = 3
RESTART_POINTS = 20_000  # restarts look at so many points; the best of them goes on with all
ITERATIONS = 100
CHUNK = 2048
_SAME = 1e-9  # relative difference of two sums of squares that are one, but for the order of the sums


def learnt(state: Tree, features: np.ndarray, centres: int, seed: int) -> Tree:
    """The state with one more task's centres. features: [N, E] float32, of its training items."""
    new = kmeans(features, centres, seed)[None]
    return {"centres": np.concatenate([state["centres"], new]) if state else new}


def assigned(state: Tree, features: np.ndarray, known: Assigned | None) -> Assigned:
    """The task with the nearest centre for every item; of equally near tasks the earliest.

    A finished task's centres never change, so an item is compared only with tasks that it has not met yet.

    Args:
      features: [N, E] float32. known: what this function said of the same items under a state with fewer tasks.
    """
    ids, compared, best = (part.copy() for part in (known or Assigned.nowhere(len(features)))[:3])
    centres = state.get("centres", ())
    for task in range(len(centres)):
        fresh = np.flatnonzero(compared == task)
        # The first process's: another processor may round otherwise, and all must encode the same items.
        measured = processes.copied(distances(features[fresh], centres[task]))
        closer = measured < best[fresh]  # strictly: of equally near tasks the earliest
        best[fresh] = np.where(closer, measured, best[fresh])
        ids[fresh[closer]] = task
        compared[fresh] = task + 1
    return Assigned(ids, compared, best, one_hot(ids, len(centres)))


def kmeans(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Centres of `features` by Lloyd's iterations from k-means++ starts; the best of ten restarts.

    Restarts end as soon as three of them have found the same best centres. Of more than 20,000 points the restarts see
    a sample that the seed chooses; Lloyd's iterations from the best of them then run on all.

    Args:
      features: [N, E] float32, N >= 1. With fewer than k distinct rows some centres coincide.
      k: number of centres.
      seed: equal seeds and features give equal centres.

    Returns:
      [k, E] float32. Minimises the sum of squared L2 distances to the nearest centre.
    """
    rng = np.random.default_rng(seed)
    few = features
    if len(features) > RESTART_POINTS:
        few = features[np.sort(rng.choice(len(features), RESTART_POINTS, replace=False))]
    points = _Points(few)
    best, agreeing = (points.points[:0], np.inf), 0
    for _ in range(RESTARTS):
        found = _lloyd(points, _spread_start(points, k, rng))
        if found[1] < best[1] * (1 - _SAME):
            best, agreeing = found, 1
        elif found[1] <= best[1] * (1 + _SAME):
            agreeing += 1
        if agreeing == AGREEING:
            break
    centres = best[0] if few is features else _lloyd(_Points(features), best[0])[0]
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


class _Points:
    """[N, E] points in float64, and what does not change while centres move: their squared lengths, [N, 1]."""

    def __init__(self, features: np.ndarray) -> None:
        self.points = np.asarray(features, np.float64)
        self._lengths = np.einsum("ne,ne->n", self.points, self.points)[:, None]

    def squared(self, centres: np.ndarray) -> np.ndarray:
        """[N, k] squared L2 distances to centres [k, E]."""
        distances = self.points @ centres.T
        distances *= -2
        distances += self._lengths
        distances += (centres**2).sum(1)
        return np.maximum(distances, 0.0, out=distances)

    def means(self, owner: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """[k, E] means of the points that each centre owns (owner: [N] ints); one that owns none stays where it is."""
        owns = (owner == np.arange(len(centres))[:, None]).astype(np.float64)
        counts = owns.sum(1)[:, None]
        return np.where(counts > 0, (owns @ self.points) / np.maximum(counts, 1), centres)


def _spread_start(points: _Points, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is drawn with probability proportional to its squared distance from those before."""
    centres = points.points[rng.integers(len(points.points))][None]
    weight = points.squared(centres)[:, 0]
    while len(centres) < k:
        total = weight.sum()
        chosen = rng.choice(len(weight), p=weight / total) if total > 0 else rng.integers(len(weight))
        new = points.points[chosen][None]
        centres, weight = np.concatenate([centres, new]), np.minimum(weight, points.squared(new)[:, 0])
    return centres


def _lloyd(points: _Points, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Centres where Lloyd's iteration stands still (or after ITERATIONS), and the sum of squared distances to them."""
    owner = None
    for _ in range(ITERATIONS):
        nearest = points.squared(centres).argmin(1)
        if owner is not None and (nearest == owner).all():
            break
        owner, centres = nearest, points.means(nearest, centres)
    return centres, float(points.squared(centres).min(1).sum())
