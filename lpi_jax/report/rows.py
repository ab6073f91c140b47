"""The rows of the table that compares runs: a guess, the frozen backbone, then every method with what it is beside."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from lpi_jax.report import known
from lpi_jax.report.entries import Kind
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.known import Known
from lpi_jax.report.metrics import AVERAGES

Values = dict[str, list[float]]


class Row(NamedTuple):
    """One row, with a number for each run.

    Attributes:
      method: what the row is called. kind: who answered (`entries`). group: whose runs the numbers are from.
    """

    method: str
    kind: Kind
    group: Group
    average: str

    @property
    def runs(self) -> int:
        """How many runs its numbers are of."""
        return len(self.group.runs)

    @property
    def values(self) -> Values:
        """By column a number for each run."""
        return self.group.values(self.kind, self.average)

    @property
    def routing(self) -> str:
        """Whether items were sent to tasks (`inferred`), belonged to them (`given`) or neither (`none`)."""
        return self.group.routing if (self.kind, self.average) == ("measured", "final") else "none"

    @property
    def known(self) -> dict[str, tuple[Known, dict[Kind, Known]]]:
        """Column -> how well its final average is known, and its difference to each control."""
        if (self.kind, self.average) != ("measured", "final"):
            return {}
        group = self.group
        finals = {metric: known.average(group, metric) for metric in group.runs[0].metrics}
        return {
            metric.column: (final, known.differences(group, metric))
            for metric, final in finals.items()
            if final is not None
        }


class Answer(NamedTuple):
    """A control with one set of numbers, and the groups that have it."""

    label: str
    kind: Kind
    groups: list[Group]


def rows(block: Block) -> Iterator[Row]:
    """A guess, the frozen backbone, what it does with help, and the methods, each with the controls that are its own.

    Of a guess, the frozen backbone and the methods the incremental and the final average; of controls the final one.
    """
    frozen, own = _of_frozen(block)
    if block.guess:
        yield from _both("chance", "chance", block.guess)
    for group in block.frozen:
        if group.trains:
            centre = group.runs[0].keys["eval.transform"] == "centre"
            yield from _both("zero-shot" if centre else "zero-shot, random crops", "frozen", group)
    for group in block.groups:
        if not group.trains:
            yield from _both(group.label, "measured", group)
    often = Counter(answer.label for answer in frozen)
    for answer in frozen:
        yield Row(_called(answer, often[answer.label] == 1), answer.kind, answer.groups[0], "final")
    for group in block.groups:
        if group.trains:
            for answer in own:
                if answer.groups[0] is group:
                    yield Row(_called(answer, alone=False), answer.kind, group, "final")
            yield from _both(group.label, "measured", group)
            for kind, control in group.controls.items():
                if control.measures_method:
                    yield Row(f"{group.label}, {control.label}", kind, group, "final")


def _both(label: str, kind: Kind, group: Group) -> Iterator[Row]:
    for average in AVERAGES:
        yield Row(label, kind, group, average)


def _of_frozen(block: Block) -> tuple[list[Answer], list[Answer]]:
    """What the frozen backbone answers with help, numbers that are equal once.

    Returns:
      What every group with controls has alike, and what hangs on some methods: on how they send items to tasks.
    """
    found: dict[tuple[str, str], Answer] = {}
    for group in sorted(block.groups, key=lambda group: group.trains):
        for kind, control in group.controls.items():
            if group.trains and control.measures_method:
                continue
            label = f"{group.label}, {control.label}" if control.measures_method else control.label
            numbers = json.dumps(group.values(kind, "final"), sort_keys=True)
            answer = found.setdefault((label, numbers), Answer(label, kind, []))
            if not any(group is other for other in answer.groups):
                answer.groups.append(group)
    alike, own = [], []
    for answer in found.values():
        everyone = len(answer.groups) == len(block.groups)
        (alike if everyone or not answer.groups[0].trains else own).append(answer)
    return alike, own


def _called(answer: Answer, alone: bool) -> str:
    """What an answer's row is called: with the methods it hangs on where there are others."""
    return answer.label if alone else f"{answer.label} ({', '.join(group.label for group in answer.groups)})"
