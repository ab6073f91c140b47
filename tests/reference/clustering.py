"""k-means by Lloyd's iteration from given centres, and routing by the nearest centre in L1 distance (section 5)."""

import numpy as np


def assign(points, centres):
    """The nearest centre in L2 distance of each point, ties to the earlier centre. [N, E], [K, E] -> [N] integers."""
    nearest = []
    for point in np.asarray(points, np.float64):
        distances = [((point - centre) ** 2).sum() for centre in np.asarray(centres, np.float64)]
        nearest.append(int(np.argmin(distances)))
    return np.array(nearest, int)


def inertia(points, centres):
    """The sum over points of the squared L2 distance to the nearest centre."""
    points, centres = np.asarray(points, np.float64), np.asarray(centres, np.float64)
    return sum(min(((point - centre) ** 2).sum() for centre in centres) for point in points)


def lloyd(points, centres, iterations):
    """Assign, then move every centre to the mean of its points; a centre without points stays where it is.

    Args:
      points: [N, E].
      centres: [K, E], the start.
      iterations: how many times; 0 gives the start back.

    Returns:
      [K, E] float64.
    """
    points, centres = np.asarray(points, np.float64), np.array(centres, np.float64)
    for _ in range(iterations):
        nearest = assign(points, centres)
        for k in range(centres.shape[0]):
            members = points[nearest == k]
            if len(members) > 0:
                centres[k] = members.mean(axis=0)
    return centres


def route(features, centres):
    """The task of the nearest centre in L1 distance, ties to the earlier task.

    Args:
      features: [N, E].
      centres: [T, K, E], of the tasks seen so far.

    Returns:
      [N] integers, 0 .. T-1.
    """
    chosen = []
    for feature in np.asarray(features, np.float64):
        best_task, best_distance = None, np.inf
        for task, task_centres in enumerate(np.asarray(centres, np.float64)):
            for centre in task_centres:
                distance = np.abs(feature - centre).sum()
                if distance < best_distance:
                    best_task, best_distance = task, distance
        chosen.append(best_task)
    return np.array(chosen, int)
