"""What an image and a text score with each other, pair by pair: cosines and the logarithm of a common task."""

import math

import numpy as np

ASTRAY = 0.3  # of an item of no task, how much its partner is expected among those of the tasks


def smoothed(posterior, share):
    """Probabilities of which a share is spread evenly, after part of the last one has gone to the others."""
    rows = []
    for row in np.asarray(posterior, np.float64).tolist():
        *tasks, none = row
        if tasks:
            tasks, none = [one + ASTRAY * none / len(tasks) for one in tasks], (1 - ASTRAY) * none
        rows.append([(1 - share) * one + share / len(row) for one in (*tasks, none)])
    return np.array(rows)


def score(query, item, parts, smoothing, logit_scale):
    """f . f' + plain . plain' + log(sum_t p_t p'_t) / logit_scale, as far as they are among the parts.

    Args:
      query, item: each features [E], plain features [E], posterior [T + 1], adapter []. parts: names of the addends.
    """
    total = 0.0
    if "matched" in parts:  # features under the prompts of two tasks do not compare
        kind = "prompted" if query[3] == item[3] else "plain"
        parts = [kind, *(part for part in parts if part != "matched")]
    for part, (own, other) in zip(("prompted", "plain"), zip(query[:2], item[:2], strict=True), strict=True):
        if part in parts:
            total += sum(float(a) * float(b) for a, b in zip(own, other, strict=True))
    if "prior" in parts:
        (own,), (other,) = smoothed([query[2]], smoothing), smoothed([item[2]], smoothing)
        total += math.log(sum(a * b for a, b in zip(own, other, strict=True))) / logit_scale
    return total


def matrix(queries, items, parts, smoothing, logit_scale):
    """[Q, N] scores; queries, items: each features [N, E], plain [N, E], posterior [N, T + 1]."""
    return np.array(
        [
            [score(query, item, parts, smoothing, logit_scale) for item in zip(*items, strict=True)]
            for query in zip(*queries, strict=True)
        ]
    )
