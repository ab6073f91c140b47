"""The rows of a Parquet table, a few in memory at a time; the pictures inside it stay encoded until they are asked for.

A file that is damaged, or that was made to fill the memory, ends in a `UserError`.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpi_jax.data.examples import no_such_name
from lpi_jax.data.pictures import MAX_BYTES, MISSING, UNREADABLE, BadImage, Picture, StoredPicture
from lpi_jax.errors import UserError, reason

MAX_TEXT_BYTES = 1 << 17  # of one value
MAX_TABLE_BYTES = 1 << 30  # of a table with pictures in it, which stay in memory; of a row group without

# What a column may hold, in words.
TEXT, TEXTS, BYTES, STRUCT = "text", "lists of text", "bytes", "structs of bytes and path"
NUMBER, TIME, NOTHING = "numbers", "times", "nothing"

_BATCH = 256  # rows that are in memory at a time
_ROWS_PER_BYTE = 16  # more, and nearly all rows must be the same


@dataclass(frozen=True)
class Row:
    """One row of a table: where it stands, its value by column, and the picture inside it if the table holds them."""

    place: str
    cell: Callable[[str], Any]
    picture: Picture | None = None


def is_parquet(path: str) -> bool:
    """Whether a file is called .parquet or begins like one."""
    try:
        with open(path, "rb") as file:
            return path.lower().endswith(".parquet") or file.read(4) == b"PAR1"
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error


def rows(path: str, allowed: Mapping[str, Sequence[str]], image: str) -> Iterator[Row]:
    """The rows of a table.

    Args:
      path: the table.
      allowed: the columns that are used, each with the kinds of values that it may hold; others are not read.
      image: the column among them in which pictures may stand: as bytes, or as a struct of bytes and path.

    Raises:
      UserError: a column that is missing or of another kind, a table that is too large, or a damaged file, when its
        rows come to the damage. A single value may raise nearly anything when its cell is asked for.
    """
    number, names = 0, list(allowed)
    try:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            metadata, inside = file.metadata, _checked_schema(path, file.schema_arrow, allowed, image)
        leaves = _checked_leaves(path, metadata, names, inside is not None)
        # As dictionaries: a value that is repeated, in a file of a few bytes, does not fill the memory.
        with pq.ParquetFile(path, read_dictionary=leaves, page_checksum_verification=True) as file:
            for group in range(metadata.num_row_groups):
                first = number
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=names):
                    batch.validate()
                    _refuse_long_values(f"{path}, from row {number + 1} on", batch, image if inside else None)
                    for index in range(batch.num_rows):
                        place, own, number = f"row {number + 1}", number - first, number + 1
                        picture = PictureInTable(path, inside, group, own, place) if inside else None
                        yield Row(place, functools.partial(_cell, batch, index), picture)
    except UserError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise UserError(f"{path}, after row {number}: the file cannot be read as Parquet ({reason(error)})") from error


def refuse_unless_once(where: str, name: str, names: Sequence[str]) -> None:
    """Refuses a table whose columns `names` do not hold `name` exactly once."""
    if name not in names:
        raise no_such_name(where, "column", name, names)
    if names.count(name) > 1:
        raise UserError(f"{where}: column {name!r} stands {names.count(name)} times; expected it once")


def _checked_schema(path: str, schema: Any, allowed: Mapping[str, Sequence[str]], image: str) -> str | None:
    """Refuses columns that are missing or of the wrong kind; where pictures stand in the table, their leaf column."""
    for name in allowed:
        refuse_unless_once(path, name, schema.names)
    kinds = {name: _kind(schema.field(name).type) for name in allowed}
    for name, expected in allowed.items():
        if kinds[name] not in expected:
            raise UserError(f"{path}: column {name!r} holds {kinds[name]}; expected {' or '.join(expected)}")
    return {BYTES: image, STRUCT: f"{image}.bytes"}.get(kinds[image])


def _kind(found: Any) -> str:
    """In words, what a column of an Arrow type holds."""
    from pyarrow import types

    if types.is_dictionary(found):
        return _kind(found.value_type)
    if types.is_struct(found):
        named = {field.name: _kind(field.type) for field in found}
        inside = named.get("bytes") in (BYTES, NOTHING) and named.get("path") in (None, TEXT, NOTHING)
        return STRUCT if inside else str(found)
    if types.is_list(found) or types.is_large_list(found):
        return TEXTS if _kind(found.value_type) == TEXT else str(found)
    known = {
        TEXT: (types.is_string, types.is_large_string),
        BYTES: (types.is_binary, types.is_large_binary),
        NUMBER: (types.is_integer, types.is_floating, types.is_decimal),
        TIME: (types.is_timestamp, types.is_date),
        NOTHING: (types.is_null,),
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
    return (pc.max(pc.binary_length(array)).as_py() or 0) if _kind(array.type) in (TEXT, BYTES) else 0


def _cell(batch: Any, index: int, name: str) -> Any:
    from pyarrow import types

    value = batch.column(name)[index]
    # Times as numbers: Python's have no nanoseconds, and end in the year 9999.
    return value.value if types.is_temporal(value.type) else value.as_py()


@dataclass(frozen=True, slots=True)
class PictureInTable(StoredPicture):
    """A picture inside a Parquet table: the leaf column it is in, its row group and its row there, its name."""

    path: str
    column: str
    group: int
    row: int
    name: str

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
            raise BadImage(UNREADABLE, f"{self._called}: the row cannot be read ({reason(error)})") from error
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
