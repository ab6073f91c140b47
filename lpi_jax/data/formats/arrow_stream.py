"""The rows of an Arrow stream file, as `datasets` saves them. The file is mapped: images stay where they are.

A file that is damaged, or that was made to fill the memory, ends in a `UserError`.
"""

import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lpi_jax.data.formats.arrow import BYTES, STRUCT, Row, cells, checked_kinds, refuse_long_values
from lpi_jax.data.images import ImageInside
from lpi_jax.errors import UserError, reason
from lpi_jax.files import require_file

# Numbers of fields in Arrow's flatbuffers (format/Message.fbs)
_HEADER, _DATA_OF_DICTIONARY, _COMPRESSION = 2, 1, 3


def columns(path: str) -> list[str]:
    """The names of the columns. Raises UserError like `rows`."""
    with _opened(path, lambda: 0) as (reader, _):
        return reader.schema.names


def rows(path: str, allowed: Mapping[str, Sequence[str]], image: str) -> Iterator[Row]:
    """The rows of a file.

    Args:
      path: the file.
      allowed: the columns that are used, each with the kinds of values that it may hold; others are not looked at.
      image: the column among them in which images may stand: as bytes, or as a struct of bytes and path.

    Raises:
      UserError: no such file, a column that is missing or of another kind, or a damaged file, when its rows come to the
        damage. A single value may raise nearly anything when its cell is asked for.
    """
    number, names = 0, list(allowed)
    with _opened(path, lambda: number) as (reader, mapped):
        inside = checked_kinds(path, reader.schema, allowed)[image] in (BYTES, STRUCT)
        for batch in reader:
            batch = batch.select(names)
            batch.validate(full=True)  # or values that say to lie elsewhere would be read from there
            refuse_long_values(f"{path}, from row {number + 1} on", batch, image if inside else None)
            spans = _spans(path, image, batch.column(image), mapped) if inside else itertools.repeat(None)
            for cell, span in zip(cells(batch), spans, strict=False):
                place = f"row {number + 1}"
                yield Row(path, place, cell, ImageInside(path, *span, place) if span else None)
                number += 1


@contextlib.contextmanager
def _opened(path: str, row: Callable[[], int]) -> Iterator[tuple[Any, Any]]:
    """(a reader of the file's batches, the file's bytes, mapped), and one sentence for whatever is wrong with it."""
    require_file(path, "an Arrow file of a data set that was saved")
    try:
        import pyarrow as pa

        with pa.memory_map(path) as file:
            mapped = file.read_buffer()
            for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(mapped)):
                if message.type != "schema" and _is_compressed(message.metadata.to_pybytes(), message.type):
                    raise UserError(f"{path}: the rows are compressed; expected them as save_to_disk writes them")
            with pa.ipc.open_stream(pa.BufferReader(mapped)) as reader:
                yield reader, mapped
    except UserError:
        raise
    except Exception as error:  # damaged files raise nearly anything
        raise UserError(
            f"{path}, after row {row()}: the file cannot be read as an Arrow stream ({reason(error)})"
        ) from error


def _spans(path: str, column: str, array: Any, mapped: Any) -> Iterator[tuple[int, int] | None]:
    """(offset in the file, size) of each row's image; None where there is none."""
    import numpy as np
    from pyarrow import types

    valid = array.is_valid().to_pylist()
    if types.is_struct(array.type):
        array = array.field("bytes")
        valid = [both and one for both, one in zip(valid, array.is_valid().to_pylist(), strict=True)]
    if not any(valid):
        return iter([None] * len(valid))
    if not (types.is_binary(array.type) or types.is_large_binary(array.type)):
        raise UserError(f"{path}: column {column!r} holds images as {array.type}; expected binary")
    _, places, content = array.buffers()
    kind = np.int64 if types.is_large_binary(array.type) else np.int32
    ends = np.frombuffer(places, kind)[array.offset : array.offset + len(array) + 1].tolist()
    first = content.address - mapped.address if content is not None and content.size else 0
    if not 0 <= first <= mapped.size - ends[-1]:
        raise ValueError("its images lie elsewhere")
    spans = ((first + start, end - start) for start, end in itertools.pairwise(ends))
    return (span if there else None for span, there in zip(spans, valid, strict=True))


def _is_compressed(metadata: bytes, kind: str) -> bool:
    """Whether a message holds compressed arrays, which grow without a limit when they are read.

    pyarrow does not tell, but reads on: so the field is looked up in the message's flatbuffer.
    """
    batch = _table(metadata, _field(metadata, _table(metadata, 0), _HEADER))
    if kind == "dictionary":
        batch = _table(metadata, _field(metadata, batch, _DATA_OF_DICTIONARY))
    return _field(metadata, batch, _COMPRESSION) != 0


def _table(raw: bytes, place: int) -> int:
    """Where the table begins that an offset at `place` leads to."""
    return place + struct.unpack_from("<I", raw, place)[0]


def _field(raw: bytes, table: int, number: int) -> int:
    """Where a field of a table stands; 0: nowhere."""
    names = table - struct.unpack_from("<i", raw, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", raw, names)[0]:
        return 0
    offset = struct.unpack_from("<H", raw, names + place)[0]
    return table + offset if offset else 0
