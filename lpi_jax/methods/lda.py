"""Linear discriminant analysis over streams: a mean a task, one covariance shared by all of them.

The sums are exact, whatever the order of the tasks, and no item is kept (streaming LDA, Hayes & Kanan 2020,
arXiv 1909.01520). State of a side: `means` [T, E] float32, `counts` [T] float64 (items a task), `scatter` [E, E]
float64, the sum over tasks of (x - mean)(x - mean)^t, and `reach` [T] float32, how far a task's own items lie from its
mean: the distance that a share `routing.none` of them does not exceed, over the mean distance of all items so far.

With S = scatter / N, the covariance is C = (1 - a) S + a tr(S) / E I (a: `routing.shrinkage`) and the distance of an
item x to task t is d2_t = (x - mean_t)^t C^-1 (x - mean_t). An item that C was not made from is farther away than those
that it was made from: by the factor k = 1 / (1 - h / N) on the average, h being the mean distance of the training items
to their own means (leave-one-out; Sherman-Morrison). So

  p(t | x) = exp(-d2_t / 2k) / Z,   p(none | x) = exp(-b / 2k) / Z

with all tasks equally likely, and the border b beyond which lie 1 % of the training items (`routing.none`), times k. Of
each task it is measured when the task is the newest: the order of the tasks changes b a little, and nothing else.

Of fewer items than dimensions the border is too near: many new items of the same kind count as none, which costs them
their prompts and nothing more.
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
    root, mean = _whitening(scatter, new["counts"].sum(), options.shrinkage)
    own = ((centred @ root) ** 2).sum(1)
    # Relative to the mean distance, which later tasks' items change.
    reach = np.array([np.quantile(own, options.none) / max(mean, 1e-12)], np.float32)
    return {**new, "scatter": scatter, "reach": np.concatenate([state["reach"], reach]) if state else reach}


def posterior(state: Tree, features: np.ndarray, options: Options) -> np.ndarray:
    """p(t | x) of items [N, E] float32 -> [N, T + 1] float32, the last column being none of the tasks."""
    total = state["counts"].sum()
    root, mean = _whitening(state["scatter"], total, options.shrinkage)
    k = 1 / max(1 - mean / total, 1e-3)
    items, means = np.asarray(features, np.float64) @ root, np.asarray(state["means"], np.float64) @ root
    logits = np.empty((len(items), len(means) + 1))
    for task, centre in enumerate(means):
        logits[:, task] = -((items - centre) ** 2).sum(1) / (2 * k)
    border = np.average(state["reach"], weights=state["counts"]) * mean * k
    logits[:, -1] = -border / (2 * k) if options.none < 1 else -np.inf
    logits -= logits.max(1, keepdims=True)
    likely = np.exp(logits)
    return (likely / likely.sum(1, keepdims=True)).astype(np.float32)


def _whitening(scatter: np.ndarray, count: float, shrinkage: float) -> tuple[np.ndarray, float]:
    """L [E, E] with C^-1 = L L^t, so that d2 = |L^t x - L^t mean|^2; the mean d2 of C's own items to their means."""
    covariance = scatter / count
    width = len(covariance)
    # The floor keeps items that are all alike from dividing by zero.
    round_part = max(np.trace(covariance) / width, 1e-12) * np.eye(width)
    # Factorised before it is inverted: the inverse of a covariance of few items is not positive in float64.
    root = np.linalg.inv(np.linalg.cholesky((1 - shrinkage) * covariance + max(shrinkage, 1e-9) * round_part)).T
    return root, float(((covariance @ root) * root).sum())
