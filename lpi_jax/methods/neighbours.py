"""The nearest training items vote: a ceiling for the other rules, which keep a few numbers a task where it keeps all.

State of a side: `items` [N, E] float32, features of all training items; `tasks` [N] int32; `reach` [T] float32, the
distance (1 - cosine) from an item to the nearest other one of its task that is not exceeded by a share `routing.none`
of them.

p(t | x) = votes of t / K among the K nearest items by cosine; none of the tasks where the nearest of all lies farther
away than the mean of `reach`.
"""

import numpy as np

from lpi_jax.methods.routing_options import Options
from lpi_jax.types import Tree

CHUNK = 1024


def learnt(state: Tree, features: np.ndarray, options: Options) -> Tree:
    """The state with one more task. features: [N, E] float32, L2-normalised, of its training items."""
    number = len(state["reach"]) if state else 0
    nearest = np.zeros(len(features))
    for start in range(0, len(features), CHUNK):
        cosines = features[start : start + CHUNK] @ features.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        nearest[start : start + CHUNK] = 1 - cosines.max(1) if len(features) > 1 else 0.0
    new = {
        "items": np.asarray(features, np.float32),
        "tasks": np.full(len(features), number, np.int32),
        "reach": np.array([np.quantile(nearest, options.none)], np.float32),
    }
    return {name: np.concatenate([state[name], part]) for name, part in new.items()} if state else new


def posterior(state: Tree, features: np.ndarray, options: Options) -> np.ndarray:
    """p(t | x) of items [N, E] float32 -> [N, T + 1] float32, the last column being none of the tasks."""
    tasks, border = len(state["reach"]), float(state["reach"].mean())
    k = min(options.neighbours, len(state["items"]))
    shares = np.zeros((len(features), tasks + 1), np.float32)
    for start in range(0, len(features), CHUNK):
        cosines = features[start : start + CHUNK] @ state["items"].T
        closest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        rows = start + np.arange(len(closest))
        np.add.at(shares, (rows[:, None], state["tasks"][closest]), np.float32(1 / k))
        if options.none < 1:
            far = rows[1 - cosines.max(1) > border]
            shares[far] = 0.0
            shares[far, -1] = 1.0
    return shares
