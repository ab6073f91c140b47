"""What stands below the tables: what their columns mean."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TypeVar

from lpi_jax.report import known
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.metrics import Metric
from lpi_jax.report.remarks import seeds
from lpi_jax.report.tables import splits

WIDTH = 119
Value = TypeVar("Value")


def legend(blocks: Sequence[Block]) -> str:
    """The legend of the tables of these blocks: lines of at most 119 columns, the last one ended too."""
    sides = _once(" / ".join(block.routed_sides.values()) for block in blocks)
    groups = [group for block in blocks for group in block.groups]
    forgotten = "; ".join(_once(_forgetting(block.headlines) for block in blocks))
    sentences = [
        f"{_units(blocks)} over all tasks seen so far; n: items after the last task.",
        "incremental: mean over tasks of the mean over stages; final: after the last task.",
        "chance: what a guess finds." if any(block.guess for block in blocks) else "",
        _controls(groups),
        f"forgetting: {forgotten}{SPLIT if any(map(splits, blocks)) else ''}.",
        f"zero-shot kept: per cent of the zero-shot {_labels(blocks)} that is left on tasks before they are learnt.",
        f"routed right: per cent of {', '.join(sides)} sent to their own task after the last one (given: the task was"
        " told).",
        "min: training and evaluation. peak MB: the largest resident memory of the process.",
        _known(blocks),
        _runs(groups),
    ]
    return textwrap.fill(" ".join(filter(None, sentences)), WIDTH, break_on_hyphens=False) + "\n"


SPLIT = (
    "; all = real + growth: what is lost where every item is searched among those of its own task, which stay the same,"
    " and what comes of ever more items to choose from"
)


def _controls(groups: Sequence[Group]) -> str:
    """What the rows beside the methods are."""
    controls = [control for group in groups for control in group.controls.values()]
    if not controls:
        return ""
    told = "zero-shot with an addition: the frozen backbone, given what the method knows of the tasks, or more"
    if any(control.measures_method for control in controls):
        told += "; a method with an addition: the method, given more"
    return f"{told}."


def _known(blocks: Sequence[Block]) -> str:
    """What the intervals are of, and how those of several runs are put together."""
    if not any(known.shown(block) for block in blocks):
        return ""
    told = (
        "[low, high]: 95 % of a bootstrap over the items, not over trainings; of the final average, and below it of the"
        " method's minus what stands in the second column, on the same items."
    )
    several = {
        len({run.items_hash for run in group.runs}) == len(group.runs)
        for block in blocks
        for group in block.groups
        if len(group.runs) > 1 and any(known.average(group, metric) for metric in block.metrics)
    }
    if True in several:
        told += (
            " Of several runs: around their mean, as of independent runs (half-width: root of the sum of squares, over"
            " their number)."
        )
    if False in several:
        told += " Of runs on the same items, whose errors are alike: around their mean, with their mean half-width."
    return told


def _runs(groups: Sequence[Group]) -> str:
    """How many runs the rows are of, and what was varied."""
    several = [group for group in groups if len(group.runs) > 1]
    if not several:
        return ""
    varied = {group.label: f"{len(group.runs)} runs: {seeds(group.runs)}" for group in several}
    alike = list(dict.fromkeys(varied.values()))
    every = [f"{label}: {words}." for label, words in varied.items()]
    return " ".join(["±: sample standard deviation over runs.", *([f"{alike[0]}."] if len(alike) == 1 else every)])


def _labels(blocks: Sequence[Block]) -> str:
    """The headline metrics of which more is better."""
    metrics = [metric for block in blocks for metric in block.headlines]
    return ", ".join(_once(metric.label for metric in metrics if metric.higher_is_better)) or "value"


def _units(blocks: Sequence[Block]) -> str:
    """The metrics, those of one unit together: "precision, accuracy in per cent, loss in nats"."""
    labels: dict[str, list[str]] = {}
    for metric in _once(metric for block in blocks for metric in block.metrics):
        labels.setdefault(metric.unit_in_words, []).append(metric.label)
    parts = [", ".join(_once(names)) + (f" in {unit}" if unit else "") for unit, names in labels.items()]
    return ", ".join(parts)


def _forgetting(metrics: Sequence[Metric]) -> str:
    """Of which metrics the column is, in which order, and which sign means that something was forgotten."""
    alike: dict[tuple[str, str, bool], list[Metric]] = {}
    for metric in metrics:
        alike.setdefault(metric.quantity, []).append(metric)
    parts = []
    for (label, unit, higher_is_better), members in alike.items():
        what = {"%": "points", "": "change"}.get(unit, unit)
        groups = [metric.group for metric in members if len(members) > 1]
        order = f", {' / '.join(groups)}" if groups else ""
        parts.append(f"{what} of {label}{order}, {'negative' if higher_is_better else 'positive'} = forgot")
    return " / ".join(parts)


def _once(values: Iterable[Value]) -> list[Value]:
    return list(dict.fromkeys(values))
