"""How alike are two tasks? Cosines of their descriptions' text features, or a table given by the user."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lpi_jax.errors import UserError


def cosines(descriptions: np.ndarray) -> np.ndarray:
    """[T, T] float32 cosines of L2-normalised description features [T, E]; tasks may arrive one by one."""
    return np.asarray(descriptions @ descriptions.T, np.float32)


def from_table(path: str | Path, names: Sequence[str]) -> np.ndarray:
    """Reads a CSV with a header `task,NAME,...` and a row per task: [T, T] float32 for `names`, in their order.

    Raises:
      UserError: the file is missing, is not such a table, or lacks a name.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
        table = {row[0]: dict(zip(header[1:], map(float, row[1:]), strict=True)) for row in rows}
        return np.asarray([[table[a][b] for b in names] for a in names], np.float32)
    except OSError as error:
        raise UserError(f"similarity table {path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise UserError(f"similarity table {path} has no entry for task {error.args[0]!r}") from error
    except ValueError as error:
        raise UserError(f"similarity table {path} is not a table of numbers with a header of task names") from error
