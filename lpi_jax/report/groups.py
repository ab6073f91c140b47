"""Runs together: seeds of one configuration are a group, groups of which the same was measured a block."""

from typing import NamedTuple

import numpy as np

from lpi_jax.report.entries import Control, Kind
from lpi_jax.report.metrics import Metric, headlines
from lpi_jax.report.runs import Run


class Group(NamedTuple):
    """Runs that differ only in their seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def trains(self) -> bool:
        """Whether its method learns; False is the frozen backbone itself."""
        return self.runs[0].trains

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the finished tasks."""
        return self.runs[0].tasks

    @property
    def headlines(self) -> tuple[Metric, ...]:
        """The first metric of each group of metrics."""
        return headlines(self.runs[0].metrics)

    @property
    def sides(self) -> dict[str, str]:
        """Side -> what its items are called."""
        return self.runs[0].sides

    @property
    def routing(self) -> str:
        """Whether items are sent to tasks: `inferred`, `given` or `none`."""
        return self.runs[0].routing

    @property
    def controls(self) -> dict[Kind, Control]:
        """By name the controls that all its runs have."""
        first, *others = (run.controls for run in self.runs)
        return {name: control for name, control in first.items() if all(o.get(name) == control for o in others)}

    def knows(self, kind: Kind, metric: Metric) -> bool:
        """Whether every run holds the matrix of this headline metric."""
        return all(metric.name in run.matrices.get(kind, {}) for run in self.runs)

    def matrices(self, kind: Kind, metric: Metric) -> np.ndarray:
        """[runs, T, T] matrices R[s][t] in the metric's unit, NaN for t > s; of what the group `knows`."""
        return np.stack([run.matrices[kind][metric.name] for run in self.runs])

    def values(self, kind: Kind, average: str) -> dict[str, list[float]]:
        """The numbers of one row of the table by column, one for each run; without columns that not all runs have."""
        first, *others = (run.numbers[kind, average] for run in self.runs)
        return {
            column: [value, *(numbers[column] for numbers in others)]
            for column, value in first.items()
            if all(column in numbers for numbers in others)
        }

    def among(self, side: str) -> list[list[float]]:
        """[runs, T] of each run per task the per cent of items whose own is one of several tasks chosen; [] unknown."""
        known = [run.among[side] for run in self.runs if side in run.among]
        return known if len(known) == len(self.runs) else []

    def confusion(self, side: str) -> np.ndarray | None:
        """[T, T or T + 1] items by true and routed task, summed over the runs; None where no run knows."""
        known = [run.confusion[side] for run in self.runs if side in run.confusion]
        if not known:
            return None
        columns = max(matrix.shape[1] for matrix in known)
        return sum(np.pad(matrix, [(0, 0), (0, columns - matrix.shape[1])]) for matrix in known)


class Block(NamedTuple):
    """Groups of which the same was measured on the same items: what one table compares.

    Attributes:
      frozen: groups whose measurement of the frozen backbone the table shows, one per way of preparing the items; the
        first is the one that curves are compared with.
    """

    title: str
    groups: tuple[Group, ...]
    frozen: tuple[Group, ...]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Its metrics, which are those of every run."""
        return self.groups[0].runs[0].metrics

    @property
    def headlines(self) -> tuple[Metric, ...]:
        """The first metric of each group of metrics."""
        return self.groups[0].headlines

    @property
    def guess(self) -> Group | None:
        """The group from which a guess is shown; it follows from the items, so any will do."""
        knowing = (group for group in self.groups if any(group.knows("chance", metric) for metric in self.headlines))
        return next(knowing, None)

    @property
    def routed_sides(self) -> dict[str, str]:
        """Side -> what its items are called, of those that any run sends to tasks; all sides where none does."""
        sides = self.groups[0].sides
        sent = {side for group in self.groups for run in group.runs for side in run.routed}
        return {side: label for side, label in sides.items() if side in sent} or sides

    def counts(self, metric: Metric) -> tuple[int, int]:
        """On how many items the metric is measured after the last stage, the fewest and the most of all runs."""
        sums = {sum(run.items[metric.side]) for group in self.groups for run in group.runs}
        return min(sums), max(sums)

    def n(self, metric: Metric) -> str:
        """The same in words: "300" or "298–300"."""
        return "–".join(str(n) for n in sorted(set(self.counts(metric))))
