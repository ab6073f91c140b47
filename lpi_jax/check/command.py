"""A look at a whole stream before a run: python -m lpi_jax.data.check --config=FILE [--out=DIR]

Reads every image once and says what a run would meet: images that cannot be decoded, captions that are too long,
training images and captions that come again in validation. A contact sheet per task shows whether they fit together.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpi_jax import terminal
from lpi_jax.check.survey import Findings, Row, survey
from lpi_jax.data.contact_sheet import SHEET, Section, contact_sheet, file_name
from lpi_jax.data.examples import SPLITS
from lpi_jax.data.stream import Split, Stream
from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically, write_json

if TYPE_CHECKING:
    from ml_collections import ConfigDict


USAGE = """\
Reads a whole stream as a run would, prints a table of what is in it, and writes check.json and
a contact sheet (PNG) per task to --out. Nothing is downloaded.

  python -m lpi_jax.data.check --config=configs/own_data_lpi.py --config.data.path=stream.jsonl

  --config=FILE[:PRESET]  configuration file, as for lpi_jax.main
  --config.KEY=VALUE      changes one key of it; several are allowed
  --out=DIR               where to write (runs/check)
  --help                  shows this text

Bad examples are counted and the first are told, with data.on_bad_example=error, too, where a run
would end at the first of them. "a run would refuse: ..." tells, for every setting that does not
fit the backbone, the data or the devices, what a run would end with before it begins; it does not
count for the exit status. Exit status: 0; 2 for a mistake in the command line or the data
(bad examples count only with data.on_bad_example=error; of several streams, that of all of
them counts); 130 after Ctrl-C.
"""
HEADER = (
    *("task", "images", "captions", "words", "over {max_words}", "cut", "smallest", "median", "largest"),
    *("again in train", "train in val", "captions in val", "bad"),
)
LEGEND = """\
images, captions: train / val. words: of a cleaned caption, median / longest; over: how many lose
words to data.max_words. cut: captions whose tokens do not fit the text tower behind the prompts.
smallest, median, largest: images by area. again in train: train images that repeat an earlier
one; train in val: val images that repeat a train image, each as the same pixels + only alike to
the eye. captions in val: val captions that are train captions too. bad: examples that cannot be
used. A task is compared with itself, "all" with all of them. Of instructions, a question with its
answer counts as a caption, and samples without an image have none.
"""
OUT = "runs/check"
DRAWN = 224  # pixels; side of drawn images where the backbone, which decides it, is not at hand


# ---- telling ---------------------------------------------------------------------------------------------------------


def table(findings: Findings) -> str:
    """A line per task and one for all, what the columns mean, and what is bad."""
    most = "-" if findings.max_words is None else findings.max_words
    header = [title.format(max_words=most) for title in HEADER]
    cells = [header, *map(_cells, (*findings.tasks, findings.total))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for name, *rest in cells
    ]
    lines += ["", *LEGEND.splitlines()]
    if findings.bad:
        kinds = {**{row.name: row.bad for row in findings.tasks}, "(no task known)": findings.unplaced}
        lines += ["", "bad by kind", *(f"  {name[:40]}: {_counted(bad)}" for name, bad in kinds.items() if bad)]
        more = sum(findings.total.bad.values()) - len(findings.bad)
        lines += ["", "the bad ones", *(f"  {line}" for line in findings.bad)]
        lines += [f"  and {more} more"] if more else []
    if findings.remarks:
        lines += ["", "what may be a mistake", *(f"  {remark}" for remark in findings.remarks)]
    return "\n".join(map(terminal.one_line, lines))


def _cells(row: Row) -> list[str]:
    sizes, repeats = row.sizes, row.repeats
    return [
        terminal.one_line(row.name)[:40],
        *(" / ".join(str(counts[split]) for split in SPLITS) for counts in (row.images, row.captions)),
        f"{row.words.median:g} / {row.words.longest}",
        "-" if row.words.too_long is None else str(row.words.too_long),
        "?" if row.cut is None else str(row.cut),
        *([f"{w}x{h}" for w, h in (sizes.smallest, sizes.median, sizes.largest)] if sizes else "---"),
        f"{repeats.train_same} + {repeats.train_alike}",
        f"{repeats.val_same} + {repeats.val_alike}",
        str(repeats.captions),
        str(sum(row.bad.values())),
    ]


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def write(findings: Findings, out: str | Path) -> None:
    """Writes a contact sheet per task and check.json, which holds the same numbers as the table, into a folder.

    The contact sheets of an earlier check there, which its check.json names, are removed.

    Raises:
      UserError: the folder cannot be written.
    """
    out = Path(out)
    numbers = asdict(replace(findings, tiles=()))
    del numbers["tiles"]
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        old = _sheets(out / "check.json")
        for number, (row, record) in enumerate(zip(findings.tasks, numbers["tasks"], strict=True)):
            record["sheet"] = file_name(number, row.name)
            sections = [
                Section(f"{split}: {row.images[split]} images, {row.captions[split]} captions", tiles)
                for split, tiles in findings.tiles[number].items()
            ]
            sheet = contact_sheet(row.name, sections)
            write_atomically(out / record["sheet"], lambda file, sheet=sheet: file.write(sheet))
        for name in old - {record["sheet"] for record in numbers["tasks"]}:
            (out / name).unlink(missing_ok=True)
        write_json(out / "check.json", numbers)


def _sheets(record: Path) -> set[str]:
    """The contact sheets that an earlier check.json names; none where it is missing or no such file."""
    try:
        names = [row["sheet"] for row in json.loads(record.read_bytes())["tasks"]]
        return {name for name in names if SHEET.fullmatch(name)}
    except (FileNotFoundError, KeyError, TypeError, ValueError, RecursionError):
        return set()


# ---- the command -----------------------------------------------------------------------------------------------------


@terminal.command()
def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0; 2 for a user's mistake, or for bad examples with data.on_bad_example='error'; 130 after
      Ctrl-C.
    """
    from lpi_jax import config as configs
    from lpi_jax.config import command_line
    from lpi_jax.config.table import is_read

    if command_line.asks_for_help(arguments[1:]):
        print(USAGE, end="")
        return terminal.OK
    config, out = command_line.parse([f"--out={OUT}", *arguments[1:]], "out")
    from lpi_jax.check import refusals  # here, because JAX takes seconds to import and --help needs none of it
    from lpi_jax.problems import registry as problems

    out = Path(out)
    problem = problems.module(config.problem.name)
    look = problem.look(config)
    stream, count_cut = _stream(config, look, problem.SAID)
    with _writing(out):  # before the images are read, which may take an hour
        out.mkdir(parents=True, exist_ok=True)
    max_words = config.data.max_words if is_read("data.max_words", configs.flat(config)) else None
    findings = survey(stream, max_words, count_cut, problem.texts)
    write(findings, out)
    refused = [f"a run would refuse: {sentence}" for sentence in refusals.refusals(config, look, stream)]
    told = "\n\n".join([table(findings), *(["\n".join(map(terminal.one_line, refused))] if refused else [])])
    print(f"{told}\n\nWritten: {out}/check.json and {len(findings.tasks)} contact sheets")
    return terminal.MISTAKE if findings.bad and config.data.on_bad_example == "error" else terminal.OK


def _stream(config: "ConfigDict", look: Any, said: str) -> tuple[Stream, Callable[[Split], int] | None]:
    """The stream, and a function that counts a split's texts which the backbone cannot take whole; None: unknown.

    The stream is the source's own, not a cache of it, without its bad examples, whatever a run would do with them.
    said: what it must say of images.
    """
    from lpi_jax.data.sources import registry

    registry.refuse_others(config.data.to_dict(), said, config.problem.name, config.eval.probes)
    image_size = look.image_size or DRAWN
    count_cut = look.count_cut(config, _reserve(config, look)) if look.sites else None
    if look.unknown:
        reason = look.unknown
        print(f"cut captions are not counted, drawn images are {image_size} pixels wide: {reason}", file=sys.stderr)
    usual = config.data.to_dict()
    told = {"on_bad_example": "skip"}
    parts = tuple({**part, **told} if isinstance(part, Mapping) else part for part in usual["streams"])
    data = {**usual, **told, "streams": parts, "cache_dir": ""}
    return registry.stream(data, image_size), count_cut


def _reserve(config: "ConfigDict", look: Any) -> Mapping[str, int]:
    """The input positions kept for prompts, also for prompts that do not fit: those are among what a run refuses."""
    from lpi_jax.experiment.experiment import method_of

    deep = {name: site._replace(layers=look.spacious[name].layers) for name, site in look.sites.items()}
    try:
        return method_of(config, deep).reserve
    except UserError:
        return method_of(config, look.spacious).reserve


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv))
