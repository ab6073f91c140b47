"""One checkpoint: a folder with a tree of arrays, JSON, and the hashes of both. The only file that imports orbax.

A checkpoint comes and goes by one renaming: a folder under its name (task_003) is whole, and what a kill left half
written or half deleted has another name. Nothing is read that could run code.
"""

import functools
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from lpi_jax.errors import UserError, reason
from lpi_jax.files import write_json
from lpi_jax.types import Tree

HASHES = "sha256.json"  # what was written, file by file
_COMING, _GOING = ".part", ".deleted"  # behind the name of a checkpoint that is being written or deleted
_UNFINISHED = re.compile(rf"[a-z]+_\d+({re.escape(_COMING)}|{re.escape(_GOING)}|.*\.orbax-checkpoint-tmp.*)")
_SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")  # as tensorstore tells it
_TRIES, _PAUSE = 10, 0.05  # seconds
# The first process alone: orbax must not wait for the others.
_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="checkpoint")


def numbers(parent: Path, prefix: str) -> list[int]:
    """Numbers of the checkpoints in a folder, ascending; empty where there is no such folder.

    Raises:
      UserError: the folder cannot be read.
    """
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{parent} cannot be read ({error.strerror}); expected the checkpoints of a run") from error
    found = (re.fullmatch(rf"{prefix}_(\d{{3,}})", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def path(parent: Path, prefix: str, number: int) -> Path:
    """Where checkpoint `number` lies."""
    return parent / f"{prefix}_{number:03d}"


def write(folder: Path, name: str, tree: Tree, meta: dict[str, Any]) -> Path:
    """Writes a checkpoint to disk, but under another name, which is returned: renaming it makes it a checkpoint.

    Args:
      folder: the checkpoint's own. name: of the tree in it. tree: arrays. meta: JSON.

    Raises:
      OSError: the disk is full or gone, ...; nothing is left.
    """
    coming = folder.with_name(folder.name + _COMING)
    items = {name: ocp.args.StandardSave(tree), "meta": ocp.args.JsonSave(meta)}
    try:
        with _orbax() as orbax:
            orbax.save(coming, args=ocp.args.Composite(**items), force=True)
        files = [file for file in sorted(coming.rglob("*")) if file.is_file()]
        for file in files:
            _sync(file)
        write_json(coming / HASHES, {file.relative_to(coming).as_posix(): _sha256(file) for file in files})
    except Exception as error:
        withdraw(folder)
        code = _SYSTEM_ERROR.search(str(error))
        if code:
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise
    return coming


def read(folder: Path, name: str | None, expected: Tree, instead: str) -> tuple[Tree, dict[str, Any]] | None:
    """Tree and meta of a checkpoint; None if it was deleted meanwhile.

    Args:
      name: of the tree; None: meta alone, and `expected` in place of the tree. expected: host arrays of the shapes and
        dtypes of the tree. instead: what can be done where it is damaged.

    Raises:
      UserError: it is damaged, or cannot be read.
    """
    items: dict[str, Any] = {"meta": ocp.args.JsonRestore()}
    if name is not None:
        items[name] = ocp.args.StandardRestore(expected)
    try:
        # Orbax does not notice a changed byte in an array. (Earlier versions renamed before they wrote the hashes.)
        written = json.loads((folder / HASHES).read_bytes()) if (folder / HASHES).exists() else {}
        for file, sha256 in written.items():
            if _sha256(folder / file) != sha256:
                raise ValueError(f"{file} is not what was written")
        with _orbax() as orbax:
            found = orbax.restore(folder, args=ocp.args.Composite(**items))
        return expected if name is None else found[name], found["meta"]
    except Exception as error:  # orbax raises many kinds for a damaged checkpoint; for the user they are one
        if isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError):
            raise UserError(f"checkpoint {folder} cannot be read ({error.strerror})") from error
        if not folder.exists():
            return None
        raise UserError(f"checkpoint {folder} cannot be read ({reason(error)}); {instead}") from error


def delete(folder: Path) -> None:
    """Deletes a checkpoint. What others are just reading of it may stay until the next `clean`."""
    going = folder.with_name(folder.name + _GOING)
    folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def withdraw(folder: Path) -> None:
    """Removes what was written for a checkpoint that is not to come."""
    for _ in range(_TRIES):
        time.sleep(_PAUSE)  # orbax fails at the first of several files, while threads still write the others
        left = list(folder.parent.glob(f"{folder.name}{_COMING}*"))
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        if not left:
            return


def clean(parent: Path) -> None:
    """Removes what a kill left half written or half deleted in a folder of checkpoints."""
    for path in parent.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """Orbax without its own accounts of an error, which is told in one sentence instead."""
    _silence_latecomers()
    handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=_ALONE))
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=_ALONE) as orbax:
            yield orbax
    finally:
        log.setLevel(level)


@functools.cache
def _silence_latecomers() -> None:
    """Where orbax fails, other arrays' reads and writes may end later, in an event loop that it has closed by then.

    Python would print a traceback for each, at any time. They have no object that they are ignored in, unlike those
    of asyncio itself.
    """
    others = sys.unraisablehook

    def hook(what: Any) -> None:
        late = isinstance(what.exc_value, RuntimeError) and str(what.exc_value) == "Event loop is closed"
        if not (late and what.object is None):
            others(what)

    sys.unraisablehook = hook


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
