"""What results say of each metric: the method's numbers, the frozen backbone's, a guess's, and those of the controls.

A kind is one of KINDS or the name of a control, another way in which the same questions were answered.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lpi_jax.report.checked import PER_CENT, a_dict, a_list, number, text, triangle, truth
from lpi_jax.report.metrics import KINDS, Metric, headlines

Entries = Mapping[str, Any]  # `metrics` of results.json
Kind = str

FORGETTING, REAL, GROWTH, KEPT = "forgetting", "real forgetting", "gallery growth", "zero-shot kept"
# What is written of a group of metrics after its name, by its key in the results: of the headline, after the last task.
OF_GROUP = {
    "forgetting": FORGETTING,
    "forgetting_fixed_gallery": REAL,
    "gallery_growth": GROWTH,
    "zero_shot_retention": KEPT,
}
MTIL = ("transfer", "average", "last")


class Control(NamedTuple):
    """Another way of answering the same questions; measures_method: whether the method answers or the frozen model."""

    label: str
    measures_method: bool


class Bootstrap(NamedTuple):
    """How well one run knows the final average of a metric.

    Attributes:
      interval: low, high. over: kind -> difference to it (the metric's less the kind's), low, high.
    """

    interval: tuple[float, float]
    over: dict[Kind, tuple[float, float, float]]


class Probe(NamedTuple):
    """One metric on items of no task: the frozen backbone's value, and [T] those after every task."""

    frozen: float
    values: list[float]


def controls(entries: Entries, metrics: Sequence[Metric]) -> dict[Kind, Control]:
    """The controls by name, in the order in which they are written. All metrics have the same; older results none."""
    described = [_controls(entries[metric.name]) for metric in metrics]
    if any(one != described[0] for one in described):
        raise ValueError("the metrics do not have the same controls")
    return described[0]


def _controls(entry: dict[str, Any]) -> dict[Kind, Control]:
    parts = a_dict(entry.get("controls", {}))
    if wrong := parts.keys() & {*KINDS, ""}:
        raise ValueError(f"a control is called {min(wrong)!r}")
    found = {name: Control(text(part["label"]), truth(part["measures_method"])) for name, part in parts.items()}
    if not all(control.label for control in found.values()):
        raise ValueError("a control's label is empty")
    return found


def part_of(entry: dict[str, Any], kind: Kind) -> dict[str, Any] | None:
    """The part of a metric's entry that is of this kind; None where nobody knows what a guess finds."""
    if kind in ("measured", "chance"):
        return entry if kind == "measured" else entry.get("chance")
    return a_dict(entry["frozen"] if kind == "frozen" else entry["controls"][kind])


def numbers(entries: Entries, metrics: Sequence[Metric], kind: Kind, average: str) -> dict[str, float]:
    """The numbers of one row of the table by column."""
    parts = {metric: part for metric in metrics if (part := part_of(entries[metric.name], kind)) is not None}
    found = {metric.column: number(part[f"{average}_average"]) for metric, part in parts.items()}
    if average == "final":
        for metric in headlines(metrics):
            part = parts.get(metric, {})
            known = {key for key in OF_GROUP if part.get(key) is not None}
            if metric in parts and kind != "chance":  # of a guess older results do not say it
                known.add("forgetting")
            found |= {f"{metric.group_column} {OF_GROUP[key]}": number(part[key]) for key in OF_GROUP if key in known}
    return found


def matrices(entries: Entries, metrics: Sequence[Metric], kind: Kind, tasks: int) -> dict[str, np.ndarray]:
    """Name of a metric -> [T, T] matrix R[s][t] in its unit, NaN for t > s."""
    parts = {metric: part for metric in metrics if (part := part_of(entries[metric.name], kind)) is not None}
    return {metric.name: triangle(part["matrix"], tasks, metric.unit) for metric, part in parts.items()}


def bootstraps(entries: Entries, metrics: Sequence[Metric], kinds: Sequence[Kind]) -> dict[str, Bootstrap]:
    """Name of a metric -> how well its final average is known; kinds: those that a difference may be taken to."""
    found = {}
    for metric in metrics:
        if (known := entries[metric.name].get("bootstrap")) is not None:
            low, high = _ascending(known["interval"])
            over = {}
            for kind, bounds in a_dict(known["over"]).items():
                if kind not in kinds:
                    raise ValueError(f"there is no control {kind!r}")
                difference, *rest = a_list(bounds)
                over[kind] = (number(difference), *_ascending(rest))
            found[metric.name] = Bootstrap((low, high), over)
    return found


def _ascending(bounds: Any) -> tuple[float, float]:
    low, high = map(number, a_list(bounds))
    if low > high:
        raise ValueError("an interval ends before it begins")
    return low, high


def future(entries: Entries, metrics: Sequence[Metric], tasks: int, to_come: int) -> tuple[dict[str, float], ...]:
    """What MTIL asks of the method and of the frozen backbone, by column; {} where it was not measured.

    On a gallery that never grows the frozen backbone has one row, whose means are its averages.
    """
    measured, frozen = {}, {}
    for metric in metrics:
        if (part := entries[metric.name].get("future")) is None:
            continue
        rows = [_row(row, tasks + to_come, metric) for row in a_list(part["matrix"])]
        if len(rows) != tasks:
            raise ValueError("not a row of values per finished task")
        untouched = _row(part["frozen"], tasks + to_come, metric)
        of_frozen = {"transfer": untouched[1:], "average": untouched, "last": untouched}
        for name in MTIL:
            if part[name] is not None:
                measured[f"{metric.column} {name}"] = number(part[name])
            if of_frozen[name]:
                frozen[f"{metric.column} {name}"] = float(np.mean(of_frozen[name]))
    return measured, frozen


def _row(values: Any, tasks: int, metric: Metric) -> list[float]:
    row = [number(value) for value in a_list(values)]
    if len(row) != tasks:
        raise ValueError("not a value per task of the stream")
    if metric.unit == PER_CENT and not all(0 <= value <= 100 for value in row):
        raise ValueError("a value is not within 0 and 100 per cent")
    return row


def probes(record: Any, metrics: Sequence[Metric], tasks: int) -> dict[str, dict[str, Probe]]:
    """Probe -> name of a headline metric -> its values; {} without any."""
    found = {}
    for name, parts in a_dict(record).items():
        known = {metric: a_dict(parts)[metric.name] for metric in headlines(metrics) if metric.name in a_dict(parts)}
        found[text(name)] = {
            metric.name: Probe(_row([part["frozen"]], 1, metric)[0], _row(part["values"], tasks, metric))
            for metric, part in known.items()
        }
    return {name: known for name, known in found.items() if known}
