"""The rows of a Parquet table, a few in memory at a time; the images inside it stay encoded until they are asked for.

A file that is damaged, or that was made to fill the memory, ends in a `UserError`.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpi_jax.data.formats.arrow import BYTES, STRUCT, Row, cells, checked_kinds, refuse_long_values
from lpi_jax.data.formats.file_tree import files
from lpi_jax.data.images import MISSING, UNREADABLE, BadImage, EmbeddedImage
from lpi_jax.errors import UserError, reason

MAX_TABLE_BYTES = 1 << 30  # of a table with images in it, which stay in memory; of a row group without

_BATCH = 256  # rows that are in memory at a time
_ROWS_PER_BYTE = 16  # more, and nearly all rows must be the same


def is_parquet(path: str) -> bool:
    """Whether a file is called .parquet or begins like one."""
    try:
        with open(path, "rb") as file:
            return path.lower().endswith(".parquet") or file.read(4) == b"PAR1"
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error


def rows(path: str, allowed: Mapping[str, Sequence[str]], image: str) -> Iterator[Row]:
    """The rows of a table, file after file.

    Args:
      path: the table, or a folder of files that are one table together (`*.parquet`, in the order of their names).
      allowed: the columns that are used, each with the kinds of values that it may hold; others are not read.
      image: the column among them in which images may stand: as bytes, or as a struct of bytes and path.

    Raises:
      UserError: a folder without such files, a column that is missing or of another kind, a table that is too large, or
        a damaged file, when its rows come to the damage. A single value may raise nearly anything when its cell is
        asked for.
    """
    parts = [_checked(file, allowed, image) for file in _files(path)]
    if (size := sum(part.size for part in parts if part.inside)) > MAX_TABLE_BYTES:
        raise _too_large(path, "with its images the table", size, "paths of image files, or tar shards")
    for part in parts:
        yield from _rows(part, list(allowed), image)


@dataclass(frozen=True)
class _Part:
    """One file of a table: the leaf column that holds images (None: none does), those of text or bytes, its size."""

    path: str
    inside: str | None
    leaves: tuple[str, ...]
    size: int
    groups: int


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    paths = [os.path.join(path, name) for name in files(path)[0] if name.lower().endswith(".parquet")]
    if not paths:
        raise UserError(f"{path}: there is no file *.parquet in this folder; expected a table, CSV or Parquet")
    return paths


def _checked(path: str, allowed: Mapping[str, Sequence[str]], image: str) -> _Part:
    """Refuses a file without the columns, or with too much in it.

    Only row groups are asked for their size: pyarrow aborts the process if a single column's description is damaged.
    """
    with _damage_told(path, lambda: 0):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            metadata, kinds = file.metadata, checked_kinds(path, file.schema_arrow, allowed)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        count, file_size = sum(group.num_rows for group in groups), os.path.getsize(path)
        if count > _ROWS_PER_BYTE * file_size:
            raise UserError(f"{path}: the table says that it has {count} rows, in {file_size} bytes")
        inside = {BYTES: image, STRUCT: f"{image}.bytes"}.get(kinds[image])
        sizes = [group.total_byte_size for group in groups]
        if not inside and (size := max(sizes, default=0)) > MAX_TABLE_BYTES:
            raise _too_large(path, "a row group of the table", size, "smaller row groups")
        columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
        used = (one for one in columns if any(one.path == name or one.path.startswith(f"{name}.") for name in allowed))
        leaves = tuple(one.path for one in used if one.physical_type == "BYTE_ARRAY")
    return _Part(path, inside, leaves, sum(sizes), len(groups))


def _rows(part: _Part, names: list[str], image: str) -> Iterator[Row]:
    number = 0
    with _damage_told(part.path, lambda: number):
        import pyarrow.parquet as pq

        # As dictionaries: a value that is repeated, in a file of a few bytes, does not fill the memory.
        with pq.ParquetFile(part.path, read_dictionary=part.leaves, page_checksum_verification=True) as file:
            for group in range(part.groups):
                first = number
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=names):
                    batch.validate()
                    refuse_long_values(f"{part.path}, from row {number + 1} on", batch, image if part.inside else None)
                    for cell in cells(batch):
                        place, row, number = f"row {number + 1}", number - first, number + 1
                        stored = ImageInTable(part.path, part.inside, group, row, place) if part.inside else None
                        yield Row(part.path, place, cell, stored)


def _too_large(path: str, what: str, size: int, expected: str) -> UserError:
    return UserError(
        f"{path}: {what} has {size} bytes, more than the {MAX_TABLE_BYTES} that may be kept in memory; expected"
        f" {expected}"
    )


@contextlib.contextmanager
def _damage_told(path: str, row: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise UserError(f"{path}, after row {row()}: the file cannot be read as Parquet ({reason(error)})") from error


@dataclass(frozen=True, slots=True)
class ImageInTable(EmbeddedImage):
    """An image inside a Parquet table: the leaf column it is in, its row group and its row there, its name."""

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
            raise BadImage(MISSING, f"{self._called}: the row holds no image")
        return value


_reading = threading.Lock()  # or all threads would read the same row group at the same time


@functools.lru_cache(maxsize=1 << 12)  # a whole table of the largest size allowed
def _row_group(path: str, changed: int, column: str, group: int) -> Any:
    """The values of one column in one row group, encoded as they are. `changed` tells files of one name apart."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, read_dictionary=[column]) as file:
        return file.read_row_group(group, columns=[column]).column(0)
