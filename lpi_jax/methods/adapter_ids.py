"""Adapter ids of ordered choices of tasks: one int32 each, which stays the same whatever tasks come later."""

import math

import numpy as np


def most_tasks(chosen: int) -> int:
    """How many tasks an id can tell apart of which at most `chosen` are named: 1,289 with three."""
    return _base(chosen) - 1


def encoded(tasks: np.ndarray, chosen: int) -> np.ndarray:
    """id = t_n + sum_j (1 + t_{n-j}) b^j of tasks (t_1, ..., t_n), b = floor((2^31 - 1)^(1 / chosen)).

    A choice of one task has that task's number, and a digit of 0 is nobody's.

    Args:
      tasks: [N, n] int32 numbers from 0, less than `most_tasks(chosen)`; n from 1 to `chosen`.
      chosen: the most tasks that a choice may hold.

    Returns:
      [N] int32.
    """
    digits = tasks.astype(np.int64)
    digits[:, :-1] += 1
    weights = np.int64(_base(chosen)) ** np.arange(tasks.shape[1])[::-1]
    return (digits @ weights).astype(np.int32)


def decoded(number: int, chosen: int) -> tuple[int, ...]:
    """The tasks (t_1, ..., t_n) of an id that `encoded` made with the same `chosen`."""
    base = _base(chosen)
    rest, last = divmod(number, base)
    tasks = [last]
    while rest:
        rest, digit = divmod(rest, base)
        tasks.insert(0, digit - 1)
    return tuple(tasks)


def _base(chosen: int) -> int:
    return math.floor((2**31 - 1) ** (1 / chosen))
