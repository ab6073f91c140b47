"""Tables with every digit for other programs: CSV, and JSON with everything."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from typing import Any

from lpi_jax.report import by_task, remarks
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.known import Known, shown
from lpi_jax.report.rows import Row, rows
from lpi_jax.terminal.plain_text import plain


def csv_table(blocks: Sequence[Block]) -> str:
    """All rows with every digit; a column for each mean and each deviation, empty where a block has no such number.

    A row's last columns are how well its final averages are known: `low` and `high`, and, of the metrics of which the
    tables show it, how far they are above each control.
    """
    lines = [(block, row) for block in blocks for row in rows(block)]
    names = list(dict.fromkeys(name for _, row in lines for name in row.values))
    groups = list(dict.fromkeys(metric.group_column for block in blocks for metric in block.headlines))
    heads = [column for name in names for column in (name, f"{name} std")]
    bounds = [_bounds(row, {metric.column for metric in shown(block)}) for block, row in lines]
    last = list(dict.fromkeys(name for row in bounds for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = ["stream", "method", "kind", "of", "runs", "average"]
    writer.writerow([*first, *(f"{group} n" for group in groups), *heads, *last])
    for (block, row), known in zip(lines, bounds, strict=True):
        counts = {metric.group_column: block.n(metric) for metric in block.headlines}
        values = row.values
        numbers = [number for name in names for number in _statistics(values.get(name, [])).values()]
        cells = [block.title, row.method, row.kind, row.group.label, row.runs, row.average, *map(counts.get, groups)]
        cells += [*numbers, *map(known.get, last)]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def _bounds(row: Row, compared: set[str]) -> dict[str, float | None]:
    """How well a row's numbers are known, by column; compared: those of which differences are written."""
    found: dict[str, float | None] = {}
    for column, (final, differences) in row.known.items():
        found |= {f"{column} low": final.low, f"{column} high": final.high}
        for kind, known in differences.items() if column in compared else ():
            name = plain(f"{column} over {kind}")
            statistic = _statistics(known.numbers)
            found |= {name: statistic["mean"], f"{name} std": statistic["std"]}
            found |= {f"{name} low": known.low, f"{name} high": known.high}
    return found


def json_table(blocks: Sequence[Block]) -> str:
    """Everything as JSON: per block the rows of the table, and per group its tasks, routing and runs."""
    everything = [
        {
            "stream": block.title,
            "n": {metric.group_column: _count(*block.counts(metric)) for metric in block.headlines},
            "rows": [
                {
                    "method": row.method,
                    "kind": row.kind,
                    "of": row.group.label,
                    "runs": row.runs,
                    "average": row.average,
                    "routing": row.routing,
                    "values": {name: _statistics(numbers) for name, numbers in row.values.items()},
                    "known": {
                        column: {
                            **_known(final),
                            "over": {plain(kind): _known(difference) for kind, difference in differences.items()},
                        }
                        for column, (final, differences) in row.known.items()
                    },
                }
                for row in rows(block)
            ],
            "methods": [_group(group) for group in block.groups],
        }
        for block in blocks
    ]
    return json.dumps(everything, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _known(known: Known) -> dict[str, float | None]:
    return {**_statistics(known.numbers), "low": known.low, "high": known.high}


def _count(least: int, most: int) -> int | dict[str, int]:
    return least if least == most else {"least": least, "most": most}


def _group(group: Group) -> dict[str, Any]:
    columns = by_task.columns(group)
    confusion = {side: group.confusion(side) for side in group.sides}
    return {
        "method": group.label,
        "tasks": [
            {"task": plain(task), **{column.name: _statistics(column.values[number]) for column in columns}}
            for number, task in enumerate(group.tasks)
        ],
        "routing_confusion": {side: m.astype(int).tolist() for side, m in confusion.items() if m is not None},
        "probes": _probes(group),
        "remarks": remarks.of_group(group),
        "runs": [
            {
                "run": plain(str(run.directory)),
                "seed": run.seeds[0],
                "data_seed": run.seeds[1],
                "commit": run.commit,
                "started": run.started,
            }
            for run in group.runs
        ],
    }


def _probes(group: Group) -> dict[str, Any]:
    """By probe and metric the frozen backbone's values, and those after every task."""
    first, *others = (run.probes for run in group.runs)
    found: dict[str, Any] = {}
    for name, metric in ((name, metric) for name in first for metric in group.headlines):
        each = [probes.get(name, {}).get(metric.name) for probes in (first, *others)]
        if all(each):
            stages = zip(*(probe.values for probe in each), strict=True)
            found.setdefault(name, {})[metric.column] = {
                "frozen": _statistics([probe.frozen for probe in each]),
                "values": [_statistics(numbers) for numbers in stages],
            }
    return found


def _statistics(numbers: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.mean(numbers) if numbers else None,
        "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
    }
