"""Files that are there, and files that are either whole or not there."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lpi_jax.errors import UserError, reason

RESUME = "; the same command goes on from the last checkpoint"  # for `writing` under a run's directory


def require_file(path: str, expected: str) -> None:
    """Raises UserError unless `path` is a regular file; `expected`: what it should be, for the message."""
    if not os.path.isfile(path):
        found = "this is a folder" if os.path.isdir(path) else "there is no such file"
        raise UserError(f"{path}: {found}; expected {expected}")


@contextmanager
def writing(place: str | Path, then: str = "") -> Iterator[None]:
    """Where the system refuses what the block writes, one sentence says so.

    Args:
      place: the folder or file, as the sentence names it. then: what can be done, at the sentence's end.

    Raises:
      UserError: the block raised OSError: the disk is full, read-only or gone, a folder was removed, ...
    """
    try:
        yield
    except OSError as error:
        why = "it or a folder in it was removed" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{place} cannot be written ({why or reason(error)}){then}") from error


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # what kept it from being written may keep it from being removed
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
