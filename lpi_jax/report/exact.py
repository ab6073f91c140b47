"""Tables with every digit for other programs: CSV, and JSON with everything."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from typing import Any

from lpi_jax.report import by_task
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.tables import rows
from lpi_jax.terminal.plain_text import plain


def csv_table(blocks: Sequence[Block]) -> str:
    """All rows with every digit; a column for each mean and each deviation, empty where a block has no such number."""
    lines = [(block, row) for block in blocks for row in rows(block)]
    names = list(dict.fromkeys(name for _, row in lines for name in row.values))
    groups = list(dict.fromkeys(metric.group_column for block in blocks for metric in block.headlines))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [column for name in names for column in (name, f"{name} std")]
    writer.writerow(["stream", "method", "runs", "average", *(f"{group} n" for group in groups), *heads])
    for block, row in lines:
        counts = {metric.group_column: block.n(metric) for metric in block.headlines}
        numbers = [number for name in names for number in _statistics(row.values.get(name, [])).values()]
        cells = [block.title, row.method, row.runs, row.average, *map(counts.get, groups), *numbers]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def json_table(blocks: Sequence[Block]) -> str:
    """Everything as JSON: per block the rows of the table, and per group its tasks, routing and runs."""
    everything = [
        {
            "stream": block.title,
            "n": {metric.group_column: _count(*block.counts(metric)) for metric in block.headlines},
            "rows": [
                {
                    "method": row.method,
                    "runs": row.runs,
                    "average": row.average,
                    "routing": row.routing,
                    "values": {name: _statistics(numbers) for name, numbers in row.values.items()},
                }
                for row in rows(block)
            ],
            "methods": [_group(group) for group in block.groups],
        }
        for block in blocks
    ]
    return json.dumps(everything, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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


def _statistics(numbers: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.mean(numbers) if numbers else None,
        "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
    }
