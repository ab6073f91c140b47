"""Tables and pictures from runs: python -m lpi_jax.report [--format=FORMAT] [--out=DIR] WORKDIR [WORKDIR ...]

Prints a table; FORMAT is markdown (the default), csv, json or latex. With --out also writes DIR/table.md, table.csv,
table.json, table.tex, pictures (curves over the stages, and per kind of run heat maps of R@1, where items were routed
to, and the loss terms), and index.html that shows them all, task by task. Runs that differ only in their seeds become
one row: mean ± sample standard deviation.
"""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lpi_jax import paths, terminal
from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically
from lpi_jax.report import losses
from lpi_jax.report.groups import Block, compare
from lpi_jax.report.page import Picture, page
from lpi_jax.report.runs import read
from lpi_jax.report.tables import LEGEND
from lpi_jax.report.text import FORMATS

__all__ = ["LEGEND", "compare", "main", "read", "table", "write"]

FILES = {"table.md": "markdown", "table.csv": "csv", "table.json": "json", "table.tex": "latex"}


def table(directories: Sequence[str | Path], form: str = "markdown") -> str:
    """A table of runs: a guess and the frozen backbone first, then a row per kind of run and average.

    Args:
      form: `markdown`, `csv`, `json` or `latex`.

    Raises:
      UserError: as `compare`.
    """
    return FORMATS[form](compare(directories))


def write(directories: Sequence[str | Path], out: str | Path) -> None:
    """Writes the table in every format, pictures (PNG) and index.html into the folder `out`.

    Raises:
      UserError: as `compare`; matplotlib is missing; `out` cannot be written.
    """
    blocks = compare(directories)
    overviews, details = _pictures(blocks)
    files = {picture.file: picture.data for picture in (*overviews, *(one for own in details for one in own))}
    files |= {name: FORMATS[form](blocks).encode() for name, form in FILES.items()}
    files["index.html"] = page(blocks, overviews, details).encode()
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, lambda file, data=data: file.write(data))
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be written: {error.strerror}") from error


def _pictures(blocks: Sequence[Block]) -> tuple[list[Picture], list[list[Picture]]]:
    """A picture of each block, and those of each group."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it cannot keep a list of fonts, it makes one anew
    try:
        from lpi_jax.report import plots  # here, because matplotlib is an extra that the tables do not need
    except ImportError as error:
        raise UserError("pictures need matplotlib; install it with pip install 'lpi_jax[experiments]'") from error

    top = plots.highest(group for block in blocks for group in block.groups)
    taken: set[str] = set()
    overviews, details = [], []
    for block in blocks:
        against = "the frozen backbone and a guess" if block.guess else "the frozen backbone"
        caption = f"{block.title}: recall@1 over the tasks seen so far, against {against}"
        overviews.append(Picture(_file(taken, f"{block.title} stages"), caption, plots.curves(block)))
        for group in block.groups:
            stem, title = f"{block.title} {group.label}", f"{block.title}, {group.label}"
            caption = f"{title}: recall@1 of every task after every stage{plots.renamed(group)}"
            own = [Picture(_file(taken, stem), caption, plots.heat_maps(group, top))]
            if all(group.confusion(side) is not None for side in ("image", "text")):
                caption = f"{title}: where the items of every task were routed to after the last one"
                own.append(Picture(_file(taken, f"{stem} routing"), caption, plots.routing(group)))
            if curves := [found for run in group.runs if (found := losses.read(run.directory))]:
                caption = f"{title}: the terms of the loss, a line per run; upright lines are the ends of tasks"
                own.append(Picture(_file(taken, f"{stem} loss"), caption, plots.losses(group, curves)))
            details.append(own)
    return overviews, details


def _file(taken: set[str], title: str) -> str:
    """A file name made of a title's letters and digits, not yet taken."""
    stem = re.sub(r"[^a-z0-9.=]+", "-", title.lower()).strip("-.")[:100] or "picture"
    number = 1
    while (name := f"{stem}{f'-{number}' if number > 1 else ''}.png") in taken:
        number += 1
    taken.add(name)
    return name


@terminal.command()
def main(arguments: Sequence[str]) -> int:
    """Prints the table of the given runs, and writes the report if asked to.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0, or 2 for a user's mistake.
    """
    given = list(arguments[1:])
    if any(argument in ("--help", "-help", "-h") for argument in given):
        print(__doc__)
        return terminal.OK
    form, out, directories = _parse(given)
    text = table(directories, form)
    if out is not None:
        write(directories, out)
    print(text)
    if out is not None:
        # Beside the table, so that what is printed in another format is that format alone.
        print(f"Report: {Path(out) / 'index.html'}", file=sys.stdout if form == "markdown" else sys.stderr)
    return terminal.OK


def _parse(given: list[str]) -> tuple[str, str | None, list[str]]:
    """--format, --out and the directories."""
    values: dict[str, str] = {}
    expected = {"format": f"--format={'|'.join(FORMATS)}", "out": "--out=DIR"}
    directories = []
    while given:
        argument = given.pop(0)
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-")
        if not argument.startswith("-"):
            directories.append(argument)
        elif name in expected:
            values[name] = value if equals else given.pop(0) if given else ""
            if not values[name]:
                raise UserError(f"--{name} has no value; expected {expected[name]}")
        else:
            raise UserError(f"{argument} is not a flag; did you mean {' or '.join(expected.values())}?")
    form = values.get("format", "markdown")
    if form not in FORMATS:
        raise UserError(f"--format is {form!r}; expected one of {', '.join(FORMATS)}")
    if not directories:
        raise UserError("no run is named; expected python -m lpi_jax.report [--out=DIR] WORKDIR [WORKDIR ...]")
    out = values.get("out")
    directories = [paths.expanded(directory, "WORKDIR") for directory in directories]
    return form, out if out is None else paths.expanded(out, "--out"), directories


if __name__ == "__main__":
    sys.exit(main(sys.argv))
