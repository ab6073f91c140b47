"""One group task by task: the numbers of every task after the last one."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from lpi_jax.report.cells import ONE_DIGIT, Table, spread
from lpi_jax.report.groups import Group
from lpi_jax.terminal.plain_text import plain

COUNT = "count"  # the form of a column of counts
ROUTED = "routed right"
AMONG = "own among chosen"
_LAST = (ROUTED, AMONG)  # of the columns


class Column(NamedTuple):
    """A column of the table of a group's tasks.

    Attributes:
      name: in CSV and JSON. over, head: the two head cells. form: of its numbers.
      values: task -> run -> number.
    """

    name: str
    over: str
    head: str
    form: str
    values: list[list[float]]


def columns(group: Group) -> list[Column]:
    """Headline metrics of the group, its controls and a guess; each side's items and routing. What is known."""
    controls = {kind: c.label for kind, c in group.controls.items() if group.trains or not c.measures_method}
    kinds = {"measured": "", **({"frozen": "zero-shot"} if group.trains else {}), **controls, "chance": "chance"}
    shown = []
    for metric in group.headlines:
        for kind, who in kinds.items():
            if group.knows(kind, metric):
                name, head = metric.column_of(who) if who else metric.column, f"{who} {metric.label}".strip()
                values = group.matrices(kind, metric)[:, -1].T.tolist()
                shown.append(Column(name, metric.group, head, metric.form, values))
    for side, label in group.sides.items():
        counts = _by_task([run.items[side] for run in group.runs])
        shown.append(Column(f"{side} items", "n", label, COUNT, counts))
        if known := [run.routed[side] for run in group.runs if side in run.routed]:
            shown.append(Column(f"{side} {ROUTED}", ROUTED, label, ONE_DIGIT, _by_task(known)))
        if among := group.among(side):
            shown.append(Column(f"{side} {AMONG}", AMONG, label, ONE_DIGIT, _by_task(among)))
    return shown


def _by_task(by_run: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(numbers) for numbers in zip(*by_run, strict=True)]


def tasks(group: Group) -> Table:
    """The table of one group task by task; what no run knows has no column."""
    shown = sorted(columns(group), key=lambda c: 1 + _LAST.index(c.over) if c.over in _LAST else 0)  # beside each other
    over = [(word, len(list(alike))) for word, alike in itertools.groupby(column.over for column in shown)]
    return Table(
        title="",
        head=(("", 2), *over),
        columns=("", "task", *(column.head for column in shown)),
        rows=[
            [str(number), plain(name), *(_cell(column.values[number - 1], column.form) for column in shown)]
            for number, name in enumerate(group.tasks, start=1)
        ],
        words=2,
    )


def _cell(numbers: Sequence[float], form: str) -> str:
    if form == COUNT:
        return "–".join(f"{n:.0f}" for n in sorted({min(numbers), max(numbers)}))
    return spread(numbers, form)
