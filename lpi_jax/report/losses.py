"""The loss terms of a run over its steps, from metrics.jsonl."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What a line holds beside the loss terms.
NO_TERMS = {"step", "task_name", "task_number", "epoch", "pairs_per_second", "data_wait", "tflops_per_second", "mfu"}
LONGEST_LINE = 1 << 13
MOST_LINES = 20_000  # more cannot be seen in a picture
MOST_TERMS = 12


class Losses(NamedTuple):
    """What metrics.jsonl says of one run: steps [N], the task's name at each, and per term its values [N] (or NaN)."""

    steps: np.ndarray
    tasks: list[str]
    terms: dict[str, np.ndarray]


def read(directory: Path) -> Losses | None:
    """The loss terms over the steps, of very many steps every other; None where there are none.

    Damaged lines are left out.
    """
    lines: list[dict[str, Any]] = []
    every = 1
    for number, line in enumerate(_lines(directory / "metrics.jsonl")):
        if number % every == 0:
            lines.append(line)
        if len(lines) > MOST_LINES:
            lines, every = lines[::2], 2 * every
    names = dict.fromkeys(
        name for line in lines for name, value in line.items() if name not in NO_TERMS and _finite(value)
    )
    terms = {
        name: np.array([line[name] if _finite(line.get(name)) else np.nan for line in lines], float)
        for name in list(names)[:MOST_TERMS]
    }
    if not terms:
        return None
    return Losses(np.array([line["step"] for line in lines]), [str(line.get("task_name", "")) for line in lines], terms)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines with growing steps; what does not fit is passed over."""
    last = 0
    try:
        with open(path, "rb") as file:
            while raw := file.readline(LONGEST_LINE):
                try:
                    line = json.loads(raw)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict) and isinstance(line.get("step"), int) and last < line["step"] < 2**53:
                    last = line["step"]
                    yield line
    except OSError:  # a run that trains nothing has none
        return


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number of thousands of digits
        return False
