"""Tables as text for other programs and people: Markdown, LaTeX, CSV with every digit, JSON with everything."""

import csv
import io
import json
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from lpi_jax.report.groups import Block, Group
from lpi_jax.report.runs import DIRECTIONS, SIDES
from lpi_jax.report.tables import LEGEND, Table, comparison, per_task, rows
from lpi_jax.terminal.plain_text import plain


def markdown(blocks: Sequence[Block]) -> str:
    """A Markdown table per block, and the legend. Markdown has one head row: the lower one is the first of the body."""
    parts = []
    for block in blocks:
        table = comparison(block, block.title if len(blocks) > 1 else "")
        title = [f"### {_marked(table.title)}", ""] if table.title else []
        lines = [*_heads(table), *table.rows]
        lines.insert(1, ["---"] * len(table.columns))
        parts.append("\n".join([*title, *("| " + " | ".join(map(_marked, line)) + " |" for line in lines)]))
    return "\n\n".join([*parts, LEGEND])


def _heads(table: Table) -> tuple[list[str], list[str]]:
    """The head row and the row below it, which names the columns that have something above them."""
    upper, lower = [], []
    for word, columns in table.head:
        names = table.columns[len(upper) : len(upper) + columns]
        upper += [word, *[""] * (columns - 1)] if word else names
        lower += names if word else [""] * columns
    return upper, lower


def _marked(cell: str) -> str:
    """A cell in which nothing of its text is taken for Markdown or HTML."""
    return re.sub(r"[\\|<`*$&]|(?<!\w)_|_(?!\w)|(?<=\])\(|~(?=~)", r"\\\g<0>", cell)


# ---- LaTeX -----------------------------------------------------------------------------------------------------------

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
_TEX |= {">": r"\textgreater{}", "|": r"\textbar{}", "→": r"$\to$", "±": r"$\pm$", "–": "--", "…": r"\ldots{}"}
_TEX |= {character: "\\" + character for character in "&%$#_{}"}


def latex(blocks: Sequence[Block]) -> str:
    """A tabular per block; for \\input in a document with \\usepackage{booktabs}."""
    return "\n".join(_tabular(comparison(block, block.title if len(blocks) > 1 else "")) for block in blocks)


def _tabular(table: Table) -> str:
    last, over, rules = 0, [], []
    for word, columns in table.head:
        over.append(f"\\multicolumn{{{columns}}}{{c}}{{{_tex(word)}}}")
        if word and columns > 1:
            rules.append(f"\\cmidrule(lr){{{last + 1}-{last + columns}}}")
        last += columns
    lines = [
        " & ".join(over) + r" \\",
        "".join(rules),
        _tex_row(table.columns),
        r"\midrule",
        *map(_tex_row, table.rows),
    ]
    title = [f"% {plain(table.title)}"] if table.title else []
    kinds = "l" * table.words + "r" * (len(table.columns) - table.words)
    return "\n".join(
        [*title, f"\\begin{{tabular}}{{{kinds}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""]
    )


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"


def _tex(cell: str) -> str:
    return re.sub(r"^-(?=\d)|(?<=/ )-(?=\d)", "$-$", "".join(_TEX.get(character, character) for character in cell))


# ---- every digit -----------------------------------------------------------------------------------------------------


def csv_table(blocks: Sequence[Block]) -> str:
    """All rows with every digit; a column for each mean and each deviation."""
    found = [(block, row) for block in blocks for row in rows(block)]
    names = list(dict.fromkeys(name for _, row in found for name in row.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [column for name in names for column in (name, f"{name} std")]
    writer.writerow(["stream", "method", "runs", "average", *(f"{d} n" for d in DIRECTIONS), *heads])
    for block, row in found:
        numbers = [number for name in names for number in _statistics(row.values.get(name, [])).values()]
        cells = [block.title, row.method, row.runs, row.average, *map(block.queries, DIRECTIONS), *numbers]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def json_table(blocks: Sequence[Block]) -> str:
    """Everything as JSON: per block the rows of the table, and per group its tasks, routing and runs."""
    found = [
        {
            "stream": block.title,
            "n": {direction: _count(block.counts(direction)) for direction in DIRECTIONS},
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
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _count(found: tuple[int, int] | None) -> int | dict[str, int] | None:
    if found is None or found[0] == found[1]:
        return found and found[0]
    return {"least": found[0], "most": found[1]}


def _group(group: Group) -> dict[str, Any]:
    named = zip(group.tasks, per_task(group), strict=True)
    confusion = {side: group.confusion(side) for side in SIDES}
    return {
        "method": group.label,
        "tasks": [
            {"task": plain(task), **{name: _statistics(numbers) for name, numbers in values.items()}}
            for task, values in named
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


FORMATS: dict[str, Callable[[Sequence[Block]], str]] = {
    "markdown": markdown,
    "csv": csv_table,
    "json": json_table,
    "latex": latex,
}
