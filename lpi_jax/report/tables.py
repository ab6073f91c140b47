"""The tables of a report, as cells: the runs compared, and where every number comes from."""

import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lpi_jax.report.groups import Block, Group
from lpi_jax.report.metrics import AVERAGES
from lpi_jax.terminal.plain_text import plain

ONE_DIGIT = "{:z.1f}"
Values = dict[str, list[float]]


class Row(NamedTuple):
    """One row of the table that compares runs, with a number for each run."""

    method: str
    runs: int
    average: str
    values: Values
    routing: str


class Table(NamedTuple):
    """Cells as they are shown.

    Attributes:
      title: what the table is of; "" if that is clear.
      head: the upper head row: what stands over how many columns.
      columns: the lower head row.
      words: how many columns, from the left, are words and not numbers.
    """

    title: str
    head: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: list[list[str]]
    words: int


def rows(block: Block) -> Iterator[Row]:
    """A guess, the frozen backbone, then every group; the incremental and the final average of each."""
    shown: list[tuple[str, Group, str]] = []
    if block.guess:
        shown.append(("chance", block.guess, "chance"))
    for group in block.frozen:
        if group.trains:
            label = "zero-shot" if group.runs[0].keys["eval.transform"] == "centre" else "zero-shot, random crops"
            shown.append((label, group, "frozen"))
    untrained_first = sorted(block.groups, key=lambda group: group.trains)
    shown += [(group.label, group, "measured") for group in untrained_first]
    for label, group, kind in shown:
        for average in AVERAGES:
            routing = group.routing if (kind, average) == ("measured", "final") else "none"
            yield Row(label, len(group.runs), average, group.values(kind, average), routing)


def comparison(block: Block, title: str) -> Table:
    """The table that compares the groups of a block."""
    names = [metric.group for metric in block.metrics]
    over = [(f"{metric.group}, n = {block.n(metric)}", names.count(metric.group)) for metric in block.headlines]
    return Table(
        title=title,
        head=(("", 3), *over, ("forgetting", 1), ("routed right", 1), ("", 2)),
        columns=(
            *("method", "runs", "average"),
            *(metric.label for metric in block.metrics),
            " / ".join(metric.short for metric in block.headlines),
            " / ".join(block.routed_sides.values()),
            *("min", "peak MB"),
        ),
        rows=[_cells(block, row) for row in rows(block)],
        words=1,
    )


def _cells(block: Block, row: Row) -> list[str]:
    forgetting = [
        spread(row.values.get(f"{metric.group_column} forgetting", []), metric.form) for metric in block.headlines
    ]
    routed = [spread(row.values.get(f"{side} routed right", [])) for side in block.routed_sides]
    return [
        row.method,
        str(row.runs),
        row.average,
        *(spread(row.values.get(metric.column, []), metric.form) for metric in block.metrics),
        " / ".join(filter(None, forgetting)),
        "given" if row.routing == "given" else " / ".join(filter(None, routed)),
        spread(row.values.get("minutes", [])),
        spread(row.values.get("peak_memory_mb", []), "{:.0f}"),
    ]


def spread(numbers: Sequence[float], form: str = ONE_DIGIT) -> str:
    """The mean, with the sample standard deviation if there are several numbers; "" if there is none."""
    if not numbers:
        return ""
    mean = form.format(statistics.mean(numbers))
    return f"{mean} ± {form.format(statistics.stdev(numbers))}" if len(numbers) > 1 else mean


def sources(blocks: Sequence[Block]) -> Table:
    """The list of runs: directory, method, seeds, commit and date."""
    lines = [
        [plain(str(run.directory)), group.label, *map(str, run.seeds), _commit(run.commit), run.started]
        for block in blocks
        for group in block.groups
        for run in group.runs
    ]
    return Table("", (), ("run", "method", "seed", "data seed", "commit", "begun (UTC)"), lines, 2)


def _commit(name: str) -> str:
    sha, plus, changes = name.partition("+")
    return sha[:12] + plus + changes
