"""Several processes that are really started, on this machine, and know of each other; none is left behind."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds until processes must have got somewhere; the machine may be busy
POLL = 0.005  # seconds


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    out: str
    err: str


class Together:
    """Processes that know of each other, at work until the block ends; none is left behind.

    Args:
      folder: for what they say. commands: one for each, behind `python`. devices: of each.
    """

    def __init__(self, folder: Path, commands: Sequence[Sequence[str]], devices: int = 1, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(len(commands)),
        }
        self._said = [(folder / f"{number}.out", folder / f"{number}.err") for number in range(len(commands))]
        self.processes: list[subprocess.Popen] = []
        try:
            for number, (command, (out, err)) in enumerate(zip(commands, self._said, strict=True)):
                own = {**os.environ, **shared, **environment, "JAX_PROCESS_ID": str(number)}
                with open(out, "wb") as out, open(err, "wb") as err:
                    self.processes.append(subprocess.Popen([sys.executable, *command], env=own, stdout=out, stderr=err))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Together":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Until `reached()`; fails if a process ends before."""
        began = time.monotonic()
        while not reached():
            assert all(process.poll() is None for process in self.processes), self.said()
            assert time.monotonic() - began < PATIENCE, self.said()
            time.sleep(POLL)

    def ended(self) -> list[Ended]:
        """How they ended, once they all have."""
        latest = time.monotonic() + PATIENCE
        statuses = [process.wait(max(0.0, latest - time.monotonic())) for process in self.processes]
        return [Ended(status, *said) for status, said in zip(statuses, self.said(), strict=True)]

    def said(self) -> list[tuple[str, str]]:
        """What each has said on stdout and stderr."""
        return [tuple(path.read_text(encoding="utf-8", errors="replace") for path in paths) for paths in self._said]


def calling(function: Callable, *arguments: Any) -> list[str]:
    """The command of a process that calls a function of a test file with JSON arguments; paths arrive as text."""
    # pytest knows its files without their folder.
    module = ".".join(Path(function.__code__.co_filename).relative_to(ROOT).with_suffix("").parts)
    program = f"import json, sys, {module} as tests\ntests.{function.__name__}(*json.loads(sys.argv[1]))"
    return ["-c", program, json.dumps(arguments, default=str)]


def command_line(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """`-m lpi_jax.main` with these settings, as one of several processes. A configuration file is put into `folder`."""
    file = folder / "config.py"
    file.write_text(
        "from lpi_jax import config as configs\n\n\n"
        "def get_config():\n"
        "    config = configs.intended()\n"
        f"    config.update_from_flattened_dict({dict(settings)!r})\n"
        "    return config\n"
    )
    return ["-m", "lpi_jax.main", f"--config={file}", "--config.distributed=true"]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they stand on a command line."""

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [f"--config.{key}={text(value)}" for key, value in settings.items()]
