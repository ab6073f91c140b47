"""What a run keeps of a few items for people to see: what was asked, and what was answered before and after.

answers.json of a run's directory (`lpi_jax.problems.instruction.shown` describes it). Nobody vouches for it: texts stay
texts, and of a picture the pixels count alone.
"""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

from lpi_jax.data.images import read_image
from lpi_jax.data.png import SIGNATURE
from lpi_jax.errors import UserError
from lpi_jax.report.checked import a_dict, a_list, count, json_file, number
from lpi_jax.terminal.plain_text import plain

FILE = "answers.json"
MOST_PIXELS = 1 << 18  # of a picture
LONGEST = 4000  # letters of a text


class Answer(NamedTuple):
    """What was answered, and how right it is, per cent."""

    text: str
    points: float


class Chosen(NamedTuple):
    """A task that an item was answered with, and by which score it was chosen; None: nobody says."""

    task: int
    score: float | None


class Sample(NamedTuple):
    """One item.

    Attributes:
      task: number of its task. references: what counts as right. before: the frozen backbone's answer; after: that of
        the newest stage. chosen: the best task first; may be empty. picture: PNG, made anew; None: there is none.
    """

    task: int
    question: str
    references: list[str]
    before: Answer
    after: Answer
    chosen: list[Chosen]
    picture: bytes | None


def read(directory: Path, tasks: int) -> list[Sample]:
    """The items that a run shows after so many tasks; [] where it shows none, or those of another stage.

    Raises:
      UserError: the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return []
    content = json_file(path)
    try:
        if count(a_dict(content)["tasks"]) != tasks:  # a run was ended between its answers and its results
            return []
        return [_sample(a_dict(sample), tasks) for sample in a_list(content["samples"])]
    except (UserError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} holds damaged answers ({type(error).__name__}: {plain(str(error))}); delete it to have a report"
            " without them"
        ) from error


def _sample(entry: dict[str, Any], tasks: int) -> Sample:
    return Sample(
        task=_task(entry["task"], tasks),
        question=_text(entry["question"]),
        references=[_text(reference) for reference in a_list(entry["references"])],
        before=_answer(a_dict(entry["before"])),
        after=_answer(a_dict(entry["after"])),
        chosen=[_chosen(a_dict(one), tasks) for one in a_list(entry["chosen"])],
        picture=None if entry["picture"] is None else _picture(entry["picture"]),
    )


def _task(value: Any, tasks: int) -> int:
    if (task := count(value)) >= tasks:
        raise ValueError(f"there is no task {task}")
    return task


def _answer(entry: dict[str, Any]) -> Answer:
    if not 0 <= (points := number(entry["points"])) <= 100:
        raise ValueError("points are not within 0 and 100 per cent")
    return Answer(_text(entry["text"]), points)


def _chosen(entry: dict[str, Any], tasks: int) -> Chosen:
    return Chosen(_task(entry["task"], tasks), None if entry["score"] is None else number(entry["score"]))


def _text(value: Any) -> str:
    """A text whose lines stay lines."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return "\n".join(map(plain, value[:LONGEST].splitlines()))


def _picture(value: Any) -> bytes:
    """The pixels of a PNG in base64, as a PNG."""
    if not isinstance(value, str):
        raise TypeError(f"expected a picture, not {type(value).__name__}")
    encoded = base64.b64decode(value, validate=True)
    if not encoded.startswith(SIGNATURE):
        raise ValueError("a picture is no PNG")
    data = io.BytesIO()
    read_image(encoded, MOST_PIXELS, "a picture").save(data, "PNG")
    return data.getvalue()
