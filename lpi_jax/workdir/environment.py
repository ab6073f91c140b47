"""What a start of a run runs on: versions, commit, devices; and what of it differs between two starts."""

import os
import platform
import re
import subprocess
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "ml_collections", "numpy", "pillow")
_GIT = 20.0  # seconds git may take


def environment() -> dict[str, Any]:
    """Versions, commit and devices, for the record. JSON."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "processes": jax.process_count(),
    }


def _commit() -> str:
    """The checkout's commit, "+changes" if it is not clean; "" outside of a checkout.

    A package that is installed in an environment inside another repository is no part of that one.
    """
    root = Path(__file__).resolve().parents[2]
    # A git hook that starts a run has set variables that name the hook's own repository.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT, env=plain).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").removesuffix("\n")).resolve() != root:
            return ""
        return git("rev-parse", "HEAD").strip() + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a path that is no text
        return ""


def difference(before: Any, now: dict[str, Any]) -> str:
    """What is another in `now` than it was in `before`, an environment from a record: "commit a -> b; jax 1 -> 2"."""
    there, here = _flat(before), _flat(now)
    return "; ".join(
        f"{key} {_short(there.get(key))} -> {_short(here.get(key))}"
        for key in dict.fromkeys([*there, *here])
        if there.get(key) != here.get(key)
    )


def _flat(environment: Any) -> dict[str, Any]:
    """Packages beside the rest; nothing of what is no environment."""
    found = environment if isinstance(environment, dict) else {}
    packages = found.get("packages")
    return {**found, **packages, "packages": None} if isinstance(packages, dict) else found


def _short(value: Any) -> str:
    """A value of the environment in a few letters: devices are counted, a commit is cut."""
    if isinstance(value, list):
        return ", ".join(f"{count} x {kind}" for kind, count in Counter(map(str, value)).items()) or "none"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}(\+changes)?", value):
        return value[:10] + value[40:]
    return "none" if value in ("", None) else str(value)
