"""From examples found somewhere (lines, archive members, table rows) to a stream: what every source has in common.

A source yields one `Example` per picture, or a `BadExample` for what cannot be one; `assemble` refuses or counts the
bad ones, checks every picture, and puts the good ones into tasks.
"""

import difflib
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from PIL import Image
from tqdm import tqdm

from lpi_jax.data.pictures import BadImage, Picture
from lpi_jax.data.preprocess import clean_caption
from lpi_jax.data.stream import Refused, Split, Stream, Task
from lpi_jax.errors import UserError

SPLITS = ("train", "val")
TOLD = 20  # bad examples whose message is kept, beside the counts of all
_PROGRESS_FROM = 500  # pictures: fewer are checked in a moment
_BLOCK = 1024  # pictures handed to the threads at a time: an error ends the check soon, and memory stays small


class BadExample(UserError):  # noqa: N818, like BadImage
    """Something that cannot be an example. `kind` is what it is counted under; `task`: the task it named, if any."""

    def __init__(self, kind: str, message: str, task: str | None = None):
        super().__init__(message)
        self.kind, self.task = kind, task


@dataclass(frozen=True, slots=True)
class Example:
    """One captioned picture of one task.

    Attributes:
      source: the file that names it, for messages.
      place: where in that file ("line 3").
      key: what the user calls the picture; unique within a split.
      picture: where it lies.
      captions: at least one, each with something left after cleaning (see `checked_captions`).
      task, split: the task's name; train or val.
      description: what the task is about; None: its name says it.
      identity: equal for equal pictures, by which a picture that is named twice is found.
      annotation: what else is known of the picture.
      faults: what is wrong with captions of it that are left out.
    """

    source: str
    place: str
    key: str
    picture: Picture
    captions: tuple[str, ...]
    task: str
    split: str
    identity: Hashable
    description: str | None = None
    annotation: Any = None
    faults: tuple[BadExample, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.source}, {self.place}"


@dataclass
class Identity:
    """One name per picture file, whatever the paths that lead to it."""

    # Folders repeat, so that only they are resolved in full, once each.
    _real_folder: Callable[[str], str] = field(default_factory=lambda: functools.cache(os.path.realpath))

    def __call__(self, path: str) -> str:
        try:
            folder, name = os.path.split(path)
            return os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real_folder(folder), name)
        except (OSError, ValueError):  # no such path: found again, and reported, when the picture is checked
            return path


class Digest(Protocol):
    """A hash that goes on, such as hashlib's."""

    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


Fail = Callable[[str, str], NoReturn]  # (kind, message) -> raises BadExample


def failing_at(where: str, task: str | None = None) -> Fail:
    """A function (kind, message) that raises `BadExample` with the place in front."""

    def fail(kind: str, message: str) -> NoReturn:
        raise BadExample(kind, f"{where}: {message}", task)

    return fail


def checked_captions(captions: Sequence[object], fail: Fail) -> tuple[tuple[str, ...], tuple[BadExample, ...]]:
    """The captions with something left once they are cleaned, at least one, and what is wrong with the others.

    Whatever is no text at all fails for all of them.
    """
    if not captions:
        fail("no captions", "captions is an empty list; expected one caption or more")
    good: list[str] = []
    faults: list[BadExample] = []
    for caption in captions:
        if not isinstance(caption, str):
            fail("wrong type", f"captions holds {kind_of(caption)}; expected a list of strings")
        refuse_half_characters("captions", caption, fail)
        try:
            clean_caption(caption)
            good.append(caption)
        except ValueError:
            try:
                fail("empty caption", f"caption {shown(caption)} is empty once it is cleaned of punctuation")
            except BadExample as fault:
                faults.append(fault)
    if not good:
        raise faults[0]
    return tuple(good), tuple(faults)


def refuse_half_characters(key: str, value: str, fail: Fail) -> None:
    """Refuses half of a surrogate pair ("\\ud800"): JSON allows it, but it is no text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        fail("not UTF-8", f"{key} holds half of a surrogate pair ({value!a:.60}), which is no character")


def assemble(
    source: str,
    found: Iterable[Example | BadExample],
    *,
    task_order: Sequence[str],
    on_bad_example: str,
    max_pixels: int,
    digest: Digest,
    notes: Mapping[str, Any],
) -> Stream:
    """The stream of the good examples, in the order in which they were found.

    Every picture is checked before training begins: with 'error' its header and size (a picture damaged further inside
    raises `BadImage`, naming its place, when it is loaded), with 'skip' by decoding it once, so that a run never meets
    a bad one later.

    Args:
      source: the file or folder it all comes from, for messages; its last part becomes the stream's name.
      found: examples and bad ones; it may update `digest` while it is read.
      task_order: names of all tasks in the order wanted; empty: by first appearance.
      on_bad_example: 'error' raises the first bad one; 'skip' counts them in `Stream.refused`. A caption that is left
        out of an example counts as one.
      max_pixels: height x width a picture may have.
      digest: becomes the fingerprint, with the sizes of the pictures used and the order of the tasks.
      notes: `Stream.notes`; the number of pictures is added.

    Raises:
      UserError: a bad example (unless skipped), a task without train or val pictures, or a wrong argument.
    """
    if on_bad_example not in ("error", "skip"):
        raise UserError(f"on_bad_example is {on_bad_example!r}; expected 'error' or 'skip'")
    if isinstance(task_order, str):
        raise UserError(f"task_order is the string {task_order!r}; expected a list of task names")
    counts: dict[str, Counter[str]] = {}
    first: list[str] = []

    def bad(error: BadExample | BadImage, task: str | None) -> None:
        if on_bad_example == "error":
            raise error
        counts.setdefault(task or "", Counter())[error.kind] += 1
        if len(first) < TOLD:
            first.append(" ".join(str(error).split()))

    named: dict[str, None] = {}  # tasks by first appearance, those of bad examples included
    seen: dict[Hashable, Example] = {}
    examples: list[Example] = []
    for example in found:
        if example.task is not None:
            named.setdefault(example.task)
        error = example if isinstance(example, BadExample) else _named_twice(example, seen)
        if error is None:
            seen[example.identity] = example
            examples.append(example)
            for fault in example.faults:
                bad(fault, example.task)
        else:
            bad(error, error.task)
    sizes = _check_pictures(examples, max_pixels, on_bad_example == "skip", bad)
    by_task: dict[str, list[Example]] = {name: [] for name in _ordered_tasks(source, list(named), task_order)}
    for example, size in zip(examples, sizes, strict=True):
        if size is not None:
            by_task[example.task].append(example)
    refused = Refused({task: dict(kinds) for task, kinds in counts.items()}, tuple(first))
    tasks = tuple(_task(source, name, rows, max_pixels, refused) for name, rows in by_task.items())
    sizes = [size for size in sizes if size is not None]
    digest.update(json.dumps([sizes, list(by_task)]).encode())
    return Stream(
        name=os.path.basename(os.path.normpath(source)),
        tasks=tasks,
        fingerprint=digest.hexdigest(),
        refused=refused,
        notes={**notes, "pictures": len(sizes)},
    )


@dataclass(frozen=True)
class _Loader:
    """index -> picture. A plain record, so that it crosses process borders; keeps no picture."""

    pictures: tuple[Picture, ...]
    places: tuple[str, ...]
    max_pixels: int

    def __call__(self, index: int) -> Image.Image:
        try:
            return self.pictures[index].read(self.max_pixels)
        except BadImage as error:
            raise _at(self.places[index], error) from error


@dataclass(frozen=True)
class _Annotations:
    values: tuple[Any, ...]

    def __call__(self, index: int) -> Any:
        return self.values[index]


def _named_twice(example: Example, seen: Mapping[Hashable, Example]) -> BadExample | None:
    first = seen.get(example.identity)
    if first is None:
        return None
    where = first.place if first.source == example.source else first.where
    where += "" if first.split == example.split else f", in the other split ({first.split})"
    message = f"{example.where}: image {shown(example.key)} stands already in {where}"
    return BadExample("repeated image", message, example.task)


def _check_pictures(examples: Sequence[Example], max_pixels: int, decode: bool, bad: Callable) -> list[int | None]:
    """Encoded size of each example's picture, None for a bad one (reported to `bad`, in order)."""

    def check(example: Example) -> int | BadImage:
        try:
            if decode:
                example.picture.read(max_pixels)
            return example.picture.check(max_pixels)
        except BadImage as error:
            return _at(example.where, error)

    sizes: list[int | None] = []
    quiet = len(examples) <= _PROGRESS_FROM
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(examples), desc="checking pictures", unit="picture", disable=quiet) as bar,
    ):
        for start in range(0, len(examples), _BLOCK):
            block = examples[start : start + _BLOCK]
            for example, found in zip(block, pool.map(check, block), strict=True):
                if isinstance(found, BadImage):
                    bad(found, example.task)
                sizes.append(None if isinstance(found, BadImage) else found)
                bar.update()
    return sizes


def _ordered_tasks(source: str, seen: Sequence[str], order: Sequence[str]) -> list[str]:
    if not seen:
        raise UserError(f"{source}: nothing in it names a task; expected at least one good example")
    if not order:
        return list(seen)
    for name, count in Counter(order).items():
        if count > 1:
            raise UserError(f"task_order names {name!r} {count} times; expected every task once")
    if unknown := [name for name in order if name not in seen]:
        raise UserError(f"task_order names {listed(unknown)}, not in {source}; its tasks are {listed(seen)}")
    if missing := [name for name in seen if name not in order]:
        raise UserError(f"task_order leaves out {listed(missing)}, a task of {source}; expected every task once")
    return list(order)


def _task(source: str, name: str, examples: Sequence[Example], max_pixels: int, refused: Refused) -> Task:
    splits = {}
    for split in SPLITS:
        rows = [example for example in examples if example.split == split]
        if not rows:
            count = sum(sum(kinds.values()) for kinds in refused.counts.values())
            lost = f" once {count} bad examples are skipped (the first: {refused.first[0]})" if count else ""
            raise UserError(f"{source}: task {shown(name)} has no {split} pictures{lost}; expected at least one")
        load = _Loader(tuple(e.picture for e in rows), tuple(e.where for e in rows), max_pixels)
        known = tuple(e.annotation for e in rows)
        splits[split] = Split(
            keys=tuple(e.key for e in rows),
            captions=tuple(e.captions for e in rows),
            load=load,
            annotate=_Annotations(known) if any(a is not None for a in known) else None,
        )
    description = next((e.description for e in examples if e.description is not None), name)
    return Task(name=name, description=description, **splits)


def _at(where: str, error: BadImage) -> BadImage:
    return BadImage(error.kind, f"{where}: {error}")


def kind_of(value: object) -> str:
    """A JSON value's kind, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")


def shown(text: str) -> str:
    """Text in quotes, cut where it is long."""
    return repr(text) if len(text) <= 80 else repr(text[:77] + "...")


def listed(names: Sequence[str]) -> str:
    """Names in quotes, only the first where there are many."""
    first = ", ".join(map(shown, names[:20]))
    return first if len(names) <= 20 else f"{first} and {len(names) - 20} more"


def no_such_name(where: str, kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a column or the like that does not exist: it names the closest one and lists what there is."""
    close = difflib.get_close_matches(name, known, 1, 0.0)
    hint = f"the closest is {shown(close[0])}, of {listed(known)}" if close else "there is none at all"
    return UserError(f"{where}: there is no {kind} {name!r}; {hint}")
