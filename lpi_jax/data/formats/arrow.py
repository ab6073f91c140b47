"""Arrow arrays that nobody vouches for: what a column holds, in words, and its values, row by row.

Text, bytes and lists come in many Arrow types (large, view, dictionary, fixed size); to who reads a table they are one.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpi_jax.data.examples import no_such_name
from lpi_jax.data.images import MAX_BYTES, StoredImage
from lpi_jax.errors import UserError

MAX_TEXT_BYTES = 1 << 17  # of one value

# What a column may hold, in words.
TEXT, TEXTS, BYTES, STRUCT = "text", "lists of text", "bytes", "structs of bytes and path"
NUMBER, TIME, NOTHING = "numbers", "times", "nothing"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      source: the file that it is in.
      place: where in that file ("row 3").
      cell: its value by column.
      image: the one inside it, if the table holds them.
    """

    source: str
    place: str
    cell: Callable[[str], Any]
    image: StoredImage | None = None


class Moment(float):
    """Seconds since 1970. Python's own times have no nanoseconds, and end in the year 9999."""


def refuse_unless_once(where: str, name: str, names: Sequence[str]) -> None:
    """Refuses a table whose columns `names` do not hold `name` exactly once."""
    if name not in names:
        raise no_such_name(where, "column", name, names)
    if names.count(name) > 1:
        raise UserError(f"{where}: column {name!r} stands {names.count(name)} times; expected it once")


def checked_kinds(path: str, schema: Any, allowed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What each column that is used holds; refuses those that are missing or hold something else than `allowed`."""
    for name in allowed:
        refuse_unless_once(path, name, schema.names)
    kinds = {name: _kind(schema.field(name).type) for name in allowed}
    for name, expected in allowed.items():
        if kinds[name] not in expected:
            raise UserError(f"{path}: column {name!r} holds {kinds[name]}; expected {' or '.join(expected)}")
    return kinds


def refuse_long_values(where: str, batch: Any, images: str | None) -> None:
    """Before a single one is copied: each row would get a copy of its own. `images`: the column that holds them."""
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        longest, most = _longest(array), MAX_BYTES if name == images else MAX_TEXT_BYTES
        if longest > most:
            raise UserError(f"{where}: column {name!r} has a value of {longest} bytes; at most {most}")


def cells(batch: Any) -> Iterator[Callable[[str], Any]]:
    """Each row of a batch as a function: name of a column -> value, which may raise nearly anything if damaged."""
    return (functools.partial(_cell, batch, index) for index in range(batch.num_rows))


def _cell(batch: Any, index: int, name: str) -> Any:
    from pyarrow import types

    value = batch.column(name)[index]
    return _moment(value) if types.is_temporal(value.type) else value.as_py()


def _moment(value: Any) -> Moment | None:
    """A date or time, whatever it is counted in: the files of one table may differ in that."""
    from pyarrow import types

    if value.value is None:
        return None
    if types.is_date32(value.type):
        return Moment(value.value * 86_400)
    a_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    return Moment(value.value / a_second["ms" if types.is_date64(value.type) else value.type.unit])


def _kind(arrow_type: Any) -> str:
    """In words, what a column of an Arrow type holds."""
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        return _kind(arrow_type.value_type)
    if types.is_struct(arrow_type):
        named = {field.name: _kind(field.type) for field in arrow_type}
        inside = named.get("bytes") in (BYTES, NOTHING) and named.get("path") in (None, TEXT, NOTHING)
        return STRUCT if inside else str(arrow_type)
    if _is_list(arrow_type):
        return TEXTS if _kind(arrow_type.value_type) == TEXT else str(arrow_type)
    known = {
        TEXT: (types.is_string, types.is_large_string, types.is_string_view),
        BYTES: (types.is_binary, types.is_large_binary, types.is_binary_view),
        NUMBER: (types.is_integer, types.is_floating, types.is_decimal),
        TIME: (types.is_timestamp, types.is_date),
        NOTHING: (types.is_null,),
    }
    return next((kind for kind, tests in known.items() if any(test(arrow_type) for test in tests)), str(arrow_type))


def _is_list(arrow_type: Any) -> bool:
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(arrow_type) for test in tests)


def _longest(array: Any) -> int:
    """Bytes of the longest text or bytes in an Arrow array, down in its lists and structs."""
    import numpy as np
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_dictionary(array.type):
        return _longest(array.dictionary)
    if types.is_struct(array.type):
        return max(map(_longest, array.flatten()), default=0)
    if _is_list(array.type):
        return _longest(array.values)
    if types.is_string_view(array.type) or types.is_binary_view(array.type):  # 16 bytes each, the length in front
        views = array.buffers()[1]
        return 0 if views is None else int(np.frombuffer(views, np.int32)[::4].max(initial=0))
    return (pc.max(pc.binary_length(array)).as_py() or 0) if _kind(array.type) in (TEXT, BYTES) else 0
