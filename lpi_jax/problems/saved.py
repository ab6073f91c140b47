"""What evaluators have computed, kept at a task boundary: arrays by the set of items they belong to and their name.

A row belongs to an item, and from one boundary to the next few rows change. So an array lies in pieces of whole rows,
each in a file that is named by its content: only what is not there yet is written. FOLDER/task_003.json says which
pieces make which array, FOLDER/pieces/ holds them.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.errors import UserError, reason
from lpi_jax.files import RESUME, write_atomically, write_json, writing
from lpi_jax.parallel import processes

Arrays = Mapping[str, Mapping[str, np.ndarray]]
PIECE = 8 << 20  # bytes of a piece, at most, but for a row that is larger


def save(path: Path, arrays: Arrays) -> None:
    """Writes arrays [...] by set and name: a resumed run computes nothing twice.

    Args:
      path: a file in a folder of a run's directory.
    """

    def write() -> None:
        with writing(path.parent.parent, RESUME):
            path.parent.mkdir(exist_ok=True)  # the run's directory itself is there, or has been removed
            _pieces(path).mkdir(exist_ok=True)
            index = {
                f"{name}.{key}": _kept(_pieces(path), np.asarray(array))
                for name, parts in arrays.items()
                for key, array in parts.items()
            }
            write_json(path, {"arrays": index, "digest": _digest(json.dumps(index).encode())})

    processes.agreed(write)


def saved(path: Path, wanted: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """What `save` wrote [...], by set and name, in every process; wanted: has the same names.

    Raises:
      UserError: a file is damaged.
    """
    names = [f"{name}.{key}" for name, parts in wanted.items() for key in parts]
    found: dict[str, np.ndarray] = {}

    def first() -> list[tuple[tuple[int, ...], str]]:
        found.update(read(path, names))
        return [(found[name].shape, str(found[name].dtype)) for name in names]

    expected = processes.agreed(first)
    arrays = [found[name] for name in names] if found else [np.empty(shape, dtype) for shape, dtype in expected]
    arrays = dict(zip(names, processes.copied(arrays), strict=True))
    return {name: {key: arrays[f"{name}.{key}"] for key in parts} for name, parts in wanted.items()}


def read(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays [...] of a boundary by SET.NAME; names: of those wanted; None: all. Raises UserError: as `saved`."""
    try:
        index = _index(path)
        return {name: _array(_pieces(path), index[name]) for name in (index if names is None else names)}
    except Exception as error:  # a damaged index may hold anything
        raise UserError(
            f"{path} cannot be read ({reason(error)}); delete the folder {path.parent} to have it computed again"
        ) from error


def keep_only(path: Path) -> None:
    """Removes from a folder what other boundaries than that of `path` have left."""
    for other in path.parent.glob("task_*"):
        if other != path:
            other.unlink(missing_ok=True)
    try:
        needed = {piece for array in _index(path).values() for piece in array["pieces"]}
    except Exception:  # not an index, or a damaged one, which `read` tells of: nothing is cleaned away
        return
    for piece in _pieces(path).iterdir():
        if piece.name not in needed:
            piece.unlink(missing_ok=True)


def _pieces(path: Path) -> Path:
    return path.parent / "pieces"


def _index(path: Path) -> dict[str, Any]:
    """Which pieces make which array. Raises ValueError, or another error, where it is not what was written."""
    content = json.loads(path.read_bytes())
    if _digest(json.dumps(content["arrays"]).encode()) != content["digest"]:
        raise ValueError("it holds something else than was written")
    return content["arrays"]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _kept(folder: Path, array: np.ndarray) -> dict[str, Any]:
    """What the index says of an array whose pieces are there now."""
    names = []
    for rows in _rows(array):
        content = rows.tobytes()
        names.append(_digest(content))
        piece = folder / names[-1]
        if not piece.is_file() or piece.stat().st_size != len(content):
            write_atomically(piece, lambda file, content=content: file.write(content))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "pieces": names}


def _rows(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array's rows in pieces, each as large whatever follows; nothing of an empty array."""
    array = array[None] if not array.ndim else array
    each = max(1, PIECE // max(1, array[:1].nbytes))
    for start in range(0, len(array) if array.size else 0, each):
        yield array[start : start + each]


def _array(folder: Path, told: dict[str, Any]) -> np.ndarray:
    """The array that an index tells of. Raises ValueError where its pieces are not what is told."""
    dtype, shape, pieces = np.dtype(told["dtype"]), tuple(told["shape"]), [folder / name for name in told["pieces"]]
    size = sum(piece.stat().st_size for piece in pieces)
    if dtype.hasobject or size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{size} bytes are no array {list(shape)} of {dtype}")
    content = bytearray()
    for piece in pieces:
        part = piece.read_bytes()
        if _digest(part) != piece.name:
            raise ValueError(f"{piece.name} holds something else")
        content += part
    return np.frombuffer(content, dtype).reshape(shape)
