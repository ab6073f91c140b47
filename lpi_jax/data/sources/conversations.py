"""Samples of instruction tuning from JSON in LLaVA's conversation format: what all of its sources have in common.

A training record is a conversation, alternately of a human and of the model, in whose first turn `<image>` may mark the
image; a record that is measured may instead be one question with its answer, as the benchmarks publish it:

    {"id": "7", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                                    {"from": "gpt", "value": "A kite"}]}
    {"question_id": 7, "image": "a.jpg", "text": "What is it?", "answer": "A kite"}

A record without `image` (or with null) is about none. The first question of one with an image loses the mark and the
white space around it, as LLaVA puts the mark in front of what is left; a mark that is left out is implied. Other keys
are ignored. Questions may be long, hold several lines or what prompts are made of: they stay as they are.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lpi_jax.data.examples import BadExample, Fail, Identity, kind_of, refuse_what_is_no_text, shown
from lpi_jax.data.formats import json_file
from lpi_jax.data.formats.json_records import Record, records
from lpi_jax.data.images import ImageInFile, StoredImage
from lpi_jax.data.instructed import SCORINGS, Instructed, NoImage

MARK = "<image>"
HUMAN, MODEL = "human", "gpt"
Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of one task, as `builder.assemble` takes it.

    Attributes:
      said: what a split keeps. image: where its image lies.
      source, place: the file and where in it, for messages. task, split: the task's name; train or val.
      identity: equal for equal images.
      description: what the task is about; None: its name says it.
    """

    said: Instructed
    image: StoredImage
    source: str
    place: str
    task: str
    split: str
    identity: Hashable
    description: str | None = None
    faults: tuple[BadExample, ...] = ()

    @property
    def key(self) -> str:
        return self.said.key

    @property
    def where(self) -> str:
        return f"{self.source}, {self.place}"

    def record(self) -> Instructed:
        """What a split keeps of it."""
        return self.said


class Distinct:
    """All samples in their order; a key that stands already in the same task and split is a bad example."""

    called = "samples"

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._first: dict[tuple[str, str, str], Sample] = {}

    def add(self, sample: Sample) -> BadExample | None:
        """Takes a sample; what is wrong with it if its key is taken."""
        first = self._first.setdefault((sample.task, sample.split, sample.key), sample)
        if first is sample:
            self._samples.append(sample)
            return None
        where = first.place if first.source == sample.source else first.where
        message = f"{sample.where}: id {shown(sample.key)} stands already in {where}"
        return BadExample("repeated id", message, sample.task)

    def examples(self) -> list[Sample]:
        """The samples."""
        return self._samples


@dataclass(frozen=True)
class Images:
    """From what a record calls its image to where that lies; `path`: record, fail -> the file, checked."""

    path: Callable[[Record, Fail], str]
    identity: Identity

    def of(self, record: Record, fail: Fail) -> tuple[StoredImage, Hashable]:
        """A record's image and its identity."""
        if not has_image(record, fail):
            return NoImage(), None
        file = self.path(record, fail)
        return ImageInFile(file), self.identity(file)


def read(
    path: str, update: Callable[[bytes], object], sample: Callable[[str, Record], Sample]
) -> Iterator[Sample | BadExample]:
    """What `sample` (place, record) makes of each record of a file, or what is wrong with it.

    Args:
      path, update: see `json_records.records`.

    Raises:
      UserError: the file cannot be read, or from somewhere on.
    """
    for place, record in records(path, update):
        try:
            yield record if isinstance(record, BadExample) else sample(place, record)
        except BadExample as error:
            yield error.with_traceback(None)  # which would keep the record


def has_image(record: Record, fail: Fail) -> bool:
    """Whether a record is about an image; of several in one sample `fail` tells, for the model takes one."""
    image = record.get("image")
    if isinstance(image, list):
        fail("several images", f"image is a list of {len(image)}; expected one path, as a sample has one image at most")
    return image is not None


def conversation(record: Record, fail: Fail) -> Turns:
    """The questions and answers of a training record, at least one."""
    said = record.get("conversations")
    if not isinstance(said, list) or not said:
        what = "is missing" if "conversations" not in record else "is empty" if said == [] else f"is {kind_of(said)}"
        fail("no conversation", f"conversations {what}; expected a list of turns")
    values = [_value(turn, number, fail) for number, turn in enumerate(said)]
    if len(values) % 2:
        fail("no answer", f"the conversation has {len(values)} turns and ends with a question; expected an answer")
    questions = _unmarked(values[::2], record, fail)
    for number, value in enumerate(values):
        if not (questions[number // 2] if number % 2 == 0 else value).strip():
            kind = "empty answer" if number % 2 else "empty question"
            fail(kind, f"conversations[{number}] has nothing in it; expected text")
    return tuple(zip(questions, values[1::2], strict=True))


def question(record: Record, fail: Fail) -> str:
    """The question of a record that is one question with its answer."""
    text = _unmarked([json_file.string(record, "text", fail)], record, fail)[0].strip()
    if not text:
        fail("empty question", "text has nothing in it; expected a question")
    return text


def answers(record: Record, fail: Fail) -> tuple[str, ...] | None:
    """What counts as right: `answer`, or `answers` with `answer` first if that is there as well; None: neither is."""
    if "answer" not in record and "answers" not in record:
        return None
    one = [_answer("answer", record["answer"], fail)] if "answer" in record else []
    if "answers" not in record:
        return tuple(one)
    given = record["answers"]
    if not isinstance(given, list) or not given:
        what = "an empty list" if given == [] else kind_of(given)
        fail("wrong type", f"answers is {what}; expected a list of strings")
    several = [_answer("answers", each, fail) for each in given]
    if one:
        if one[0] not in several:
            fail("no such answer", f"answer is {shown(one[0])}, which is none of answers; expected one of them")
        several.remove(one[0])
    return (*one, *several)


def scoring(record: Record, fail: Fail, usual: str = "exact") -> str:
    """How answers are judged."""
    name = json_file.text(record, "scoring", fail) if "scoring" in record else usual
    if name not in SCORINGS:
        fail("unknown scoring", f"scoring is {shown(name)}; expected one of {', '.join(SCORINGS)}")
    return name


def annotation(record: Record, judged: str, fail: Fail) -> dict[str, Any] | None:
    """{"box": (left, top, right, bottom), "size": (width, height)} as far as a record says so; None: it does not.

    `answer_bbox` is a string like "[0.1,0.2,0.3,0.4]", shares of the image padded to a square; `size` a list of two
    whole numbers, pixels. Answers that are judged by a box need one.
    """
    known: dict[str, Any] = {}
    if "answer_bbox" in record or judged == "grounding":
        known["box"] = _box(json_file.string(record, "answer_bbox", fail), fail)
    if record.get("size") is not None:
        size = record["size"]
        if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
            fail("wrong type", f"size is {str(size)[:80]}; expected [width, height], whole numbers from 1")
        known["size"] = tuple(size)
    return known or None


def identifier(record: Record, keys: Iterable[str], fail: Fail) -> str | None:
    """The first of these keys as text, a string or a whole number; None: there is none of them."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            return json_file.text(record, key, fail)
    return None


def _value(turn: Any, number: int, fail: Fail) -> str:
    """What is said in a turn, by the one whose turn it is."""
    place = f"conversations[{number}]"
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
        fail("wrong type", f"{place} is {kind_of(turn)}; expected an object with the strings from and value")
    role, expected = turn["from"], (HUMAN, MODEL)[number % 2]
    if role not in (HUMAN, MODEL):
        fail("unknown role", f"{place} is from {shown(role)}; expected {HUMAN!r} or {MODEL!r}")
    if role != expected:
        fail("roles out of turn", f"{place} is from {role!r}; expected {expected!r}, as the two take turns")
    value = turn.get("value")
    if not isinstance(value, str):
        fail("wrong type", f"value of {place} is {kind_of(value)}; expected a string")
    refuse_what_is_no_text(f"value of {place}", value, fail)
    if role == MODEL and MARK in value:
        fail("image not in the first turn", f"{place}, an answer, holds {MARK}; expected it in the first question")
    return value


def _unmarked(questions: list[str], record: Record, fail: Fail) -> list[str]:
    """The questions without the mark of the image, which stands at most once and in the first of them."""
    shows = has_image(record, fail)
    marks = [text.count(MARK) for text in questions]
    if sum(marks) > 1:
        fail("several images", f"the record holds {sum(marks)} times {MARK}; expected it once at most")
    if sum(marks) and not shows:
        fail("missing image", f"a question holds {MARK}, but the record names no image; expected the key image")
    if any(marks[1:]):
        fail("image not in the first turn", f"{MARK} stands in a later question; expected it in the first")
    first = questions[0].replace(MARK, "").strip() if shows else questions[0]
    return [first, *questions[1:]]


def _answer(key: str, value: Any, fail: Fail) -> str:
    if not isinstance(value, str):
        fail("wrong type", f"{key} holds {kind_of(value)}; expected text")
    refuse_what_is_no_text(key, value, fail)
    if not value.strip():
        fail("empty answer", f"{key} holds {shown(value)}; expected text with something in it")
    return value


def _box(text: str, fail: Fail) -> tuple[float, ...]:
    try:
        box = tuple(float(part) for part in text.replace("[", "").replace("]", "").split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(abs(number) < 1e6 for number in box):  # not a number is not less than anything
        fail("bad box", f"answer_bbox is {shown(text)}; expected four numbers like '[0.1,0.2,0.3,0.4]'")
    return box
