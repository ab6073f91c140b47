"""What a run says while it works: a line of progress, metrics.jsonl, and TensorBoard events beside it."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lpi_jax.files import RESUME, write_atomically, writing
from lpi_jax.run.events import Events
from lpi_jax.run.pace import Pace
from lpi_jax.terminal.display import Display, duration, shortened

DIGITS = {"pairs_per_second": 1, "data_wait": 3, "tflops_per_second": 5, "mfu": 4}  # of what a line tells of its speed
_NAME = 20  # columns of a task's name in the line that moves


class Log:
    """Logs the steps of one run.

    Every line of terms holds what happened since the line before: `pairs_per_second`, and `data_wait`, the share of
    the time (0..1) in which the host stood still because no batch was ready. The device computes behind the host's
    back, so its own idle time may be less; near 0 the data keep up, near 1 they are the bottleneck. Where a step's
    operations are known, `tflops_per_second` over all devices; where their peak is, too, `mfu`, the share of it
    (0..1; the peak of bfloat16, in whatever precision is computed).

    Args:
      workdir: the run's directory. total: steps of the whole stream. tasks: of the stream.
      peak: TFLOP/s of all devices together, where known.
      done: steps done before this start; later lines of an interrupted start are dropped, so that none is there twice.
      evaluations: seconds that the evaluation after each finished task took.
    """

    def __init__(
        self,
        workdir: Path,
        total: int,
        done: int,
        tasks: int,
        evaluations: Sequence[float] = (),
        peak: float | None = None,
    ) -> None:
        self._workdir, self._total, self._done, self._tasks, self._peak = workdir, total, done, tasks, peak
        self._batch = 0
        path = workdir / "metrics.jsonl"
        with writing(workdir, RESUME):
            if path.exists():
                kept = b"".join(line for line in path.read_bytes().splitlines(True) if _step(line) <= done)
                write_atomically(path, lambda file: file.write(kept))
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        self._display = Display()
        self._events = Events(workdir / "tensorboard", done + 1, self.prints)
        self._pace = Pace(total, tasks - len(evaluations), *evaluations[-1:])
        self._place, self._terms = ("", ""), []
        self._last, self._waited, self._flops = (time.monotonic(), done), 0.0, 0

    def says(self, number: int, name: str, doing: str, stays: bool = False) -> None:
        """What the run is `doing` in task `number` (from 0). stays: it is said where no line moves, too."""
        task = f"task {number + 1}/{self._tasks}"
        place = (f"{task} {name}, {doing}", f"{task} {shortened(name, _NAME)}, {doing}")
        if place != self._place:
            if not self._place[0].startswith(f"{task} "):
                self._terms = []  # they were another task's
            self._place = place
            self._draw(now=True)
            if stays and not self._display.moves:
                self._display.line(place[0])

    def catch_up(self, step: int, batch: int) -> None:
        """The run stands at `step`: a task is taken up, maybe in its middle, with so many pairs a batch."""
        self._done, self._batch = step, batch
        self._pace.skip()
        self._last, self._waited = (time.monotonic(), step), 0.0

    def prints(self, line: str) -> None:
        """Prints a line that stays."""
        self._display.line(line)

    def advance(self, waited: float) -> None:
        """One more step is done, for whose batch the host waited so many seconds."""
        self._waited += waited
        self._done += 1
        self._draw()

    def terms(self, step: int, position: dict[str, Any], terms: dict[str, float], flops: int = 0) -> None:
        """Logs the loss terms after `step` steps of the run.

        Args:
          position: task, epoch and so on. flops: operations of all steps of this start, over all devices; 0: not known.
        """
        now, (then, before) = time.monotonic(), self._last
        elapsed = max(now - then, 1e-9)
        rate, wait = (step - before) * self._batch / elapsed, min(self._waited / elapsed, 1.0)
        speed = {"pairs_per_second": rate, "data_wait": wait, **self._computed(flops, elapsed)}
        self._last, self._waited, self._flops = (now, step), 0.0, flops
        rounded = {name: round(value, DIGITS[name]) for name, value in speed.items()}
        line = {"step": step, **position, **terms, **rounded}
        with writing(self._workdir, RESUME):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        self._events.add(step, {f"train/{name}": value for name, value in {**terms, **speed}.items()})
        self._pace.trained(step - before, elapsed)
        shown = {name: f"{name} {value:.3f}" for name, value in terms.items()}
        loss = [shown.pop("loss")] if "loss" in shown else []
        used = [f"MFU {speed['mfu']:.3f}"] if "mfu" in speed else []
        self._terms = [*loss, f"{rate:.0f} examples/s", *used, *shown.values(), f"data wait {wait:.3f}"]

    def _computed(self, flops: int, seconds: float) -> dict[str, float]:
        """Operations a second since the line before."""
        if flops <= self._flops:
            return {}
        rate = (flops - self._flops) / 1e12 / seconds
        return {"tflops_per_second": rate} | ({"mfu": rate / self._peak} if self._peak else {})

    def ends_epoch(self) -> None:
        """An epoch is done: a line of its own where none moves."""
        if not self._display.moves:
            self._display.line(f"{self._place[0]}: {', '.join(self._fields())}")

    def evaluated(self, seconds: float) -> None:
        """The evaluation after a task took so long."""
        self._pace.evaluated(seconds)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """TensorBoard only: values after a task."""
        self._events.add(step, values)

    def close(self) -> None:
        """Lets everything go; each line was written when it was logged."""
        self._draw(now=True)
        self._display.close()
        self._pace.close()
        self._events.close()
        with suppress(OSError):  # what could not be written has been told
            self._file.close()

    def _draw(self, now: bool = False) -> None:
        if not self._place[1]:  # a finished run has nothing to do
            return
        share = self._done / self._total if self._total else None
        self._display.draw(self._place[1], share, self._fields(), now)

    def _fields(self) -> list[str]:
        """What is told of the run's progress, the most important first."""
        fields = [f"{self._done}/{self._total}"] if self._total else []
        left = self._pace.left(self._done)
        if left is not None:
            seconds, whole = left
            fields.append(f"{duration(seconds)} left" if whole else f"over {duration(seconds)} left")
        return fields + self._terms


class Silence(Log):
    """Logs nothing: where several processes run, the first speaks."""

    def __init__(self) -> None:
        pass

    def says(self, number: int, name: str, doing: str, stays: bool = False) -> None: ...
    def catch_up(self, step: int, batch: int) -> None: ...
    def prints(self, line: str) -> None: ...
    def advance(self, waited: float) -> None: ...
    def terms(self, step: int, position: dict[str, Any], terms: dict[str, float], flops: int = 0) -> None: ...
    def ends_epoch(self) -> None: ...
    def evaluated(self, seconds: float) -> None: ...
    def scalars(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


def _step(line: bytes) -> float:
    """The step of a metrics line; infinite for a line cut short by a kill."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
