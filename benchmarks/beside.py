"""Two sides measured in one run: each works in a process of its own, on the same cores, and they take turns.

A side answers a line of JSON, [name of what to do, arguments ...], with another. Threads that have nothing to do spin
for milliseconds before they sleep: a rest before each turn keeps that off the clock.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

REST = 0.2  # s; idle thread pools spin for a few ms
Side = Callable[..., Any]  # (name of what to do, arguments ...) -> the answer


class Row(NamedTuple):
    """What was measured: by repeat how much of it each side did in a second."""

    what: str
    ours: list[float]
    peer: list[float]


@contextlib.contextmanager
def started(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Side]:
    """A side in a process of its own; ends this one where it has ended, having said why on its standard error."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes) as process:

        def ask(*told: Any) -> Any:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps(told), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            return json.loads(answer) if answer else sys.exit(f"{command[1]} has ended")

        yield ask


def serve(make: Callable[[], Any]) -> None:
    """Answers what is asked on standard input by the methods of the worker that `make` gives, until it ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    worker = make()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, name)(*arguments)), file=answers, flush=True)


def turn(side: Side, call: tuple, ahead: bool = False) -> float:
    """Seconds that a side says it took; ahead: behind one call that is not counted."""
    time.sleep(REST)
    if ahead:
        side(*call)
    return side(*call)


def table(rows: Sequence[Row]) -> str:
    """Markdown: medians over the repeats, and the median ratio with its range."""
    lines = ["| what | ours | PyTorch | ratio | [low, high] |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        ratios = [ours / peer for ours, peer in zip(row.ours, row.peer, strict=True)] if row.peer else []
        cells = [few(statistics.median(side)) if side else "-" for side in (row.ours, row.peer)]
        cells += (
            [f"{statistics.median(ratios):.2f}", f"[{min(ratios):.2f}, {max(ratios):.2f}]"] if ratios else ["-"] * 2
        )
        lines.append(f"| {row.what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def few(number: float) -> str:
    """With a decimal, and two more where it is small."""
    return f"{number:.1f}" if number >= 10 else f"{number:.3f}"


def cores() -> set[int]:
    """Those that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def on(count: int) -> None:
    """Keeps this process, and those it starts, to so many cores: before pools are made with a thread for each."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
