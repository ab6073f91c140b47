"""How alike are two tasks? Cosines of their descriptions' text features, or a table given by the user."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.types import Tree


def cosines(descriptions: np.ndarray) -> np.ndarray:
    """[T, T] float32 cosines of L2-normalised description features [T, E]; tasks may arrive one by one."""
    return np.asarray(descriptions @ descriptions.T, np.float32)


def from_table(path: str | Path, names: Sequence[str]) -> np.ndarray:
    """Reads a CSV with a header `task,NAME,...` and a row per task: [T, T] float32 for `names`, in their order.

    Raises:
      UserError: the file is missing, is not such a table, lacks a name, or holds what no cosines can be.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = [row for row in csv.reader(file) if row]
        table = {row[0]: dict(zip(header[1:], map(float, row[1:]), strict=True)) for row in rows}
        chosen = np.asarray([[table[a][b] for b in names] for a in names], np.float32).reshape(len(names), len(names))
    except OSError as error:
        raise UserError(f"similarity table {path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise UserError(f"similarity table {path} has no entry for task {error.args[0]!r}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"similarity table {path} is not a table of numbers with a header of task names") from error
    for row, column in np.argwhere(~((np.abs(chosen) <= 1) & np.isclose(chosen, chosen.T))):
        raise UserError(
            f"similarity table {path} says {chosen[row, column]:g} of {names[row]!r} and {names[column]!r}, expected"
            " cosines, the same in both directions"
        )
    return chosen


def fingerprint(path: str | Path) -> str:
    """sha256 of a table's bytes; UserError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"similarity table {path} cannot be read: {error.strerror}") from error


def of_tasks(descriptions: np.ndarray, names: Sequence[str], source: str) -> np.ndarray:
    """[T, T] float32 cosines of the meanings of tasks.

    Args:
      descriptions: [T, E] float32, L2-normalised. names: of the T tasks. source: "text", or a table's path.
    """
    return cosines(descriptions) if source == "text" else from_table(source, names)


def check(names: Sequence[str], source: str) -> None:
    """Raises UserError unless the table of similarities, if there is one, can be read and knows every task."""
    if source != "text":
        from_table(source, names)


def facts(memory: Tree, names: Sequence[str], source: str = "text") -> dict[str, Any]:
    """What the results tell: how alike the finished tasks are."""
    return {"similarity": of_tasks(memory["descriptions"], names, source).tolist()}
