"""Linear discriminant analysis with one covariance for all tasks, and the border behind which an item has no task.

Everything is computed from all items at once, item by item: nothing is summed up as tasks arrive.
"""

import numpy as np


def mean_of(items):
    """[E]: the mean of items [N, E]."""
    return np.asarray(items, np.float64).sum(axis=0) / len(items)


def scatter_of(tasks):
    """[E, E]: the sum over all items of (x - m)(x - m)^t, m the mean of the item's task; tasks: each [N, E]."""
    total = np.zeros((np.shape(tasks[0])[1],) * 2)
    for items in tasks:
        mean = mean_of(items)
        for item in np.asarray(items, np.float64):
            total += np.outer(item - mean, item - mean)
    return total


def covariance_of(tasks, shrinkage):
    """(1 - a) S + a tr(S) / E I with S the scatter over the number of items."""
    covariance = scatter_of(tasks) / sum(len(items) for items in tasks)
    width = len(covariance)
    return (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / width * np.eye(width)


def distance(item, mean, covariance):
    """(x - m)^t C^-1 (x - m)."""
    apart = np.asarray(item, np.float64) - mean
    return float(apart @ np.linalg.solve(covariance, apart))


def own_distances(tasks, covariance):
    """By task the distances of its items to its own mean."""
    return [[distance(item, mean_of(items), covariance) for item in items] for items in tasks]


def quantile(values, share):
    """The value that a share of the values does not exceed, between two of them in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def average(tasks, shrinkage):
    """h: the mean distance of all items to their own means."""
    every = [one for own in own_distances(tasks, covariance_of(tasks, shrinkage)) for one in own]
    return sum(every) / len(every)


def newest_left_out(tasks, shrinkage):
    """Of each item of the newest task the distance to the others' mean, under a covariance made without it.

    Made without it, but for what the covariance is shrunk to and for the number of items: those are everyone's.
    """
    *before, newest = tasks
    count, width = sum(len(items) for items in tasks), np.shape(newest)[1]
    round_part = shrinkage * np.trace(scatter_of(tasks)) / count / width * np.eye(width)
    found = []
    for left_out, item in enumerate(newest):
        others = [one for number, one in enumerate(newest) if number != left_out]
        covariance = (1 - shrinkage) * scatter_of([*before, others]) / count + round_part
        found.append(distance(item, mean_of(others), covariance))
    return found


def border(tasks, shrinkage, share):
    """b / k: how far a share of a task's items reaches, over their mean; tasks are averaged by their numbers of items.

    Each task's is measured when the task is the newest, every item left out in its turn.
    """
    total = 0.0
    for number, items in enumerate(tasks):
        away = newest_left_out(tasks[: number + 1], shrinkage)
        total += len(items) * quantile(away, share) / (sum(away) / len(away))
    return total / sum(len(items) for items in tasks) * average(tasks, shrinkage)


def posterior(tasks, items, shrinkage, share):
    """p(t | x) of every item, the last column being none of the tasks, which no item belongs to where `share` is 1.

    Args:
      tasks: each [N, E]. items: [M, E].

    Returns:
      [M, T + 1].
    """
    covariance = covariance_of(tasks, shrinkage)
    count = sum(len(own) for own in tasks)
    m = count / max(count - len(tasks), 1)
    k = m**2 / (1 - (1 - shrinkage) * m * average(tasks, shrinkage) / count)
    none = border(tasks, shrinkage, share) * k if share < 1 else np.inf
    rows = []
    for item in items:
        away = [distance(item, mean_of(own), covariance) for own in tasks] + [none]
        likely = [np.exp(-(one - min(away)) / (2 * k)) for one in away]
        rows.append([one / sum(likely) for one in likely])
    return np.array(rows)


def left_out_distances(tasks, shrinkage):
    """By item the distance to its task's mean, mean and covariance being made without it."""
    return [
        one
        for number in range(len(tasks))
        for one in newest_left_out([*tasks[:number], *tasks[number + 1 :], tasks[number]], shrinkage)
    ]
