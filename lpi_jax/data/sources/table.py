"""A stream from a table, CSV or Parquet (one file or a folder of them), with one row per caption or per image.

    image,caption,task,split
    images/0001.jpg,a red kite,toys,train
    images/0001.jpg,"a kite, flown by a child",toys,train

Rows that name the same image in the same task and split are one image with several captions, wherever they stand.
In a Parquet table a caption may be a list of captions, and the image itself may stand in the table: as bytes, or as
a struct of `bytes` and `path`, as the Hugging Face hub keeps it.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lpi_jax.data.builder import assemble
from lpi_jax.data.examples import (
    SPLITS,
    BadExample,
    Example,
    Fail,
    Identity,
    checked_captions,
    failing_at,
    kind_of,
    refuse_what_is_no_text,
    shown,
)
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats import arrow, csv_file, parquet
from lpi_jax.data.formats.arrow import Row, refuse_unless_once
from lpi_jax.data.images import ImageInFile, StoredImage
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError, reason
from lpi_jax.files import require_file
from lpi_jax.options import option, section


@dataclass(frozen=True)
class Columns:
    """The names of the columns; time and description may be '': there is none."""

    image: str
    caption: str
    task: str
    split: str
    time: str
    description: str

    def allowed(self) -> dict[str, tuple[str, ...]]:
        """What each column that is used may hold in a Parquet table."""
        kinds = {self.image: (arrow.TEXT, arrow.BYTES, arrow.STRUCT), self.caption: (arrow.TEXT, arrow.TEXTS)}
        kinds |= {self.task: (arrow.TEXT,), self.split: (arrow.TEXT,)}
        kinds |= {self.time: (arrow.TEXT, arrow.NUMBER, arrow.TIME)} if self.time else {}
        return kinds | ({self.description: (arrow.TEXT, arrow.NOTHING)} if self.description else {})


@dataclass(frozen=True)
class Fields:
    """Names of columns."""

    image: str = option("", "column or feature; '': the source's usual name")
    caption: str = option("", "column or feature; '': the source's usual name")
    task: str = option("", "column or feature; '': the source's usual name")
    split: str = option("", "column; '': split")
    time: str = option("", "column; tasks arrive in its order")
    description: str = option("", "column; '': description")

    def columns(self) -> Columns:
        """The columns, by their usual names where no other is set; time and description have none."""
        return Columns(
            self.image or "image",
            self.caption or "caption",
            self.task or "task",
            self.split or "split",
            self.time,
            self.description,
        )


@dataclass(frozen=True)
class Options(FileOptions):
    """Beside the file: its columns and what separates them."""

    fields: Fields = section(Fields)
    separator: str = option("", "between the columns of a text file; '': a comma, in a .tsv file a tab")


def table(options: Options) -> Stream:
    """Reads and checks a whole table; images are decoded only when they are asked for.

    Args:
      options: for those of all sources see `builder.assemble`.
        path: the table: Parquet if it is called .parquet or begins like one, else CSV (UTF-8, with a header); or a
          folder of Parquet files that are one table together.
        fields.image, caption, task, split: names of columns. Images are files, relative to the table's, or (Parquet)
          stand in the table, `parquet.MAX_TABLE_BYTES` at most. Split is train or val.
        fields.time: a column with numbers or ISO dates and times (UTC where they name no zone); unless `task_order` is
          given, tasks then arrive in the order of their earliest one.
        fields.description: a column that says what the task is about; the first one of a task counts.
        separator: of the columns of a CSV table: see `csv_file.separator`.

    Returns:
      The stream. Its fingerprint covers the values of all good rows, sizes and samples of the images used (those that
      stand in the table: all bytes) and the order of the tasks.

    Raises:
      UserError: a bad row (unless skipped), a task without train or val images, a missing column, a file that is no
        table (or stops being one somewhere inside), or a wrong argument.
    """
    path, columns = os.fspath(options.path), options.fields.columns()
    rows = _rows(path, columns.allowed(), columns.image, options.separator)
    return stream_of(path, rows, columns, options)


def stream_of(
    path: str,
    rows: Iterator[Row | BadExample],
    columns: Columns,
    options: FileOptions,
    *,
    parted: Callable[[list[Example | BadExample]], list[Example | BadExample]] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Stream:
    """The stream of a table's rows.

    Args:
      path: the file or folder that holds the table, for messages and names.
      rows: in the order of the stream; bad ones among them.
      columns: what is read of each.
      options: see `builder.assemble`.
      parted: gives all examples another split than their rows say; None: does not.
      notes: more for `Stream.notes`.

    Raises:
      UserError: see `table`.
    """
    digest = hashlib.sha256()
    earliest: dict[str, float] = {}
    examples: Iterable[Example | BadExample] = _examples(path, rows, columns, digest.update, earliest)
    if parted is not None:
        examples = parted(list(examples))
        digest.update(repr([example.split for example in examples if isinstance(example, Example)]).encode())
    if columns.time and not options.task_order:
        examples = list(examples)
        names = dict.fromkeys(example.task for example in examples if example.task is not None)
        in_time = sorted(names, key=lambda name: (name not in earliest, earliest.get(name)))
        options = replace(options, task_order=tuple(in_time))
    return assemble(
        path,
        examples,
        options,
        digest=digest,
        notes={"path": os.path.abspath(path), **(notes or {})},
    )


def _rows(path: str, allowed: Mapping[str, Sequence[str]], image: str, separator: str) -> Iterator[Row | BadExample]:
    if not os.path.isdir(path):
        require_file(path, "a table, a CSV or Parquet file or a folder of Parquet files")
        if not parquet.is_parquet(path):
            return _csv_rows(path, allowed, csv_file.separator(path, separator))
    if separator:
        raise UserError(f"config.data.separator is {separator!r}, but {path} is Parquet, which has none; expected ''")
    return parquet.rows(path, allowed, image)


def _examples(
    path: str,
    rows: Iterator[Row | BadExample],
    columns: Columns,
    update: Callable[[bytes], object],
    earliest: dict[str, float],
) -> Iterator[Example | BadExample]:
    """The examples of all rows; each task's earliest time is put into `earliest`."""
    identity, clock = Identity(), _Clock()
    for row in rows:
        try:
            if isinstance(row, BadExample):
                raise row
            example = _example(path, row, columns, identity)
            content: list[Any] = [example.key, *example.captions]
            if columns.time:
                fail = failing_at(example.where, example.task)
                moment = clock(_value(row, columns.time, fail), fail)
                earliest[example.task] = min(moment, earliest.get(example.task, moment))
                content.append(moment)
        except BadExample as error:
            yield error
            continue
        update(repr([*content, example.task, example.split, example.description]).encode())
        yield example


def _example(path: str, row: Row, columns: Columns, identity: Identity) -> Example:
    """The example of one row alone."""
    fail = failing_at(f"{row.source}, {row.place}")
    task = _text(row, columns.task, fail)
    fail = failing_at(f"{row.source}, {row.place}", task)
    split = _text(row, columns.split, fail)
    if split not in SPLITS:
        fail("unknown split", f"{columns.split} is {shown(split)}; expected 'train' or 'val'")
    key, image, same = _image(path, row, columns.image, identity, fail)
    captions = _value(row, columns.caption, fail)
    if captions is None:
        fail("empty cell", f"{columns.caption} is empty; expected a caption")
    description = None
    if columns.description and not _is_blank(_value(row, columns.description, fail)):
        description = _text(row, columns.description, fail)
    captions, faults = checked_captions(captions if isinstance(captions, list) else [captions], fail)
    return Example(
        source=row.source,
        place=row.place,
        key=key,
        image=image,
        captions=captions,
        faults=faults,
        task=task,
        split=split,
        identity=same,
        description=description,
    )


def _image(path: str, row: Row, column: str, identity: Identity, fail: Fail) -> tuple[str, StoredImage, str | bytes]:
    """(key, image, what equal images have in common) of a row."""
    value = _value(row, column, fail)
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        key = row.place if row.source == path else f"{os.path.relpath(row.source, path)}, {row.place}"
        return key, row.image, hashlib.sha256(value).digest()
    name = _checked_text(value, column, fail)
    file = os.path.join(os.path.dirname(row.source), name)
    return name, ImageInFile(file), identity(file)


def _value(row: Row, column: str, fail: Fail) -> Any:
    try:
        value = row.cell(column)
        if isinstance(value, str):
            value.encode()  # CSV keeps bytes that are not UTF-8 as half characters
    except UnicodeError:
        fail("not UTF-8", f"{column} holds bytes that are not UTF-8")
    except Exception as error:  # damaged Parquet
        fail("damaged value", f"{column} cannot be read ({reason(error)})")
    if isinstance(value, str):
        refuse_what_is_no_text(column, value, fail)
    return value


def _text(row: Row, column: str, fail: Fail) -> str:
    return _checked_text(_value(row, column, fail), column, fail)


def _checked_text(value: Any, column: str, fail: Fail) -> str:
    if _is_blank(value):
        fail("empty cell", f"{column} is empty; expected text")
    if not isinstance(value, str):
        fail("wrong type", f"{column} is {kind_of(value)}; expected text")
    return value


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


class _Clock:
    """Turns the values of a time column into numbers that can be compared; refuses to mix numbers and dates."""

    def __init__(self) -> None:
        self._first: str | None = None

    def __call__(self, value: Any, fail: Fail) -> float:
        said = shown(value) if isinstance(value, str) else repr(value)[:80]
        kind, moment = "a date" if isinstance(value, arrow.Moment) else "a number", math.nan
        try:
            moment = float(value)
        except (TypeError, ValueError, OverflowError):
            if isinstance(value, str):
                kind, moment = "a date", _seconds(value.strip())
        if not math.isfinite(moment):
            fail("bad time", f"time is {said}; expected a finite number or an ISO date such as 2026-03-01T12:00:00Z")
        self._first = self._first or kind
        if kind != self._first:
            fail("bad time", f"time is {said}, {kind}; rows before have {self._first}")
        return moment


def _seconds(text: str) -> float:
    """Seconds since 1970 of an ISO date; not a number if it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _csv_rows(path: str, names: Iterable[str], separator: str) -> Iterator[Row | BadExample]:
    """The rows of a CSV file that are not blank; its header must have the columns `names`."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv_file.csv_rows(path, file, separator)
            line, header = next(rows, (1, []))
            for name in names:
                refuse_unless_once(f"{path}, line {line}", name, header)
            for line, row in rows:
                place = f"line {line}"
                if any(
                    "\0" in cell for cell in row
                ):  # lost text: this may be the beginning of one row, the end of another
                    message = "the row holds a NUL character; expected text"
                    yield BadExample("NUL character", f"{path}, {place}: {message}")
                elif csv_file.holds_rows(row, separator):
                    message = "a value holds the end of one row and the beginning of the next; expected quotes in pairs"
                    yield BadExample("stray quote", f"{path}, {place}: {message}")
                elif len(row) == len(header):
                    yield Row(path, place, dict(zip(header, row, strict=True)).__getitem__)
                else:
                    message = f"the row has {len(row)} values; expected {len(header)}, as in the header"
                    yield BadExample("wrong number of values", f"{path}, {place}: {message}")
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error
