"""Tables and pictures from runs: python -m lpi_jax.report [--format=FORMAT] [--out=DIR] WORKDIR [WORKDIR ...]

Prints a table and how well its numbers are known; FORMAT is markdown (the default), csv, json or latex. With --out also
writes DIR/table.md, table.csv, table.json, table.tex, pictures (curves over the stages, and per kind of run heat maps
of the metrics, where items were routed to, and the loss terms), and index.html that shows them all, task by task, with
what runs keep of single items and their answers. Runs that differ only in their seeds become one row: mean ± sample
standard deviation.
"""

import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lpi_jax import paths, terminal
from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically
from lpi_jax.report import gallery
from lpi_jax.report.comparison import compare
from lpi_jax.report.groups import Block
from lpi_jax.report.page import Picture, page
from lpi_jax.report.text import FORMATS

FILES = {"table.md": "markdown", "table.csv": "csv", "table.json": "json", "table.tex": "latex"}


def table(directories: Sequence[str | Path], form: str = "markdown") -> str:
    """A table of runs: a guess and the frozen backbone first, then every kind of run with its controls.

    Where runs say how well their numbers are known, a second table follows.

    Args:
      form: `markdown`, `csv`, `json` or `latex`.

    Raises:
      UserError: as `compare`.
    """
    return FORMATS[form](compare(directories))


def write(directories: Sequence[str | Path], out: str | Path) -> None:
    """Writes the table in every format, pictures (PNG) and index.html into the folder `out`.

    Raises:
      UserError: as `compare`; a run's answers are damaged; matplotlib is missing; `out` cannot be written.
    """
    blocks = compare(directories)
    groups = [group for block in blocks for group in block.groups]
    galleries = [gallery.of_group(group, number) for number, group in enumerate(groups, start=1)]
    overviews, details = _pictures(blocks)
    files = {picture.file: picture.data for picture in itertools.chain(overviews, *details)}
    for shown in filter(None, galleries):
        files |= shown.pictures
    files |= {name: FORMATS[form](blocks).encode() for name, form in FILES.items()}
    files["index.html"] = page(blocks, overviews, details, galleries).encode()
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, lambda file, data=data: file.write(data))
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be written: {error.strerror}") from error


def _pictures(blocks: Sequence[Block]) -> tuple[list[Picture], list[list[Picture]]]:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it cannot keep a list of fonts, it makes one anew
    try:
        from lpi_jax.report.pictures import pictures  # here: matplotlib is an extra that the tables do not need
    except ImportError as error:
        raise UserError("pictures need matplotlib; install it with pip install 'lpi_jax[experiments]'") from error
    return pictures(blocks)


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
