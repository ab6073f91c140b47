"""What a checkpoint says of its own arrays: nested dictionaries whose leaves are a dtype and a shape, as JSON."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.types import Tree

KINDS = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
_FREE = 1 << 26  # bytes that a checkpoint of any size may say to hold
_AXES = 32  # as many as an array has in any version of NumPy
_PACKED = 256  # by how much arrays on disk may be compressed: no memory has more zeros


def of(tree: Tree) -> Any:
    """The description of nested dictionaries of arrays: a leaf becomes [dtype, [sizes]]."""
    if isinstance(tree, dict):
        return {name: of(part) for name, part in tree.items()}
    leaf = np.asarray(tree)
    return [str(leaf.dtype), list(leaf.shape)]


def room(folder: Path) -> int:
    """How many bytes the arrays of a checkpoint can have; files that are being deleted do not count."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.stat(os.path.join(path, name)).st_size
    return _FREE + _PACKED * size


def expected(described: Any, folder: Path, room: int) -> Tree:
    """Uninitialised host arrays as a description says.

    Args:
      described: from `of`, as it came back from a checkpoint that anybody may have written. folder: the checkpoint's,
        for messages. room: of that folder.

    Raises:
      UserError: there is none, it is none, or it says more than the files can hold.
    """
    if described is None:
        raise UserError(
            f"checkpoint {folder} does not describe its arrays; expected one of this version: an earlier one wrote it"
        )
    return _expected(described, folder, [room])


def _expected(described: Any, folder: Path, room: list[int]) -> Tree:
    if isinstance(described, dict):
        return {name: _expected(part, folder, room) for name, part in described.items()}
    try:
        kind, shape = described
        if kind not in KINDS or len(shape) > _AXES or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(described)
        room[0] -= int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize
    except (TypeError, ValueError) as error:
        raise UserError(f"checkpoint {folder} is damaged: it describes an array as {described!r:.80}") from error
    if room[0] < 0:
        raise UserError(f"checkpoint {folder} is damaged: it says to hold more than its files can")
    return np.empty(shape, kind)
