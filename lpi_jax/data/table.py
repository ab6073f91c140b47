"""A stream from a table, CSV or Parquet, with one row per caption or per picture.

    image,caption,task,split
    pictures/0001.jpg,a red kite,toys,train
    pictures/0001.jpg,"a kite, flown by a child",toys,train

Rows that name the same picture in the same task and split are one picture with several captions, wherever they stand.
In a Parquet table a caption may be a list of captions, and the picture itself may stand in the table: as bytes, or as
a struct of `bytes` and `path`, as the Hugging Face hub keeps it.
"""

import csv
import difflib
import functools
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TextIO

import numpy as np

from lpi_jax.data.examples import (
    SPLITS,
    BadExample,
    Example,
    Fail,
    assemble,
    checked_captions,
    failing_at,
    kind_of,
    shown,
)
from lpi_jax.data.jsonl import Identity
from lpi_jax.data.pictures import (
    MAX_BYTES,
    MAX_PIXELS,
    MISSING,
    UNREADABLE,
    BadImage,
    Picture,
    PictureFile,
    check_image,
    read_image,
)
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError

MAX_LINE = 1_000_000  # characters of a line of CSV; of one value, the csv module allows 131,072
MAX_TEXT_BYTES = 1 << 17  # of one value in a Parquet table
MAX_TABLE_BYTES = 1 << 30  # of a Parquet table with pictures in it, which stay in memory; of a row group without

_BATCH = 256  # rows of a Parquet table that are in memory at a time
_ROWS_PER_BYTE = 16  # more, and nearly all rows of a Parquet table must be the same
_TEXT, _TEXTS, _BYTES, _STRUCT = "text", "lists of text", "bytes", "structs of bytes and path"
_NUMBER, _TIME, _NOTHING = "numbers", "times", "nothing"


@dataclass(frozen=True)
class _Columns:
    """The names of the columns; time and description may be '': there is none."""

    image: str
    caption: str
    task: str
    split: str
    time: str
    description: str

    def allowed(self) -> dict[str, tuple[str, ...]]:
        """What each column that is used may hold in a Parquet table."""
        found = {self.image: (_TEXT, _BYTES, _STRUCT), self.caption: (_TEXT, _TEXTS)}
        found |= {self.task: (_TEXT,), self.split: (_TEXT,)}
        found |= {self.time: (_TEXT, _NUMBER, _TIME)} if self.time else {}
        return found | ({self.description: (_TEXT, _NOTHING)} if self.description else {})


@dataclass(frozen=True)
class _Row:
    """One row: where it stands, its value by column, and the picture inside it if the table holds pictures."""

    place: str
    cell: Callable[[str], Any]
    picture: Picture | None = None


def table(
    path: str | os.PathLike,
    *,
    image: str = "image",
    caption: str = "caption",
    task: str = "task",
    split: str = "split",
    time: str = "",
    description: str = "",
    task_order: Sequence[str] = (),
    on_bad_example: str = "error",
    max_pixels: int = MAX_PIXELS,
) -> Stream:
    """Reads and checks a whole table; pictures are decoded only when they are asked for.

    Args:
      path: the table: Parquet if it is called .parquet or begins like one, else CSV (UTF-8, commas, a header).
      image, caption, task, split: names of columns. Pictures are files, relative to the table, or (Parquet) stand in
        the table, `MAX_TABLE_BYTES` at most. Split is train or val.
      time: a column with numbers or ISO dates and times (UTC where they name no zone); unless `task_order` is given,
        tasks then arrive in the order of their earliest one.
      description: a column that says what the task is about; the first one of a task counts.
      task_order, on_bad_example, max_pixels: see `examples.assemble`.

    Returns:
      The stream. Its fingerprint covers the values of all good rows, the sizes of the pictures used and the order of
      the tasks.

    Raises:
      UserError: a bad row (unless skipped), a task without train or val pictures, a missing column, a file that is no
        table (or stops being one somewhere inside), or a wrong argument.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file; expected a table, CSV or Parquet")
    columns = _Columns(image, caption, task, split, time, description)
    digest = hashlib.sha256()
    rows = _parquet_rows(path, columns) if _is_parquet(path) else _csv_rows(path, columns)
    found, earliest = _gathered(path, rows, columns, digest.update)
    if earliest and not task_order:
        names = dict.fromkeys(example.task for example in found if example.task is not None)
        task_order = sorted(names, key=lambda name: (name not in earliest, earliest.get(name)))
    return assemble(
        path,
        found,
        task_order=task_order,
        on_bad_example=on_bad_example,
        max_pixels=max_pixels,
        digest=digest,
        notes={"path": os.path.abspath(path)},
    )


def no_such_name(where: str, kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a column or the like that does not exist: it names the closest one and lists what there is."""
    close = difflib.get_close_matches(name, known, 1, 0.0)
    listed = ", ".join(map(shown, known[:20])) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    hint = f"the closest is {shown(close[0])}, of {listed}" if close else "there is none at all"
    return UserError(f"{where}: there is no {kind} {name!r}; {hint}")


def _gathered(
    path: str, rows: Iterator[_Row | BadExample], columns: _Columns, update: Callable[[bytes], object]
) -> tuple[list[Example | BadExample], dict[str, float]]:
    """Examples, each with the captions of all its rows, where its first row stands; each task's earliest time."""
    identity, clock = Identity(), _Clock()
    found: list[Example | BadExample] = []
    captions: dict[tuple, list[str]] = {}
    earliest: dict[str, float] = {}
    for row in rows:
        try:
            if isinstance(row, BadExample):
                raise row
            example = _example(path, row, columns, identity)
            key, content = (example.task, example.split, example.identity), [example.key, *example.captions]
            if columns.time:
                fail = failing_at(example.where, example.task)
                moment = clock(_value(row, columns.time, fail), fail)
                earliest[example.task] = min(moment, earliest.get(example.task, moment))
                content.append(moment)
        except BadExample as error:
            found.append(error)
            continue
        if isinstance(example.identity, bytes):  # a picture inside the table, by its hash
            content.append(example.identity)
        update(repr([*content, example.task, example.split, example.description]).encode())
        if key not in captions:
            captions[key] = []
            found.append(example)
        captions[key] += example.captions
    for index, example in enumerate(found):
        if isinstance(example, Example):
            own = captions[example.task, example.split, example.identity]
            found[index] = replace(example, captions=tuple(own))
    return found, earliest


def _example(path: str, row: _Row, columns: _Columns, identity: Identity) -> Example:
    """The example of one row alone."""
    fail = failing_at(f"{path}, {row.place}")
    task = _text(row, columns.task, fail)
    fail = failing_at(f"{path}, {row.place}", task)
    split = _text(row, columns.split, fail)
    if split not in SPLITS:
        fail("unknown split", f"{columns.split} is {shown(split)}; expected 'train' or 'val'")
    key, picture, same = _picture(path, row, columns.image, identity, fail)
    captions = _value(row, columns.caption, fail)
    if captions is None:
        fail("empty cell", f"{columns.caption} is empty; expected a caption")
    description = None
    if columns.description and not _is_blank(_value(row, columns.description, fail)):
        description = _text(row, columns.description, fail)
    return Example(
        source=path,
        place=row.place,
        key=key,
        picture=picture,
        captions=checked_captions(captions if isinstance(captions, list) else [captions], fail),
        task=task,
        split=split,
        identity=same,
        description=description,
    )


def _picture(path: str, row: _Row, column: str, identity: Identity, fail: Fail) -> tuple[str, Picture, str | bytes]:
    """(key, picture, what equal pictures have in common) of a row."""
    value = _value(row, column, fail)
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return row.place, row.picture, hashlib.sha256(value).digest()
    name = _checked_text(value, column, fail)
    file = os.path.join(os.path.dirname(path), name)
    return name, PictureFile(file), identity(file)


def _value(row: _Row, column: str, fail: Fail) -> Any:
    try:
        value = row.cell(column)
        if isinstance(value, str):
            value.encode()  # CSV keeps bytes that are not UTF-8 as half characters
    except UnicodeError:
        fail("not UTF-8", f"{column} holds bytes that are not UTF-8")
    except Exception as error:  # damaged Parquet
        fail("damaged value", f"{column} cannot be read ({_reason(error)})")
    return value


def _text(row: _Row, column: str, fail: Fail) -> str:
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
        kind, moment = "a number", math.nan
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


def _csv_rows(path: str, columns: _Columns) -> Iterator[_Row | BadExample]:
    """The rows of a CSV file that are not blank.

    A mistake in the quoting is no bad row but the end: from there on nobody can tell which value belongs to which row.
    """
    reader = None
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(_lines(path, file), strict=True)
            header = next(reader, [])
            for name in columns.allowed():
                _refuse_unless_once(f"{path}, line 1", name, header)
            line = reader.line_num + 1
            for row in reader:
                place, line = f"line {line}", reader.line_num + 1
                if not any(map(str.strip, row)):
                    continue
                if len(row) == len(header):
                    yield _Row(place, dict(zip(header, row, strict=True)).__getitem__)
                else:
                    message = f"the row has {len(row)} values; expected {len(header)}, as in the header"
                    yield BadExample("wrong number of values", f"{path}, {place}: {message}")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: from here on this is not CSV ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error


def _lines(path: str, file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise UserError(f"{path}, line {number}: the line has more than {MAX_LINE} characters")
        yield line


def _refuse_unless_once(where: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise no_such_name(where, "column", name, names)
    if names.count(name) > 1:
        raise UserError(f"{where}: column {name!r} stands {names.count(name)} times; expected it once")


def _is_parquet(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return path.lower().endswith(".parquet") or file.read(4) == b"PAR1"
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error


def _parquet_rows(path: str, columns: _Columns) -> Iterator[_Row]:
    """The rows of a Parquet table, read a few at a time; of its columns only those that are used."""
    number, names = 0, list(columns.allowed())
    try:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            metadata, inside = file.metadata, _checked_schema(path, file.schema_arrow, columns)
        leaves = _checked_leaves(path, metadata, names, inside is not None)
        # As dictionaries: a value that is repeated, in a file of a few bytes, does not fill the memory.
        with pq.ParquetFile(path, read_dictionary=leaves, page_checksum_verification=True) as file:
            for group in range(metadata.num_row_groups):
                first = number
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=names):
                    batch.validate()
                    _refuse_long_values(f"{path}, from row {number + 1} on", batch, columns.image if inside else None)
                    for index in range(batch.num_rows):
                        place, own, number = f"row {number + 1}", number - first, number + 1
                        picture = PictureInTable(path, inside, group, own, place) if inside else None
                        yield _Row(place, functools.partial(_cell, batch, index), picture)
    except UserError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise UserError(f"{path}, after row {number}: the file cannot be read as Parquet ({_reason(error)})") from error


def _checked_schema(path: str, schema: Any, columns: _Columns) -> str | None:
    """Refuses columns that are missing or of the wrong type; where pictures stand in the table, their leaf column."""
    for name in columns.allowed():
        _refuse_unless_once(path, name, schema.names)
    kinds = {name: _kind(schema.field(name).type) for name in columns.allowed()}
    for name, allowed in columns.allowed().items():
        if kinds[name] not in allowed:
            raise UserError(f"{path}: column {name!r} holds {kinds[name]}; expected {' or '.join(allowed)}")
    return {_BYTES: columns.image, _STRUCT: f"{columns.image}.bytes"}.get(kinds[columns.image])


def _kind(found: Any) -> str:
    """In words, what a column of an Arrow type holds."""
    from pyarrow import types

    if types.is_dictionary(found):
        return _kind(found.value_type)
    if types.is_struct(found):
        named = {field.name: _kind(field.type) for field in found}
        inside = named.get("bytes") in (_BYTES, _NOTHING) and named.get("path") in (None, _TEXT, _NOTHING)
        return _STRUCT if inside else str(found)
    if types.is_list(found) or types.is_large_list(found):
        return _TEXTS if _kind(found.value_type) == _TEXT else str(found)
    known = {
        _TEXT: (types.is_string, types.is_large_string),
        _BYTES: (types.is_binary, types.is_large_binary),
        _NUMBER: (types.is_integer, types.is_floating, types.is_decimal),
        _TIME: (types.is_timestamp, types.is_date),
        _NOTHING: (types.is_null,),
    }
    return next((kind for kind, tests in known.items() if any(test(found) for test in tests)), str(found))


def _checked_leaves(path: str, metadata: Any, names: Sequence[str], inside: bool) -> list[str]:
    """Paths of the columns, down in lists and structs, that hold texts or bytes; refuses what is too large.

    Only row groups are asked for their size: pyarrow aborts the process if a single column's description is damaged.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows, file_size = sum(group.num_rows for group in groups), os.path.getsize(path)
    if rows > _ROWS_PER_BYTE * file_size:
        raise UserError(f"{path}: the table says that it has {rows} rows, in {file_size} bytes")
    sizes = [group.total_byte_size for group in groups]
    if (size := sum(sizes) if inside else max(sizes, default=0)) > MAX_TABLE_BYTES:
        what = "with its pictures the table" if inside else "a row group of the table"
        raise UserError(
            f"{path}: {what} has {size} bytes, more than the {MAX_TABLE_BYTES} that may be kept in memory; expected"
            f" {'paths of picture files, or tar shards' if inside else 'smaller row groups'}"
        )
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    used = [leaf for leaf in leaves if any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in names)]
    return [leaf.path for leaf in used if leaf.physical_type == "BYTE_ARRAY"]


def _refuse_long_values(where: str, batch: Any, pictures: str | None) -> None:
    """Before a single one is copied: each row would get a copy of its own. `pictures`: the column that holds them."""
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        longest, most = _longest(array), MAX_BYTES if name == pictures else MAX_TEXT_BYTES
        if longest > most:
            raise UserError(f"{where}: column {name!r} has a value of {longest} bytes; at most {most}")


def _longest(array: Any) -> int:
    """Bytes of the longest text or bytes in an Arrow array, down in its lists and structs."""
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_dictionary(array.type):
        return _longest(array.dictionary)
    if types.is_struct(array.type):
        return max(map(_longest, array.flatten()), default=0)
    if types.is_list(array.type) or types.is_large_list(array.type):
        return _longest(array.values)
    return (pc.max(pc.binary_length(array)).as_py() or 0) if _kind(array.type) in (_TEXT, _BYTES) else 0


def _cell(batch: Any, index: int, name: str) -> Any:
    from pyarrow import types

    value = batch.column(name)[index]
    # Times as numbers: Python's have no nanoseconds, and end in the year 9999.
    return value.value if types.is_temporal(value.type) else value.as_py()


@dataclass(frozen=True, slots=True)
class PictureInTable:
    """A picture inside a Parquet table: the leaf column it is in, its row group and its row there, its name."""

    path: str
    column: str
    group: int
    row: int
    name: str

    def read(self, max_pixels: int) -> np.ndarray:
        return read_image(self._bytes(), max_pixels, self._called)

    def check(self, max_pixels: int) -> int:
        return check_image(self._bytes(), max_pixels, self._called)

    @property
    def _called(self) -> str:
        return f"{self.path}, {self.name}"

    def _bytes(self) -> bytes:
        try:
            changed = os.stat(self.path).st_mtime_ns
            with _reading:
                values = _row_group(self.path, changed, self.column, self.group)
            value = values[self.row].as_py()
        except OSError as error:
            raise BadImage(MISSING, f"{self._called}: the file cannot be read ({error.strerror})") from error
        except Exception as error:  # damaged files raise nearly anything
            raise BadImage(UNREADABLE, f"{self._called}: the row cannot be read ({_reason(error)})") from error
        if isinstance(value, dict):
            value = value["bytes"]
        if value is None:
            raise BadImage(MISSING, f"{self._called}: the row holds no picture")
        return value


_reading = threading.Lock()  # or all threads would read the same row group at the same time


@functools.lru_cache(maxsize=1 << 12)  # a whole table of the largest size allowed
def _row_group(path: str, changed: int, column: str, group: int) -> Any:
    """The values of one column in one row group, encoded as they are. `changed` tells files of one name apart."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, read_dictionary=[column]) as file:
        return file.read_row_group(group, columns=[column]).column(0)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
