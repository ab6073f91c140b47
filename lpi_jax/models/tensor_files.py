"""Tensors, their shapes and JSON from checkpoint files, which others wrote: safetensors and npz, never a pickle."""

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from lpi_jax.errors import UserError

MAX_JSON_BYTES, MAX_LISTED = 2**25, 20


def tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors [...] of a .safetensors or .npz file, by name.

    Raises: UserError for another kind of file, and for one that is missing, damaged, or would unpack to far more than
      it holds.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    with opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of what `tensors` returns; a .safetensors file tells them in its header. Raises: as `tensors`."""
    if path.suffix == ".npz":
        return {key: value.shape for key, value in _read_npz(path).items()}
    with opened(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (it is no mapping)


def holds_safetensors(path: Path) -> bool:
    """Whether a Hugging Face directory has its weights as safetensors, one file or sharded."""
    return any((path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))


def msgpack_tensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays [...] in a msgpack file of Flax's, by the names on their way, joined by slashes.

    The format can name arrays, numbers and text only: nothing in it is executed. Raises: UserError for a damaged file.
    """
    from flax import serialization, traverse_util

    try:
        tree = serialization.msgpack_restore(path.read_bytes())
        if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
            raise ValueError(f"it holds a {type(tree).__name__}, expected names and arrays")
        state = {"/".join(map(str, names)): value for names, value in traverse_util.flatten_dict(tree).items()}
        if stray := [key for key, value in state.items() if not isinstance(value, np.ndarray | np.generic)]:
            raise ValueError(f"{stray[0]} is no array")
        return state
    except Exception as error:  # whatever damaged bytes make the reader raise
        raise UserError(f"{path} is not a readable msgpack file of Flax's ({brief(error)})") from error


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a Hugging Face directory. Raises: UserError if there is none that can be read."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a Hugging Face directory with it")
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"larger than {MAX_JSON_BYTES} bytes")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({brief(error)})") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} must hold a JSON object, not {brief(fields)}")
    return fields


def listed(names: Iterable[str]) -> str:
    """The first MAX_LISTED names in order, and how many there are more."""
    names = sorted(names)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def brief(value: Any) -> str:
    """A value or an error as one short line."""
    text = " ".join((str(value) or type(value).__name__).split()) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A `safetensors.safe_open`; whatever is wrong with the file, also found while it is open, becomes a UserError."""
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is no checkpoint: expected a directory, a .safetensors or a .npz file")
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the weights as safetensors")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            yield file
    except Exception as error:  # whatever a damaged header makes the reader raise
        raise UserError(f"{path} is not a readable safetensors file ({brief(error)})") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > 2**26 + 100 * path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked} bytes")
        with np.load(path, allow_pickle=False) as file:
            state = {key: file[key] for key in file.files}
        if stray := [key for key, value in state.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{stray[0]} is no array")
        return state
    except Exception as error:  # whatever a damaged archive or a refused pickle makes the reader raise
        raise UserError(f"{path} is not a readable .npz file of plain arrays ({brief(error)})") from error
