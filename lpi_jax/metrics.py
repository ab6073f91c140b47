"""What a continual run is judged by: averages of the matrix R[s][t] of one metric, on task t after stage s.

All are in the metric's unit. What looks for the best earlier value is for a metric of which more is better; `summary`
knows what to do with one of which less is. MTIL's (`transfer`, `average`, `last`) are of rows that also hold the tasks
that are not learnt yet.
"""

import numpy as np


def incremental_average(matrix: np.ndarray) -> float:
    """Mean over tasks t of the mean over stages s >= t of R[s][t] (the release's "average").

    Args:
      matrix: [T, T] float, R[s][t], on task t after stage s; only t <= s is read. So for all below.
    """
    return _mean([matrix[t:, t].mean() for t in range(len(matrix))])


def final_average(matrix: np.ndarray) -> float:
    """Mean over tasks of the last stage's row, R[T-1][t]; per cent."""
    return _mean(matrix[-1])


def forgetting(matrix: np.ndarray) -> float:
    """The release's: mean over t < T-1 of R[T-1][t] - max_{t <= s < T-1} R[s][t]; points, negative = forgot."""
    last = len(matrix) - 1
    return _mean([matrix[last, t] - matrix[t:last, t].max() for t in range(last)])


def chaudhry_forgetting(matrix: np.ndarray) -> float:
    """Chaudhry et al. 2018, of [T, T]: the best earlier value minus the last, averaged; points, positive = forgot."""
    return 0.0 - forgetting(matrix)


def backward_transfer(matrix: np.ndarray) -> float:
    """Mean over t < T-1 of R[T-1][t] - R[t][t]; points, negative = later tasks harmed earlier ones."""
    last = len(matrix) - 1
    return _mean([matrix[last, t] - matrix[t, t] for t in range(last)])


def forward_transfer(before: np.ndarray, frozen: np.ndarray) -> float:
    """Mean over tasks t >= 1 of (the metric just before learning t) - (the frozen backbone's); points.

    Args:
      before: [T] float, on task t as it stood after the tasks < t. frozen: [T] float, the backbone's own.
    """
    return _mean(before[1:] - frozen[1:])


def zero_shot_retention(before: np.ndarray, frozen: np.ndarray) -> float:
    """What is left of the backbone's zero-shot value on tasks not learnt yet: 100 * sum(before) / sum(frozen).

    Arguments [T] as in `forward_transfer`, tasks t >= 1; NaN without such tasks, or where that sum is 0.
    """
    floor = frozen[1:].sum()
    return float(100.0 * before[1:].sum() / floor) if floor > 0 else float("nan")


def transfer(matrix: np.ndarray) -> float:
    """MTIL (Zheng et al. 2023): mean over tasks t >= 1 of the mean over stages s < t of R[s][t]; NaN for one task.

    Args:
      matrix: [T, N] float, R[s][t], on each of all N tasks of the stream after each of the T stages so far. So for the
        next two.
    """
    stages, tasks = matrix.shape
    return _mean([matrix[: min(t, stages), t].mean() for t in range(1, tasks)]) if tasks > 1 else float("nan")


def average(matrix: np.ndarray) -> float:
    """MTIL: mean over all tasks of the mean over all stages of R[s][t]."""
    return _mean(matrix.mean(0))


def last(matrix: np.ndarray) -> float:
    """MTIL: mean over all tasks of R[T-1][t]."""
    return _mean(matrix[-1])


def summary(matrix: np.ndarray, higher_is_better: bool = True) -> dict[str, float]:
    """Every average of one matrix [T, T] by name; differences are those of the metric itself, whichever way is up."""
    functions = (incremental_average, final_average, forgetting, chaudhry_forgetting, backward_transfer)
    sign = 1.0 if higher_is_better else -1.0  # the best of what should be small is the smallest
    return {function.__name__: 0.0 + sign * function(sign * matrix) for function in functions}  # 0.0 +: no "-0.0"


def _mean(values: list[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0
