"""How well an average over tasks is known: a bootstrap over the samples of each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpi_jax.problems import bootstrap
from lpi_jax.problems.bootstrap import bounds, drawn

Points = Sequence[np.ndarray]  # by task those of each sample [n]


def averages(ways: Sequence[Points]) -> list[np.ndarray]:
    """The averages over tasks of several ways of answering, under the same draws of samples, each [DRAWS]."""
    counts = [len(points) for points in ways[0]]
    totals = [np.zeros(bootstrap.DRAWS) for _ in ways]
    for weights, own in zip(drawn(counts), zip(*ways, strict=True), strict=True):  # a task's points in each way
        for total, points in zip(totals, own, strict=True):
            total += weights @ points / (len(points) * len(counts))
    return totals


def interval(method: Points, controls: Mapping[str, Points]) -> dict[str, Any]:
    """{"interval": [low, high] of the method's average, "over": {control: [difference, low, high]}}.

    Args:
      method: by task points [n]. controls: by name, of the same samples.
    """
    method_drawn, *others = averages([method, *controls.values()])
    exact = _average(method)
    return {
        "interval": bounds(method_drawn),
        "over": {
            name: [exact - _average(controls[name]), *bounds(method_drawn - other)]
            for name, other in zip(controls, others, strict=True)
        },
    }


def _average(points: Points) -> float:
    return float(np.mean([own.mean() for own in points]))
