"""How well final averages are known: intervals of single runs, and of several runs together.

Each run brings, of its final averages and of their differences to its controls (paired: on the same items), the middle
95 % of a bootstrap over its items. Runs on items of their own are independent, and their errors partly cancel; runs on
the same items err alike, and theirs do not.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from lpi_jax.report.cells import Table, spread
from lpi_jax.report.entries import Kind
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.metrics import Metric
from lpi_jax.report.runs import Run

TITLE = "How well this is known"


class Known(NamedTuple):
    """A number of each run, and between which bounds their mean lies."""

    numbers: list[float]
    low: float
    high: float


def average(group: Group, metric: Metric) -> Known | None:
    """The final average of the method; None where not every run has an interval."""
    if not all(metric.name in run.bootstraps for run in group.runs):
        return None
    finals = group.values("measured", "final")[metric.column]
    return pooled(group.runs, finals, [run.bootstraps[metric.name].interval for run in group.runs])


def differences(group: Group, metric: Metric) -> dict[Kind, Known]:
    """By how much the method is above the frozen backbone and each control; nothing of what does not learn."""
    if not group.trains or average(group, metric) is None:
        return {}
    each = [run.bootstraps[metric.name].over for run in group.runs]
    return {
        kind: pooled(group.runs, [over[kind][0] for over in each], [over[kind][1:] for over in each])
        for kind in each[0]
        if (kind == "frozen" or kind in group.controls) and all(kind in over for over in each)
    }


def pooled(runs: Sequence[Run], numbers: Sequence[float], bounds: Sequence[tuple[float, float]]) -> Known:
    """The runs' numbers with an interval of their mean: of one run its own [low, high], of n runs mean ± h with

        h = sqrt( sum over sets of runs on the same items of (sum of their half-widths)^2 ) / n,

    so sqrt(sum of squares) / n where every run has items of its own, and the mean half-width where all have the same.
    """
    if len(runs) == 1:
        return Known(list(numbers), *bounds[0])
    widths: dict[str, float] = {}
    for run, (low, high) in zip(runs, bounds, strict=True):
        widths[run.items_hash] = widths.get(run.items_hash, 0.0) + (high - low) / 2
    half = sum(width**2 for width in widths.values()) ** 0.5 / len(runs)
    mean = statistics.mean(numbers)
    return Known(list(numbers), mean - half, mean + half)


def shown(block: Block) -> list[Metric]:
    """Of each group of metrics the first and the last of which intervals are known."""
    metrics: dict[str, list[Metric]] = {}
    for metric in block.metrics:
        if any(average(group, metric) for group in block.groups):
            metrics.setdefault(metric.group, []).append(metric)
    return [metric for members in metrics.values() for metric in dict.fromkeys((members[0], members[-1]))]


def table(block: Block) -> Table | None:
    """The final average of each group with its interval, and below it those of its differences; None without any."""
    metrics = shown(block)
    if not metrics:
        return None
    rows = []
    for group in sorted(block.groups, key=lambda group: group.trains):
        finals = [average(group, metric) for metric in metrics]
        if not any(finals):
            continue
        pairs = list(zip(metrics, finals, strict=True))
        rows.append([group.label, "", *(cell(known, metric.form) for metric, known in pairs)])
        over = [differences(group, metric) for metric in metrics]
        for kind in dict.fromkeys(kind for known in over for kind in known):
            pairs = [(metric, known.get(kind)) for metric, known in zip(metrics, over, strict=True)]
            rows.append(
                [group.label, _against(group, kind), *(cell(known, metric.signed_form) for metric, known in pairs)]
            )
    groups = [metric.group for metric in metrics]
    return Table(
        title=TITLE,
        head=(("", 2), *((name, groups.count(name)) for name in dict.fromkeys(groups))),
        columns=("method", "minus", *(metric.label for metric in metrics)),
        rows=rows,
        words=2,
    )


def _against(group: Group, kind: Kind) -> str:
    """What a difference is taken to."""
    if kind == "frozen":
        return "zero-shot"
    control = group.controls[kind]
    return f"itself, {control.label}" if control.measures_method else control.label


def cell(known: Known | None, form: str) -> str:
    """ "32.0 [30.1, 33.8]", of several runs "32.0 ± 1.5 [30.9, 33.1]"; "" where nothing is known."""
    if known is None:
        return ""
    return f"{spread(known.numbers, form)} [{form.format(known.low)}, {form.format(known.high)}]"
