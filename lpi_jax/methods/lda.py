"""Linear discriminant analysis over streams: a mean a task, one covariance shared by all of them.

The sums are exact, whatever the order of the tasks, and no item is kept (streaming LDA, Hayes & Kanan 2020,
arXiv 1909.01520). State of a side: `means` [T, E] float32, `counts` [T] float64 (items a task), `scatter` [E, E]
float64, the sum over tasks of (x - mean)(x - mean)^t, and `reach` [T] float32, how far a task's own items lie from its
mean: the distance that a share `routing.none` of them does not exceed, over their mean distance.

With S = scatter / N, the covariance is C = (1 - a) S + a tr(S) / E I (a: `routing.shrinkage`) and the distance of an
item x to task t is d2_t = (x - mean_t)^t C^-1 (x - mean_t). An item that C and the means were not made from is farther
away than those that they were made from: one with the distance q by the factor m^2 / (1 - (1 - a) m q / N), where
m = n / (n - 1) of a task of n items (leave-one-out; Sherman-Morrison), and all on the average by nearly that factor k
with m = N / (N - T) and q = h, the mean distance of the training items to their own means. So

  p(t | x) = exp(-d2_t / 2k) / Z,   p(none | x) = exp(-b / 2k) / Z

with all tasks equally likely, and the border b = k h reach beyond which lie 1 % of the training items (`routing.none`).
The reach of a task is measured when it is the newest, of its items' distances as if each had been left out. So the
border holds for few items of many dimensions, too.
"""

import numpy as np

from lpi_jax.methods.routing_options import Options
from lpi_jax.types import Tree


def learnt(state: Tree, features: np.ndarray, options: Options) -> Tree:
    """The state with one more task.

    Args:
      features: [N, E] float32, of the training items of a task.
    """
    rows = np.asarray(features, np.float64)
    centred = rows - rows.mean(0)
    new = {
        "means": rows.mean(0)[None].astype(np.float32),
        "counts": np.array([len(rows)], np.float64),
    }
    if state:
        new = {name: np.concatenate([state[name], row]) for name, row in new.items()}
    scatter = centred.T @ centred + (state["scatter"] if state else 0.0)
    total = new["counts"].sum()
    root, _ = _whitening(scatter, total, options.shrinkage)
    own = ((centred @ root) ** 2).sum(1)
    alone = own * _left_out(own, len(rows), 1, total, options.shrinkage)
    # Relative to the mean distance, which later tasks' items change.
    reach = np.array([np.quantile(alone, options.none) / max(alone.mean(), 1e-12)], np.float32)
    return {**new, "scatter": scatter, "reach": np.concatenate([state["reach"], reach]) if state else reach}


def posterior(state: Tree, features: np.ndarray, options: Options) -> np.ndarray:
    """p(t | x) of items [N, E] float32 -> [N, T + 1] float32, the last column being none of the tasks."""
    total = state["counts"].sum()
    root, mean = _whitening(state["scatter"], total, options.shrinkage)
    k = _left_out(mean, total, len(state["counts"]), total, options.shrinkage)
    items, means = np.asarray(features, np.float64) @ root, np.asarray(state["means"], np.float64) @ root
    logits = np.empty((len(items), len(means) + 1))
    for task, centre in enumerate(means):
        logits[:, task] = -((items - centre) ** 2).sum(1) / (2 * k)
    border = np.average(state["reach"], weights=state["counts"]) * mean * k
    logits[:, -1] = -border / (2 * k) if options.none < 1 else -np.inf
    logits -= logits.max(1, keepdims=True)
    likely = np.exp(logits)
    return (likely / likely.sum(1, keepdims=True)).astype(np.float32)


def _left_out(own: np.ndarray, items: float, tasks: int, total: float, shrinkage: float) -> np.ndarray:
    """By what factor an item's distance is larger where covariance and mean are made without it.

    Args:
      own: [...] distances with it. items: how many of all items, `total`, the `tasks` means are of.
    """
    m = items / max(items - tasks, 1)
    # What the covariance is shrunk to is no item's own.
    return m * m / np.maximum(1 - (1 - shrinkage) * m * own / total, 1e-9)


def _whitening(scatter: np.ndarray, count: float, shrinkage: float) -> tuple[np.ndarray, float]:
    """L [E, E] with C^-1 = L L^t, so that d2 = |L^t x - L^t mean|^2; the mean d2 of C's own items to their means."""
    covariance = scatter / count
    width = len(covariance)
    # The floor keeps items that are all alike from dividing by zero.
    round_part = max(np.trace(covariance) / width, 1e-12) * np.eye(width)
    # Factorised before it is inverted: the inverse of a covariance of few items is not positive in float64.
    root = np.linalg.inv(np.linalg.cholesky((1 - shrinkage) * covariance + max(shrinkage, 1e-9) * round_part)).T
    return root, float(((covariance @ root) * root).sum())
