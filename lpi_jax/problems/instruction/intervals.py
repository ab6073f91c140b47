"""How well an average over tasks is known: a bootstrap over the samples of each task.

Two ways of answering the same samples are compared on the same draws (paired), which tells a small difference that is
always there from one that comes and goes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DRAWS = 2000
LEVEL = 0.95
SEED = 0  # of the draws: the same samples give the same interval

Points = Sequence[np.ndarray]  # by task those of each sample [n]


def averages(ways: Sequence[Points]) -> list[np.ndarray]:
    """The averages over tasks of several ways of answering, under the same draws of samples, each [DRAWS]."""
    rng = np.random.default_rng(SEED)
    totals = [np.zeros(DRAWS) for _ in ways]
    for own in zip(*ways, strict=True):  # a task's points in each way
        count = len(own[0])
        weights = rng.multinomial(count, np.full(count, 1.0 / count), size=DRAWS) / count
        for total, points in zip(totals, own, strict=True):
            total += weights @ points / len(ways[0])
    return totals


def interval(method: Points, controls: Mapping[str, Points]) -> dict[str, Any]:
    """{"interval": [low, high] of the method's average, "over": {control: [difference, low, high]}}.

    Args:
      method: by task points [n]. controls: by name, of the same samples.
    """
    drawn, *others = averages([method, *controls.values()])
    exact = _average(method)
    return {
        "interval": _bounds(drawn),
        "over": {
            name: [exact - _average(controls[name]), *_bounds(drawn - other)]
            for name, other in zip(controls, others, strict=True)
        },
    }


def _average(points: Points) -> float:
    return float(np.mean([own.mean() for own in points]))


def _bounds(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
