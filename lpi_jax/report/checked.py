"""Values from JSON, checked and converted; a TypeError or ValueError where a value is not as a run writes it."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.terminal.plain_text import plain

MOST = 1e15  # of any number; what is larger would overflow in averages
MOST_BYTES = 1 << 28  # of a results.json; a thousand tasks have a tenth of it
PER_CENT = "%"  # the unit whose numbers have bounds


def json_file(path: Path) -> Any:
    """What a JSON file holds. Raises UserError where it cannot be read or is no JSON."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path} has {size} bytes; expected what a run writes, at most {MOST_BYTES}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected the directory of a run") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error


def number(value: Any) -> float:
    """A finite number of a size that a run can measure."""
    converted = float(value)
    if not abs(converted) < MOST:
        raise ValueError(f"{converted} is no number that a run measures")
    return converted


def count(value: Any, least: int = 0) -> int:
    """A whole number."""
    if not isinstance(value, int) or not least <= value < MOST:
        raise ValueError(f"expected a count of at least {least}")
    return value


def a_list(value: Any) -> list[Any]:
    """A list, not a string or another sequence."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, not {type(value).__name__}")
    return value


def a_dict(value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {type(value).__name__}")
    return value


def text(value: Any) -> str:
    """A word or a few, in one line."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return plain(value)


def truth(value: Any) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, not {type(value).__name__}")
    return value


def per_task(values: Any, tasks: int, least: int = 0) -> list[int]:
    """[T] counts, at least `least` each; what a list says of tasks to come is left out."""
    counts = [count(value, least) for value in a_list(values)[:tasks]]
    if len(counts) != tasks:
        raise ValueError("not a count per task")
    return counts


def triangle(rows: Sequence[Sequence[float]], tasks: int, unit: str) -> np.ndarray:
    """[T, T] matrix R[s][t] in `unit` from rows of s + 1 values; NaN for t > s."""
    if len(rows) != tasks or not tasks or any(len(row) != s + 1 for s, row in enumerate(rows)):
        raise ValueError("not a row of values per task")
    matrix = np.full((tasks, tasks), np.nan)
    for s, row in enumerate(rows):
        matrix[s, : s + 1] = [number(value) for value in row]
    if unit == PER_CENT and (np.nanmin(matrix) < 0 or np.nanmax(matrix) > 100):
        raise ValueError("a value is not within 0 and 100 per cent")
    return matrix


def shares(values: Any, tasks: int) -> list[float]:
    """[T] per cent, one for each task."""
    found = [number(value) for value in a_list(values)]
    if len(found) != tasks or not all(0 <= value <= 100 for value in found):
        raise ValueError("not a per cent for each task")
    return found


def confusion(record: dict[str, Any], tasks: int) -> np.ndarray:
    """[T, T] or, with a column for items routed nowhere, [T, T + 1] float64 counts by true and routed task."""
    rows = [[count(n) for n in a_list(row)] for row in a_list(record["matrix"])]
    if len(rows) != tasks or any(len(row) != tasks for row in rows):
        raise ValueError("not a count of items per task and routed task")
    nowhere = [per_task(record["none"], tasks)] if record.get("none") else []
    return np.column_stack([np.array(rows, float), *nowhere])


def date(value: Any) -> str:
    """A date and time to the minute; "" where it is none."""
    try:
        return datetime.fromisoformat(value).isoformat(sep=" ", timespec="minutes")
    except (TypeError, ValueError):
        return ""
