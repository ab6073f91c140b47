"""Votes of the nearest training items, and the distance behind which an item has no task."""

import numpy as np

from tests.reference.discriminant import quantile


def border(tasks, share):
    """The distance (1 - cosine) to the nearest other item of a task that a share does not exceed; the tasks' mean."""
    reaches = []
    for items in tasks:
        items = np.asarray(items, np.float64)
        nearest = [
            min((1 - item @ other for number, other in enumerate(items) if number != own), default=0.0)
            for own, item in enumerate(items)
        ]
        reaches.append(quantile(nearest, share))
    return sum(reaches) / len(reaches)


def posterior(tasks, items, count, share):
    """Of each item the share of votes of every task among the `count` nearest training items; the last is none's.

    Args:
      tasks: each [N, E], L2-normalised. items: [M, E], L2-normalised.

    Returns:
      [M, T + 1].
    """
    known = [(np.asarray(own, np.float64), task) for task, rows in enumerate(tasks) for own in rows]
    rows = []
    for item in np.asarray(items, np.float64):
        nearest = sorted((1 - item @ own, task) for own, task in known)[:count]
        row = [sum(task == number for _, task in nearest) / len(nearest) for number in range(len(tasks))]
        far = share < 1 and nearest[0][0] > border(tasks, share)
        rows.append([0.0] * len(tasks) + [1.0] if far else [*row, 0.0])
    return np.array(rows)
