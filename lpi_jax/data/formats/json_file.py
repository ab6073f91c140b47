"""JSON files that nobody vouches for: read whole under a size limit, then asked for values of the kind expected.

Whatever looks into an entry takes `fail` (see `examples.failing_at`), which names the file and the entry.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lpi_jax.data.examples import Fail, kind_of, refuse_what_is_no_text, shown
from lpi_jax.errors import UserError
from lpi_jax.files import require_file

MAX_BYTES = 1 << 30  # COCO's largest file has about a third of this
_MOST = 2**63  # identifiers are 64-bit


def load(path: str, expected: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
      path: the file, UTF-8, at most `MAX_BYTES`.
      expected: what it should be, for messages.
      without: keys that are dropped wherever they stand, while reading, so that memory holds what is used.

    Raises:
      UserError: no such file, too large, not JSON, or no object.
    """
    try:
        require_file(path, expected)
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise UserError(f"{path}: the file has {size} bytes, more than the {MAX_BYTES} allowed")
        with open(path, encoding="utf-8-sig") as file:  # some editors put a mark at the start
            record = json.load(file, object_hook=_dropping(without) if without else None)
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the file is not UTF-8 ({error.reason}); expected {expected}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}, {place}: this is not JSON ({error.msg}); expected {expected}") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested thousands deep
        raise UserError(f"{path}: this is JSON of an absurd kind (too deep, or a number too long)") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: the file holds {kind_of(record)}, not an object; expected {expected}")
    return record


def parse(raw: bytes, what: str, example: str, fail: Fail) -> dict[str, Any]:
    """The object that a short JSON document holds.

    Args:
      raw: the document, UTF-8.
      what: its name in messages, as in "the line".
      example: what such an object looks like, for messages.
    """
    content = decoded(raw, what, fail)
    try:
        record = json.loads(content)
    except json.JSONDecodeError as error:
        fail("not JSON", f"{what} is not JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets nested thousands deep
        fail("not JSON", f"{what} is JSON of an absurd kind (too deep, or a number too long)")
    if not isinstance(record, dict):
        fail("not an object", f"{what} is {kind_of(record)}; expected an object like {example}")
    return record


def decoded(raw: bytes, what: str, fail: Fail) -> str:
    """UTF-8 as text; `what`: its name in messages."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        fail("not UTF-8", f"byte {error.start + 1} of {what} is not UTF-8")


def entries(path: str, record: dict[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    """(place, entry) of the list `record[key]`; the place is written images[3]. UserError if there is no such list."""
    items = record.get(key)
    if not isinstance(items, list):
        said = f"is {kind_of(items)}" if key in record else "is missing"
        raise UserError(f"{path}: {key} {said}; expected a list of objects")
    return ((f"{key}[{index}]", entry) for index, entry in enumerate(items))


def checked_object(entry: Any, fail: Fail) -> dict[str, Any]:
    """The entry, if it is an object."""
    if not isinstance(entry, dict):
        fail("not an object", f"this is {kind_of(entry)}; expected an object")
    return entry


def whole_number(entry: dict[str, Any], key: str, fail: Fail, least: int = 0) -> int:
    """`entry[key]`, a whole number from `least`, of at most 63 bits."""
    value = _value(entry, key, fail)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _MOST:
        fail("wrong type", f"{key} is {_told(value)}; expected a whole number from {least}")
    return value


def number(entry: dict[str, Any], key: str, fail: Fail) -> float:
    """`entry[key]`, a finite number, 0 or more."""
    value = _value(entry, key, fail)
    if not _is_number(value) or value < 0:
        fail("wrong type", f"{key} is {_told(value)}; expected a finite number, 0 or more")
    return value


def four_numbers(entry: dict[str, Any], key: str, fail: Fail) -> list[float]:
    """`entry[key]`, a list of four finite numbers."""
    value = _value(entry, key, fail)
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        told = repr(value)[:80] if isinstance(value, list) else _told(value)
        fail("wrong type", f"{key} is {told}; expected a list of four finite numbers")
    return value


def text(entry: dict[str, Any], key: str, fail: Fail) -> str:
    """`entry[key]`, a string with something in it."""
    value = string(entry, key, fail)
    if not value.strip():
        fail("wrong type", f"{key} is {_told(value)}; expected a string with something in it")
    return value


def string(entry: dict[str, Any], key: str, fail: Fail) -> str:
    """`entry[key]`, a string, which may be empty."""
    value = _value(entry, key, fail)
    if not isinstance(value, str):
        fail("wrong type", f"{key} is {_told(value)}; expected a string")
    refuse_what_is_no_text(key, value, fail)
    return value


def file_inside(folder: str, entry: dict[str, Any], key: str, fail: Fail) -> str:
    """The path of the file that `entry[key]` names, relative to `folder`, out of which it must not lead."""
    name = text(entry, key, fail)
    parts = os.path.normpath(name).split(os.sep)
    if os.path.isabs(name) or os.pardir in parts:
        fail("unsafe path", f"{key} is {shown(name)}, which leads out of {folder}; expected a file name")
    return os.path.join(folder, name)


def _value(entry: dict[str, Any], key: str, fail: Fail) -> Any:
    if key not in entry:
        fail("missing key", f"key {key!r} is missing")
    return entry[key]


def _is_number(value: Any) -> bool:
    # Not a number compares as false, and whole numbers too large for a float are too large for an image.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _told(value: Any) -> str:
    """The value itself where it is short to say, else its kind."""
    if isinstance(value, str):
        return shown(value)
    return repr(value)[:80] if isinstance(value, int | float) and not isinstance(value, bool) else kind_of(value)


def _dropping(keys: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def drop(record: dict[str, Any]) -> dict[str, Any]:
        for key in keys:
            record.pop(key, None)
        return record

    return drop
