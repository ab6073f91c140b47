"""A run's directory: whose run it is, and whether this start goes on with it."""

import json
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.config import records
from lpi_jax.errors import UserError
from lpi_jax.files import write_json
from lpi_jax.parallel import lock
from lpi_jax.workdir.environment import difference, environment

DROPPINGS = (
    *(".config.json.part", lock.NAME, "*.log", "nohup.out", "slurm-*.out", "slurm-*.err"),
    *(".DS_Store", "._*", ".localized", ".directory", "Thumbs.db", "desktop.ini", ".nfs*"),
)


def claim(workdir: Path, config: ConfigDict, made_from: dict[str, str]) -> str:
    """Makes `workdir` this run's, or checks that it already is.

    Where the run goes on in another environment than the start before (commit, versions, devices), the record tells of
    the new one, too.

    Args:
      config: the resolved configuration. made_from: hashes of the stream and the backbone.

    Returns:
      What of the environment is another now, in one line; "" where nothing is.

    Raises:
      UserError: the directory holds another run (the message shows the difference), other files, or cannot be written.
    """
    record = workdir / "config.json"
    try:
        if holds(workdir, config, made_from):
            return _resumed(record, read(workdir))
        refuse_foreign(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(record, {**_own(config, made_from), "started": started, "environment": environment()})
        return ""
    except OSError as error:
        raise UserError(f"--workdir is {workdir}, which cannot be used: {error.strerror}") from error


def holds(workdir: Path, config: ConfigDict, made_from: dict[str, str]) -> bool:
    """Whether `workdir` is this run's already; writes nothing.

    Args, Raises: as `claim`; UserError where it holds another run.
    """
    record = workdir / "config.json"
    if not record.exists():
        return False
    _compare(record, read(workdir), _own(config, made_from))
    return True


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


def _own(config: ConfigDict, made_from: dict[str, str]) -> dict[str, Any]:
    """The record of this run, but for its environment."""
    return {"config": json.loads(json.dumps(config.to_dict())), **made_from}


def _resumed(record: Path, found: dict[str, Any]) -> str:
    """Adds this start's environment to the record if it is another than that of the start before; see `claim`."""
    starts = found.get("resumed", [])
    try:
        before = [found.get("environment", {}), *(start["environment"] for start in starts)][-1]
    except (KeyError, TypeError) as error:
        raise UserError(f"{record} is damaged: its `resumed` is no list of starts with their environments") from error
    now = environment()
    if now == before:
        return ""
    started = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "environment": now}
    write_json(record, {**found, "resumed": [*starts, started]})
    return f"goes on in another environment: {difference(before, now)} (recorded in {record}; numbers may differ)"


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
