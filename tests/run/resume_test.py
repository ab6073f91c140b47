"""A killed run, started again with the same command, ends as if nothing had happened: real processes, real signals."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lpi_jax.run.log import DIGITS
from lpi_jax.workdir import ownership

ROOT = Path(__file__).parents[2]
POLL = 0.001  # seconds
PATIENCE = 240  # seconds until a process must have got somewhere
STEPS = 6  # of a task; a state is saved every two


@pytest.fixture
def flags(small_settings, tmp_path):
    """The small run on the command line."""
    file = tmp_path / "config.py"
    file.write_text("from lpi_jax import config\n\n\ndef get_config():\n    return config.intended()\n")

    def text(value):
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [f"--config={file}", *(f"--config.{key}={text(value)}" for key, value in small_settings.items())]


class Started:
    """`python -m lpi_jax.main` at work in `directory`; its stderr lies beside it."""

    def __init__(self, flags, directory, environment):
        self.errors = directory.with_suffix(".err")
        command = [sys.executable, "-m", "lpi_jax.main", *flags, f"--workdir={directory}"]
        with open(self.errors, "wb") as errors:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=errors
            )

    def wait_for(self, reached, directory):
        """Until `reached(directory)`; fails if the process ends before."""
        began = time.monotonic()
        while not reached(directory):
            assert self._process.poll() is None, self.errors.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(POLL)

    def end(self, number=None):
        """Sends a signal, if one is given; the exit status."""
        try:
            if number is not None:
                self._process.send_signal(number)
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()


def logged(directory):
    """The lines of metrics.jsonl that are whole."""
    path = directory / "metrics.jsonl"
    whole = path.read_bytes().splitlines(True) if path.exists() else []
    return [json.loads(line) for line in whole if line.endswith(b"\n")]


def newest(directory):
    """The last step logged."""
    return max((line["step"] for line in logged(directory)), default=0)


def has(directory, pattern):
    return any((directory / "checkpoints").glob(pattern))


KILLED, TERMINATED = -signal.SIGKILL, 128 + signal.SIGTERM
POINTS = [
    # (signal, exit status, where, seconds of random delay on top)
    (signal.SIGKILL, KILLED, "inside the first task, behind a saved state", lambda d: newest(d) >= 3, 0.03),
    (signal.SIGKILL, KILLED, "while the first task is evaluated", lambda d: newest(d) >= STEPS, 0.3),
    (signal.SIGKILL, KILLED, "while the first boundary is saved", lambda d: has(d, "task_001*"), 0.005),
    (signal.SIGTERM, TERMINATED, "inside the second task", lambda d: newest(d) >= STEPS + 1, 0),
    (signal.SIGKILL, KILLED, "right after the second boundary", lambda d: has(d, "task_002/sha256.json"), 0.02),
    (signal.SIGKILL, KILLED, "somewhere in the last task", lambda d: newest(d) >= 2 * STEPS + 1, 0.5),
]


@pytest.mark.slow
def test_a_run_killed_at_six_points_ends_bit_for_bit_like_one_that_was_not(
    finished_run, flags, compiled, read_progress, decided, tmp_path
):
    directory, rng = tmp_path / "killed", random.Random(0)
    untouched = b""
    for number, (how, status, where, reached, delay) in enumerate(POINTS):
        # The first start compiles for itself: what it saves must fit what the others, with kept programs, go on with.
        process = Started(flags, directory, compiled if number else {})
        process.wait_for(reached, directory)
        time.sleep(rng.uniform(0, delay))
        assert process.end(how) == status, where
        if how == signal.SIGTERM:
            said = process.errors.read_text()
            untouched = (directory / "metrics.jsonl").read_bytes()
            step = int(re.search(r"the same command goes on from step (\d+)", said)[1])
            assert STEPS < step < 2 * STEPS
            assert newest(directory) == step
            assert "Traceback" not in said
    process = Started(flags, directory, compiled)
    assert process.end() == 0, process.errors.read_text()

    # The steps before SIGTERM were never trained again: their lines, time measured included, are the old ones.
    assert (directory / "metrics.jsonl").read_bytes().startswith(untouched)
    timeless = [
        [{k: v for k, v in line.items() if k not in DIGITS} for line in logged(path)]
        for path in (directory, finished_run.directory)
    ]
    assert [line["step"] for line in timeless[0]] == list(range(1, 3 * STEPS + 1))
    assert timeless[0] == timeless[1]
    results = json.loads((directory / "results.json").read_text())
    assert decided(results) == decided(finished_run.results)
    assert ownership.read(directory)["config"] == ownership.read(finished_run.directory)["config"]
    reached = [read_progress(path) for path in (directory, finished_run.directory)]
    assert reached[0].names == reached[1].names
    jax.tree.map(np.testing.assert_array_equal, *(progress.memory for progress in reached))
