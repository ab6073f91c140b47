"""A look at a whole stream before a run: python -m lpi_jax.data.check --config=FILE [--out=DIR]

Reads every picture once and says what a run would meet: pictures that cannot be decoded, captions that are too long,
training pictures and captions that come again in validation. A contact sheet per task shows whether they fit together.
"""

import contextlib
import hashlib
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from lpi_jax.data.contact_sheet import Section, Tile, contact_sheet, file_name, thumbnail
from lpi_jax.data.examples import SPLITS
from lpi_jax.data.loader import ahead
from lpi_jax.data.pictures import BadImage
from lpi_jax.data.preprocess import clean_caption
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

Exit status: 0; 2 for a mistake in the command line or the data (pictures that cannot be decoded
count only with data.on_bad_example=error); 130 after Ctrl-C.
"""
HEADER = (
    *("task", "pictures", "captions", "words", "over {max_words}", "cut", "smallest", "median", "largest"),
    *("again in train", "train in val", "captions in val", "bad"),
)
LEGEND = """\
pictures, captions: train / val. words: of a cleaned caption, median / longest; over: how many lose
words to data.max_words. cut: captions whose tokens do not fit the text tower behind the prompts.
smallest, median, largest: pictures by area. again in train: train pictures that repeat an earlier
one; train in val: val pictures that repeat a train picture, each as the same pixels + only alike to
the eye. captions in val: val captions that are train captions too. bad: pictures that cannot be
decoded. A task is compared with itself, "all" with all of them.
"""
OUT = "runs/check"
INTERRUPTED = 130
LISTED = 20  # bad pictures that are told one by one
TILES = 12  # pictures of each split on a contact sheet
DRAWN = 224  # pixels; side of drawn pictures where the backbone, which decides it, is not at hand

_BITS, _COLOUR = 2, 8  # what two pictures that look alike may differ in: signs out of 64, and colour out of 255
_CROWD = 256
_PROGRESS_FROM = 500  # pictures: fewer are read in a moment


@dataclass(frozen=True)
class Words:
    """Length of cleaned captions, in words: the median, the longest, and how many are longer than what is read."""

    median: float
    longest: int
    too_long: int


@dataclass(frozen=True)
class Sizes:
    """(width, height) in pixels of the smallest, the median and the largest picture by area."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class Repeats:
    """How many pictures and captions come more than once.

    Attributes:
      train_same: train pictures with the pixels of an earlier one. train_alike: others that look like an earlier one.
      val_same: val pictures with the pixels of a train picture. val_alike: others that look like a train picture.
      captions: val captions that are, as they are read, train captions too.
    """

    train_same: int
    train_alike: int
    val_same: int
    val_alike: int
    captions: int


@dataclass(frozen=True)
class Row:
    """What is in one task, or in all of them.

    Attributes:
      name: the task's.
      pictures, captions: how many, by split.
      words: of both splits' captions.
      cut: captions that the text tower cannot take whole; None: not counted.
      sizes: of both splits' pictures; None: not one could be decoded.
      repeats: within the task, or across all tasks.
      bad: pictures that could not be decoded, counted by kind.
    """

    name: str
    pictures: Mapping[str, int]
    captions: Mapping[str, int]
    words: Words
    cut: int | None
    sizes: Sizes | None
    repeats: Repeats
    bad: Mapping[str, int]


@dataclass(frozen=True)
class Findings:
    """What is in a stream.

    Attributes:
      stream, fingerprint, skipped: as in `Stream`.
      max_words: how many words of a caption are read.
      tasks: a row each. total: the row of all tasks together.
      bad: what is wrong with the first LISTED pictures that could not be decoded.
      tiles: per task and split, at most TILES pictures for its contact sheet.
    """

    stream: str
    fingerprint: str
    skipped: Mapping[str, int]
    max_words: int
    tasks: tuple[Row, ...]
    total: Row
    bad: tuple[str, ...]
    tiles: tuple[Mapping[str, Sequence[Tile]], ...]


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """What is kept of a picture: width and height, sha256 of its pixels, and what `_first_alike` compares."""

    size: tuple[int, int]
    digest: bytes
    signs: int
    colours: bytes


class _Bad(NamedTuple):
    """What is kept of a `BadImage`, which itself holds on to the picture that was being decoded."""

    kind: str
    message: str


class _Part(NamedTuple):
    """One split of one task, or of all. said: captions as they are read; words: their lengths before they are cut."""

    looks: list[_Look]
    bad: list[_Bad]
    said: list[str]
    words: list[int]
    tiles: list[Tile]


def check(stream: Stream, max_words: int, count_cut: Callable[[Sequence[str]], int] | None = None) -> Findings:
    """Reads every picture of a stream once, in threads, and keeps a few hashes of each and some thumbnails.

    Args:
      stream: any. A picture that raises `BadImage` when it is loaded is counted, and the check goes on.
      max_words: how many words of a caption are read.
      count_cut: captions as written -> how many of them the text tower cannot take whole.
    """
    cuts: list[int | None] = [None] * len(stream.tasks)
    if count_cut:
        cuts = [sum(count_cut(_captions(getattr(task, split))) for split in SPLITS) for task in stream.tasks]
    count = sum(len(getattr(task, split)) for task in stream.tasks for split in SPLITS)
    with tqdm(total=count, desc="checking pictures", unit="picture", disable=count <= _PROGRESS_FROM) as bar:
        read = [{split: _read(getattr(task, split), max_words, bar) for split in SPLITS} for task in stream.tasks]
    together = {split: _joined([own[split] for own in read]) for split in SPLITS}
    bad = [one.message for own in read for split in SPLITS for one in own[split].bad]
    return Findings(
        stream=stream.name,
        fingerprint=stream.fingerprint,
        skipped=dict(stream.skipped),
        max_words=max_words,
        tasks=tuple(_row(t.name, own, max_words, cut) for t, own, cut in zip(stream.tasks, read, cuts, strict=True)),
        total=_row("all", together, max_words, sum(cuts) if count_cut else None),
        bad=tuple(bad[:LISTED]),
        tiles=tuple({split: own[split].tiles for split in SPLITS} for own in read),
    )


def _read(split: Split, max_words: int, bar: tqdm) -> _Part:
    most = min(TILES, len(split))
    chosen = {k * len(split) // most for k in range(most)}

    def look(index: int) -> tuple[_Look | _Bad, np.ndarray | None]:
        try:
            pixels = split.load(index)
        except BadImage as error:
            return _Bad(error.kind, " ".join(str(error).split())), None
        return _look(pixels), thumbnail(pixels) if index in chosen else None

    part = _Part([], [], [], [], [])
    for index, (found, small) in enumerate(ahead(look, range(len(split)))):
        (part.bad if isinstance(found, _Bad) else part.looks).append(found)
        if index in chosen:
            part.tiles.append(Tile(small, split.captions[index][0]))
        bar.update()
    for caption in _captions(split):
        words = clean_caption(caption, sys.maxsize).removesuffix(".").split()
        part.words.append(len(words))
        part.said.append(" ".join(words[:max_words]))
    return part


def _look(pixels: np.ndarray) -> _Look:
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{width} {height} ".encode())
    digest.update(np.ascontiguousarray(pixels))
    picture = Image.fromarray(pixels)
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX))
    signs = np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
    colours = picture.resize((4, 4), Image.Resampling.BOX).tobytes()
    return _Look((width, height), digest.digest(), int.from_bytes(signs), colours)


def _captions(split: Split) -> list[str]:
    return [caption for captions in split.captions for caption in captions]


def _joined(parts: Sequence[_Part]) -> _Part:
    return _Part(*(list(chain.from_iterable(lists)) for lists in zip(*parts, strict=True)))


# ---- counting --------------------------------------------------------------------------------------------------------


def _row(name: str, parts: Mapping[str, _Part], max_words: int, cut: int | None) -> Row:
    both = _joined(list(parts.values()))
    sizes = sorted((look.size for look in both.looks), key=lambda size: (size[0] * size[1], size))
    return Row(
        name=name,
        pictures={split: len(part.looks) + len(part.bad) for split, part in parts.items()},
        captions={split: len(part.said) for split, part in parts.items()},
        words=Words(statistics.median(both.words), max(both.words), sum(count > max_words for count in both.words)),
        cut=cut,
        sizes=Sizes(sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1]) if sizes else None,
        repeats=_repeats(parts["train"], parts["val"]),
        bad=dict(Counter(one.kind for one in both.bad)),
    )


def _repeats(train: _Part, val: _Part) -> Repeats:
    own = {look.digest: look for look in train.looks}
    new = [look for look in val.looks if look.digest not in own]
    first = _first_alike([*own.values(), *new])
    known = set(train.said)
    return Repeats(
        train_same=len(train.looks) - len(own),
        train_alike=int(np.sum(first[: len(own)] < np.arange(len(own)))),
        val_same=len(val.looks) - len(new),
        val_alike=int(np.sum(first[len(own) :] < len(own))),
        captions=sum(caption in known for caption in val.said),
    )


def _first_alike(looks: Sequence[_Look]) -> np.ndarray:
    """[N] int: for each picture the number of the first that looks like it, which may be its own.

    Pictures look alike if of the 64 signs of their horizontal gradient (8 rows of 9 grey values, the difference hash)
    at most _BITS differ, and no colour of their 4 x 4 reduction differs by more than _COLOUR: signs alone take every
    two drawings on a plain ground for one. Signs that differ in two bits are equal in at least two of four quarters,
    so only pictures with two equal quarters are compared, each with the _CROWD next to it in brightness: among
    thousands of blank pages a pair may be missed, but time does not grow with the square of their number.
    """
    signs = np.array([look.signs for look in looks], np.uint64)
    colours = np.array([list(look.colours) for look in looks], np.int16).reshape(-1, 48)
    quarters = signs[:, None] >> np.arange(0, 64, 16, np.uint64) & np.uint64(0xFFFF)
    first = np.arange(len(looks))
    for i, j in combinations(range(4), 2):
        key = quarters[:, i] << np.uint64(16) | quarters[:, j]
        order = np.lexsort((colours.sum(1), key))
        for step in range(1, _CROWD + 1):
            pairs = np.stack([order[:-step], order[step:]])
            pairs = pairs[:, key[pairs[0]] == key[pairs[1]]]
            if not pairs.size:
                break
            pairs = pairs[:, np.bitwise_count(signs[pairs[0]] ^ signs[pairs[1]]) <= _BITS]
            pairs = pairs[:, np.abs(colours[pairs[0]] - colours[pairs[1]]).max(1) <= _COLOUR]
            np.minimum.at(first, pairs, pairs[::-1])
    return first


# ---- telling ---------------------------------------------------------------------------------------------------------


def table(findings: Findings) -> str:
    """A line per task and one for all, what the columns mean, and what is bad."""
    header = [title.format(max_words=findings.max_words) for title in HEADER]
    cells = [header, *map(_cells, (*findings.tasks, findings.total))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for name, *rest in cells
    ]
    lines += ["", *LEGEND.splitlines()]
    if findings.skipped:
        lines += ["", f"left out when the stream was read: {_counted(findings.skipped)}"]
    if findings.bad:
        lines += ["", f"cannot be decoded: {_counted(findings.total.bad)}", *(f"  {line}" for line in findings.bad)]
        more = sum(findings.total.bad.values()) - len(findings.bad)
        lines += [f"  and {more} more"] if more else []
    return "\n".join(map(_printable, lines))


def _cells(row: Row) -> list[str]:
    sizes, repeats = row.sizes, row.repeats
    return [
        _printable(row.name)[:40],
        *(" / ".join(str(counts[split]) for split in SPLITS) for counts in (row.pictures, row.captions)),
        f"{row.words.median:g} / {row.words.longest}",
        str(row.words.too_long),
        "?" if row.cut is None else str(row.cut),
        *([f"{w}x{h}" for w, h in (sizes.smallest, sizes.median, sizes.largest)] if sizes else "---"),
        f"{repeats.train_same} + {repeats.train_alike}",
        f"{repeats.val_same} + {repeats.val_alike}",
        str(repeats.captions),
        str(sum(row.bad.values())),
    ]


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _printable(text: str) -> str:
    """Text without control characters: what others wrote must not steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def write(findings: Findings, out: str | Path) -> None:
    """Writes a contact sheet per task and check.json, which holds the same numbers as the table, into a folder.

    Raises:
      UserError: the folder cannot be written.
    """
    out = Path(out)
    numbers = asdict(replace(findings, tiles=()))
    del numbers["tiles"]
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for number, (row, record) in enumerate(zip(findings.tasks, numbers["tasks"], strict=True)):
            record["sheet"] = file_name(number, row.name)
            sections = [
                Section(f"{split}: {row.pictures[split]} pictures, {row.captions[split]} captions", tiles)
                for split, tiles in findings.tiles[number].items()
            ]
            sheet = contact_sheet(row.name, sections)
            write_atomically(out / record["sheet"], lambda file, sheet=sheet: file.write(sheet))
        write_json(out / "check.json", numbers)


# ---- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0; 2 for a user's mistake, or for pictures that cannot be decoded with
      data.on_bad_example='error'; 130 after Ctrl-C.
    """
    from lpi_jax import command_line

    if command_line.asks_for_help(arguments[1:]):
        print(USAGE, end="")
        return 0
    try:
        config, out = command_line.parse([f"--out={OUT}", *arguments[1:]], "out")
        out = Path(out)
        stream, count_cut = _stream(config)
        with _writing(out):  # before the pictures are read, which may take an hour
            out.mkdir(parents=True, exist_ok=True)
        findings = check(stream, config.data.max_words, count_cut)
        write(findings, out)
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    _say(f"{table(findings)}\n\nWritten: {out}/check.json and {len(findings.tasks)} contact sheets")
    return 2 if findings.bad and config.data.on_bad_example == "error" else 0


def _stream(config: "ConfigDict") -> tuple[Stream, Callable[[Sequence[str]], int] | None]:
    """The stream, and a function that counts captions which the text tower cannot take whole; None: nobody can tell."""
    from lpi_jax import build
    from lpi_jax.models import weights
    from lpi_jax.models.tokenizer import Tokenizer

    source = build.BUNDLED if config.backbone == "bundled" else config.backbone
    placeholders = 0 if config.method == "zero_shot" else config.prompt.length
    image_size, count_cut = DRAWN, None
    try:
        clip, _ = weights.load(_at_hand(source))
        image_size = clip.image_size
        tokenizer = Tokenizer.load(_at_hand(config.tokenizer or source))
        tower = build.Captions(tokenizer, clip.context_length, config.data.max_words)
        count_cut = partial(tower.count_cut, placeholders=placeholders)
    except UserError as error:
        print(f"cut captions are not counted, drawn pictures are {image_size} pixels wide: {error}", file=sys.stderr)
    return build.stream(config, image_size), count_cut


def _at_hand(path_or_hub_id: str | Path) -> Path:
    """Where a checkpoint lies on this machine; UserError if it would have to be downloaded."""
    from huggingface_hub import snapshot_download

    try:
        path = Path(path_or_hub_id).expanduser()
        return path if path.exists() else Path(snapshot_download(str(path_or_hub_id), local_files_only=True))
    except Exception as error:  # many kinds: an impossible path, no hub id, never fetched
        raise UserError(f"{path_or_hub_id} is not on this machine") from error


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be written: {error.strerror}") from error


def _say(text: str) -> None:
    """Prints, with question marks for letters that the terminal cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
