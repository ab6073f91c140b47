"""What a run says while it works: a progress bar, metrics.jsonl, and TensorBoard events beside it."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from lpi_jax import terminal
from lpi_jax.files import write_atomically


class Log:
    """Logs the steps of one run.

    Every line of terms holds what happened since the line before: `pairs_per_second`, and `data_wait`, the share of
    the time (0..1) in which the host stood still because no batch was ready. The device computes behind the host's
    back, so its own idle time may be less; near 0 the data keep up, near 1 they are the bottleneck.

    Args:
      workdir: the run's directory. total: steps of the whole stream. batch: pairs a step.
      done: steps done before this start; later lines of an interrupted start are dropped, so that none is there twice.
    """

    def __init__(self, workdir: Path, total: int, done: int, batch: int) -> None:
        self._batch = batch
        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = b"".join(line for line in path.read_bytes().splitlines(True) if _step(line) <= done)
            write_atomically(path, lambda file: file.write(kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        events = workdir / "tensorboard"
        self._events = SummaryWriter(str(events), purge_step=done + 1 if events.exists() else None)
        # On a terminal the bar moves; in a file, a line now and then is enough.
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(total=total, initial=done, unit="step", mininterval=interval, dynamic_ncols=True)
        self._last, self._waited = (time.monotonic(), done), 0.0

    def says(self, text: str) -> None:
        """Shows what the run is at, in front of the bar."""
        self._bar.set_description(terminal.one_line(text), refresh=True)

    def catch_up(self, step: int) -> None:
        """The run stands at `step`: a task is taken up in its middle."""
        self._bar.n, self._bar.initial = step, step - (self._bar.n - self._bar.initial)
        self._last, self._waited = (time.monotonic(), step), 0.0

    def prints(self, line: str) -> None:
        """Prints a line that stays, above the bar."""
        self._bar.write(terminal.one_line(line), file=sys.stderr)

    def advance(self, waited: float) -> None:
        """One more step is done, for whose batch the host waited so many seconds."""
        self._waited += waited
        self._bar.update()

    def terms(self, step: int, position: dict[str, Any], terms: dict[str, float]) -> None:
        """Logs the loss terms after `step` steps of the run; position: task, epoch and so on."""
        now, (then, before) = time.monotonic(), self._last
        elapsed = max(now - then, 1e-9)
        rate, wait = (step - before) * self._batch / elapsed, min(self._waited / elapsed, 1.0)
        self._last, self._waited = (now, step), 0.0
        line = {"step": step, **position, **terms, "pairs_per_second": round(rate, 1), "data_wait": round(wait, 3)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in (*terms.items(), ("pairs_per_second", rate), ("data_wait", wait)):
            self._events.add_scalar(f"train/{name}", value, step)
        shown = {name: f"{value:.3f}" for name, value in terms.items()}
        self._bar.set_postfix({**shown, "pairs/s": f"{rate:.0f}", "data_wait": f"{wait:.3f}"}, refresh=False)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """TensorBoard only: values after a task."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is pending."""
        self._bar.close()
        self._file.close()
        self._events.close()


class Silence(Log):
    """Logs nothing: where several processes run, the first speaks."""

    def __init__(self) -> None:
        pass

    def says(self, text: str) -> None: ...
    def catch_up(self, step: int) -> None: ...
    def prints(self, line: str) -> None: ...
    def advance(self, waited: float) -> None: ...
    def terms(self, step: int, position: dict[str, Any], terms: dict[str, float]) -> None: ...
    def scalars(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


def _step(line: bytes) -> float:
    """The step of a metrics line; infinite for a line cut short by a kill."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
