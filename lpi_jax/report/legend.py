"""What stands below the tables: what their columns mean."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import TypeVar

from lpi_jax.report.groups import Block
from lpi_jax.report.metrics import Metric

WIDTH = 119
Value = TypeVar("Value")


def legend(blocks: Sequence[Block]) -> str:
    """The legend of the tables of these blocks: lines of at most 119 columns, the last one ended too."""
    sides = _once(" / ".join(block.routed_sides.values()) for block in blocks)
    sentences = [
        f"{_units(blocks)} over all tasks seen so far; n: items after the last task.",
        "incremental: mean over tasks of the mean over stages; final: after the last task.",
        "chance: what a guess finds." if any(block.guess for block in blocks) else "",
        f"forgetting: {'; '.join(_once(_forgetting(block.headlines) for block in blocks))}.",
        f"routed right: per cent of {', '.join(sides)} sent to their own task after the last one (given: the task was"
        " told).",
        "min: training and evaluation. peak MB: the largest resident memory of the process.",
    ]
    return textwrap.fill(" ".join(filter(None, sentences)), WIDTH, break_on_hyphens=False) + "\n"


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
