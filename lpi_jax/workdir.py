"""A run's directory: whose run it is, and whether this start goes on with it."""

import json
import platform
import subprocess
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lpi_jax import lock, records
from lpi_jax.errors import UserError
from lpi_jax.files import write_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "ml_collections", "numpy", "pillow")
DROPPINGS = (
    *(".config.json.part", lock.NAME, "*.log", "nohup.out", "slurm-*.out", "slurm-*.err"),
    *(".DS_Store", "._*", ".localized", ".directory", "Thumbs.db", "desktop.ini", ".nfs*"),
)


def claim(workdir: Path, config: ConfigDict, made_from: dict[str, str]) -> None:
    """Makes `workdir` this run's, or checks that it already is.

    Args:
      config: the resolved configuration. made_from: hashes of the stream and the backbone.

    Raises:
      UserError: the directory holds another run (the message shows the difference), other files, or cannot be written.
    """
    own = {"config": json.loads(json.dumps(config.to_dict())), **made_from}
    record = workdir / "config.json"
    try:
        if record.exists():
            _compare(record, read(workdir), own)
            return
        refuse_foreign(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(record, {**own, "environment": environment()})
    except OSError as error:
        raise UserError(f"--workdir is {workdir}, which cannot be used: {error.strerror}") from error


def refuse_foreign(workdir: Path) -> None:
    """Raises UserError if `workdir` is neither new nor empty nor a run's: known before any data is read."""
    try:
        if (workdir / "config.json").exists() or not workdir.exists():
            return
        if not workdir.is_dir() or any(not _of_nobody(path) for path in workdir.iterdir()):
            raise UserError(
                f"--workdir is {workdir}, which holds other files; expected a new or empty folder, or a run's"
            )
    except OSError as error:
        raise UserError(f"--workdir is {workdir}, which cannot be used: {error.strerror}") from error


def read(workdir: Path) -> dict[str, Any]:
    """The run's config.json. Raises UserError where there is none or it is damaged."""
    record = workdir / "config.json"
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{record} cannot be read ({error.strerror}); expected the directory of a run") from error
    except ValueError as error:
        raise UserError(f"{record} is damaged ({error}); expected JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise UserError(f"{record} holds no configuration; expected the directory of a run")
    return found


def environment() -> dict[str, Any]:
    """Versions, commit and devices, for the record."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "processes": jax.process_count(),
    }


def _commit() -> str:
    """The checkout's commit, "+changes" if it is not clean; "" outside of a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+changes" if dirty else "")


def _compare(record: Path, found: dict[str, Any], own: dict[str, Any]) -> None:
    different = [
        f"{key} is {there!r} there and {here!r} here"
        for key, (there, here) in records.differences(found, own, record).items()
    ]
    if different:
        raise UserError(f"{record.parent} holds another run: {'; '.join(different)}; choose another --workdir")


def _of_nobody(path: Path) -> bool:
    """Whether this is a file that a run may lie beside.

    The record of a run that was killed while it claimed the directory, or what a shell, a scheduler or a desktop left.
    """
    return path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in DROPPINGS)
