"""Tables as text: Markdown and LaTeX for people; the names of all formats."""

import re
from collections.abc import Callable, Iterator, Sequence

from lpi_jax.report import known
from lpi_jax.report.cells import Table
from lpi_jax.report.exact import csv_table, json_table
from lpi_jax.report.groups import Block
from lpi_jax.report.legend import legend
from lpi_jax.report.tables import comparison
from lpi_jax.terminal.plain_text import plain


def markdown(blocks: Sequence[Block]) -> str:
    """The Markdown tables of every block, and the legend."""
    tables = [_markdown(table, "#" * depth) for table, depth in _tables(blocks)]
    return "\n\n".join([*tables, _marked(legend(blocks))])


def _tables(blocks: Sequence[Block]) -> Iterator[tuple[Table, int]]:
    """Of every block what is compared and how well it is known, with the depth of their titles."""
    for block in blocks:
        yield comparison(block, block.title if len(blocks) > 1 else ""), 3
        if (table := known.table(block)) is not None:
            yield table, 4


def _markdown(table: Table, mark: str) -> str:
    """A Markdown table. Markdown has one head row: the lower one is the first of the body."""
    title = [f"{mark} {_marked(table.title)}", ""] if table.title else []
    lines = [*_heads(table), *table.rows]
    lines.insert(1, ["---"] * len(table.columns))
    return "\n".join([*title, *("| " + " | ".join(map(_marked, line)) + " |" for line in lines)])


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
    """The tabulars of every block; for \\input in a document with \\usepackage{booktabs}."""
    return "\n".join(_tabular(table) for table, _ in _tables(blocks))


def _tabular(table: Table) -> str:
    last, over, rules = 0, [], []
    for word, columns in table.head:
        over.append(f"\\multicolumn{{{columns}}}{{c}}{{{_tex(word)}}}")
        if word and columns > 1:
            rules.append(f"\\cmidrule(lr){{{last + 1}-{last + columns}}}")
        last += columns
    lines = [
        " & ".join(over) + r" \\",
        *(["".join(rules)] if rules else []),  # an empty line would end a paragraph
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
    return re.sub(
        r"(?:^|(?<=/ )|(?<=\[)|(?<=\d, ))-(?=\d)", "$-$", "".join(_TEX.get(character, character) for character in cell)
    )


FORMATS: dict[str, Callable[[Sequence[Block]], str]] = {
    "markdown": markdown,
    "csv": csv_table,
    "json": json_table,
    "latex": latex,
}
