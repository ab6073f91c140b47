"""A few samples of every task with what was answered to them, for people to look at: answers.json in a run's directory.

    {"tasks": T, "samples": [{
      "task": number of its task, "sample": its key, "question": text, "references": [texts that count as right],
      "before": {"text": of the frozen backbone, "points": per cent}, "after": {the same of the newest stage},
      "chosen": [{"task": number, "score": by which it was chosen, or null}, the best first],
      "picture": PNG in base64, or null}]}

The pictures are inside, so that the file is whole or not there. All of it follows from what a boundary holds.
"""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lpi_jax.data.contact_sheet import thumbnail
from lpi_jax.data.instructed import Instructed
from lpi_jax.files import RESUME, write_json, writing
from lpi_jax.methods.base import PLAIN
from lpi_jax.problems.instruction.answers import Answers

FILE = "answers.json"
LONGEST = 2000  # letters of a text
_REFERENCES = 10  # of a sample, as VQA has


def places(count: int, most: int) -> list[int]:
    """At most `most` of so many places, evenly spaced from the first."""
    shown = min(count, most)
    return [number * count // shown for number in range(shown)]


def samples(
    answers: Answers, after: Sequence[np.ndarray], before: Sequence[np.ndarray], routes: bool, most: int
) -> list[dict[str, Any]]:
    """At most `most` samples of every task, as they stand in the file.

    Args:
      after, before: by task the points of each of its samples [n], per cent, of the newest stage and of the frozen
        backbone. routes: whether the method sends samples to tasks.
    """
    found = []
    for task, (own, frozen) in enumerate(zip(after, before, strict=True)):
        numbers = np.flatnonzero(answers.task == task)
        said, plain = answers.said(task), answers.said(task, plain=True)
        for place in places(len(numbers), most):
            number = int(numbers[place])
            record = answers.records[number]
            found.append(
                {
                    "task": task,
                    "sample": _cut(record.key),
                    "question": _cut(_asked(record)),
                    "references": [_cut(answer) for answer in record.answers[:_REFERENCES]],
                    "before": {"text": _cut(plain[place]), "points": round(float(frozen[place]), 2)},
                    "after": {"text": _cut(said[place]), "points": round(float(own[place]), 2)},
                    "chosen": _chosen(answers, number) if routes else [],
                    "picture": _png(answers.load(number)) if record.has_image else None,
                }
            )
    return found


def write(directory: Path, tasks: int, found: list[dict[str, Any]]) -> None:
    """Writes the file into a run's directory. Raises UserError where it cannot."""
    with writing(directory, RESUME):
        write_json(directory / FILE, {"tasks": tasks, "samples": found})


def _asked(record: Instructed) -> str:
    """All up to where the last answer begins, a line each."""
    lines = [text for turn in record.turns for text in turn]
    return "\n".join(lines[:-1])


def _chosen(answers: Answers, number: int) -> list[dict[str, Any]]:
    """The tasks whose parts a sample was answered with, the best first; scores where it is they that decided."""
    assigned = answers.assigned
    scores = assigned.scores if assigned.chosen is not None else None
    tasks = [int(task) for task in answers.chosen[number][::-1] if task != PLAIN]
    return [{"task": task, "score": None if scores is None else _finite(scores[number, task])} for task in tasks]


def _finite(score: float) -> float | None:
    return round(float(score), 4) if math.isfinite(score) else None


def _cut(text: str) -> str:
    """The text as it can be written: not too long, and without halves of characters."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"


def _png(image: Image.Image) -> str:
    """A thumbnail as PNG in base64."""
    data = io.BytesIO()
    thumbnail(image).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()
