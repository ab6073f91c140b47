"""Which image belongs to which task and split, kept as a table of three columns.

A source that gives its images no task (COCO, Flickr30k) chooses by a rule or by a table from somebody else. Either
way the choice is one mapping, has one canonical table, and the SHA-256 of that table stands in the results.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from lpi_jax.data.builder import Digest, assemble
from lpi_jax.data.examples import SPLITS, BadExample, Example, shown
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats.csv_file import csv_rows
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.files import require_file

MAX_BYTES = 1 << 27

Key = TypeVar("Key", int, str)


class Choice(NamedTuple):
    """An image's one task, and its split in the run: train or val."""

    task: str
    split: str


def read(path: str, column: str, keys: Mapping[str, Key], source: str, unread: int = 0) -> dict[Key, Choice]:
    """Reads a CSV table with a header and the columns `column`, task and split; others are ignored.

    Args:
      path: the table, UTF-8; its columns are separated by commas, semicolons or tabs.
      column: the column that names the image.
      keys: what may stand in it -> the image's key.
      source: what the images come from, for messages.
      unread: images there whose names could not be read; as many rows with unknown names are passed over.

    Returns:
      key -> choice, sorted by key.

    Raises:
      UserError: no such file, a missing column, a row that names an unknown image, one twice, no task, or another
        split than train and val, or a task without rows of one of them.
    """
    rows = _rows(path)
    line, cells = next(rows, (1, []))
    header = [cell.strip() for cell in cells]
    columns = (column, "task", "split")
    for name in columns:
        if header.count(name) != 1:
            times = "is missing" if name not in header else f"stands {header.count(name)} times"
            raise UserError(f"{path}, line {line}: column {name!r} {times}; expected the header {','.join(columns)}")
    chosen: dict[Key, Choice] = {}
    lines: dict[Key, int] = {}
    splits: dict[str, set[str]] = {}  # by task, of all rows
    for line, row in rows:
        where = f"{path}, line {line}"
        if any("\0" in cell for cell in row):
            raise UserError(f"{where}: the row holds a NUL character; expected text")
        if len(row) != len(header):
            raise UserError(f"{where}: the row has {len(row)} cells; expected {len(header)}, as many as the header")
        if any("\n" in cell or "\r" in cell for cell in row):  # a stray quote, closed by another one rows later
            raise UserError(f"{where}: a value goes over the end of its row; expected quotes in pairs")
        name, task, split = (row[header.index(name)].strip() for name in columns)
        if not task:
            raise UserError(f"{where}: task is empty; expected the name of a task")
        if split not in SPLITS:
            raise UserError(f"{where}: split is {shown(split)}; expected 'train' or 'val'")
        splits.setdefault(task, set()).add(split)
        if name not in keys:
            if unread == 0:
                raise UserError(f"{where}: {column} is {shown(name)}, which is no image of {source}")
            unread -= 1
            continue
        key = keys[name]
        if key in lines:
            raise UserError(f"{where}: {column} {shown(name)} stands already in line {lines[key]}")
        lines[key], chosen[key] = line, Choice(task, split)
    if not splits:
        raise UserError(f"{path}: the table names no image; expected one row per image")
    for task, own_splits in splits.items():
        for split in SPLITS:
            if split not in own_splits:
                message = f"task {shown(task)} has no {split} images; expected at least one row with split {split}"
                raise UserError(f"{path}: {message}")
    return dict(sorted(chosen.items()))


def table(column: str, chosen: Mapping[Key, Choice]) -> bytes:
    """The canonical CSV of a choice: a header, a row per image sorted by key, lines ended by a line feed, UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((column, "task", "split"))
    writer.writerows((key, *choice) for key, choice in sorted(chosen.items()))
    return text.getvalue().encode()


def counts(chosen: Mapping[Key, Choice]) -> dict[str, dict[str, int]]:
    """task -> {train, val}: how many images were chosen."""
    numbers = Counter(chosen.values())
    tasks = dict.fromkeys(choice.task for choice in chosen.values())
    return {task: {split: numbers[task, split] for split in SPLITS} for task in tasks}


def assemble_chosen(
    name: str,
    source: str,
    examples: Iterable[Example | BadExample],
    column: str,
    chosen: Mapping[Key, Choice],
    notes: Mapping[str, Any],
    options: FileOptions,
) -> Stream:
    """The stream of the chosen images, by `builder.assemble`.

    Its fingerprint covers the canonical table, each image's name, captions and description, sizes and samples of the
    images used and the order of the tasks: not the folder, nor how the choice was made.

    Args:
      name: `Stream.name`.
      source, examples, options: see `builder.assemble`.
      column, chosen: see `table`.
      notes: `Stream.notes`; added are how many images were chosen (bad ones among them) and the table's SHA-256.
    """
    canonical = table(column, chosen)
    digest = hashlib.sha256(canonical)
    stream = assemble(
        source,
        _hashed(examples, digest),
        options,
        digest=digest,
        notes={**notes, "chosen": counts(chosen), "manifest_sha256": hashlib.sha256(canonical).hexdigest()},
    )
    return replace(stream, name=name)


def _hashed(examples: Iterable[Example | BadExample], digest: Digest) -> Iterator[Example | BadExample]:
    for example in examples:
        if isinstance(example, Example):
            digest.update(json.dumps([example.key, example.captions, example.description]).encode())
        yield example


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of the rows that are not blank; UserError for what is no table."""
    try:
        require_file(path, "a CSV table of images, tasks and splits")
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise UserError(f"{path}: the file has {size} bytes, more than the {MAX_BYTES} allowed")
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield from csv_rows(path, file)
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the file is not UTF-8 ({error.reason})") from error
