"""Bring your own data: a stream from one JSON Lines file.

One line per picture:

    {"image": "pictures/0001.jpg", "captions": ["a red kite"], "task": "toys", "split": "train", "description": "toys"}

`image` is relative to the file (or absolute), `split` is train or val, `description` is optional and says what the
task is about (the first one of a task counts; without one it is the task's name). Other keys are ignored, and so are
blank lines.
"""

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from lpi_jax.data.preprocess import MAX_PIXELS, BadImage, check_image, clean_caption, read_image
from lpi_jax.data.stream import Split, Stream, Task
from lpi_jax.errors import UserError

MAX_LINE_BYTES = 1_000_000
SPLITS = ("train", "val")
_PROGRESS_FROM = 500  # pictures: fewer are checked in a moment
_BLOCK = 1024  # pictures handed to the threads at a time: an error ends the check soon, and memory stays small


def jsonl(
    path: str | os.PathLike,
    task_order: Sequence[str] = (),
    on_bad_example: str = "error",
    max_pixels: int = MAX_PIXELS,
) -> Stream:
    """Reads and checks a whole JSON Lines file; pictures are decoded only when they are asked for.

    Every line is checked first, then every picture: with 'error' its header and size (a picture damaged further
    inside raises `BadImage`, naming file and line, when it is loaded), with 'skip' by decoding it once, so that a run
    never meets a bad one later.

    Args:
      path: the file, UTF-8.
      task_order: names of all tasks in the order wanted; empty: by first appearance in the file.
      on_bad_example: 'error' stops at the first bad line; 'skip' leaves bad lines out and counts them by kind in
        `Stream.skipped`.
      max_pixels: height x width a picture may have.

    Returns:
      The stream. Its fingerprint covers the file's bytes, the sizes of the pictures used and the order of the tasks.

    Raises:
      UserError: a bad line (unless skipped), a task without train or val pictures, no file, or a wrong argument.
    """
    path = os.fspath(path)
    if on_bad_example not in ("error", "skip"):
        raise UserError(f"on_bad_example is {on_bad_example!r}; expected 'error' or 'skip'")
    if isinstance(task_order, str):
        raise UserError(f"task_order is the string {task_order!r}; expected a list of task names")
    skipped: Counter[str] = Counter()

    def bad(error: "_BadLine | BadImage") -> None:
        if on_bad_example == "error":
            raise error
        skipped[error.kind] += 1

    digest = hashlib.sha256()
    reader = _LineReader(path)
    lines = []
    for number, line in _numbered_lines(path, digest.update):
        try:
            lines.append(reader.read(number, line))
        except _BadLine as error:
            bad(error)
    decode = on_bad_example == "skip"
    sizes = _check_pictures(path, lines, max_pixels, decode, bad)
    by_task: dict[str, list[_Line]] = {name: [] for name in _ordered_tasks(path, reader.tasks, task_order)}
    for line, size in zip(lines, sizes, strict=True):
        if size is not None:
            by_task[line.task].append(line)
    tasks = tuple(_task(path, name, rows, max_pixels, skipped) for name, rows in by_task.items())
    sizes = [size for size in sizes if size is not None]
    digest.update(json.dumps([sizes, list(by_task)]).encode())
    return Stream(
        name=os.path.basename(path),
        tasks=tasks,
        fingerprint=digest.hexdigest(),
        skipped=dict(skipped),
        notes={"path": os.path.abspath(path), "pictures": len(sizes)},
    )


class _BadLine(UserError):  # noqa: N818, like BadImage
    """A line that cannot be used; `kind` is what it is counted under."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    image: str  # as written
    captions: tuple[str, ...]
    task: str
    split: str
    description: str | None


@dataclass(frozen=True)
class _Loader:
    """index -> picture. A plain record, so that it crosses process borders; keeps no picture."""

    path: str
    images: tuple[str, ...]
    numbers: tuple[int, ...]
    max_pixels: int

    def __call__(self, index: int) -> np.ndarray:
        try:
            return read_image(_resolve(self.path, self.images[index]), self.max_pixels)
        except BadImage as error:
            raise _at(self.path, self.numbers[index], error) from error


class _LineReader:
    """Checks lines one after the other; remembers the tasks named and the pictures met."""

    def __init__(self, path: str):
        self.path = path
        self.tasks: list[str] = []  # by first appearance, those of bad lines included
        self._seen: dict[str, tuple[int, str]] = {}
        # Two paths may lead to one picture. Folders repeat, so that only they are resolved in full, once each.
        self._real_folder = functools.cache(os.path.realpath)

    def read(self, number: int, raw: bytes | None) -> _Line:
        """The record of one line ([bytes], None: it was too long); raises `_BadLine`."""

        def fail(kind: str, message: str):
            raise _BadLine(kind, f"{self.path}, line {number}: {message}")

        if raw is None:
            fail("line too long", f"the line has more than {MAX_LINE_BYTES} bytes")
        record = _parse(raw, fail)
        task = _text(record, "task", fail)
        if task not in self.tasks:
            self.tasks.append(task)
        split = _text(record, "split", fail)
        if split not in SPLITS:
            fail("unknown split", f"split is {_shown(split)}; expected 'train' or 'val'")
        image = _text(record, "image", fail)
        captions = _captions(record, fail)
        description = _text(record, "description", fail) if record.get("description") is not None else None
        self._refuse_twice(number, image, split, fail)
        return _Line(number, image, captions, task, split, description)

    def _refuse_twice(self, number: int, image: str, split: str, fail: Callable) -> None:
        path = _resolve(self.path, image)
        try:
            folder, name = os.path.split(path)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real_folder(folder), name)
        except (OSError, ValueError):  # no such path: found again, and reported, when the picture is checked
            return
        if real in self._seen:
            first, first_split = self._seen[real]
            where = f"line {first}" if split == first_split else f"line {first}, in the other split ({first_split})"
            fail("repeated image", f"image {_shown(image)} stands already in {where}")
        self._seen[real] = (number, split)


def _numbered_lines(path: str, update: Callable[[bytes], object]) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, bytes or None if too long) of the lines that are not blank; `update` sees every byte."""
    try:
        if not os.path.isfile(path):
            raise UserError(f"{path}: there is no such file; expected a JSON Lines file, one line per picture")
        with open(path, "rb") as file:
            number = 0
            while piece := file.readline(MAX_LINE_BYTES + 1):
                update(piece)
                number += 1
                line = piece if len(piece) <= MAX_LINE_BYTES or piece.endswith(b"\n") else None
                while not piece.endswith(b"\n") and (piece := file.readline(MAX_LINE_BYTES)):
                    update(piece)
                if number == 1 and line is not None:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # the mark some editors put at the start of UTF-8
                if line is None or line.strip():
                    yield number, line
            if number == 0:
                raise UserError(f"{path}: the file is empty; expected one line per picture")
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error


def _parse(raw: bytes, fail: Callable) -> dict:
    try:
        record = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        fail("not UTF-8", f"byte {error.start + 1} of the line is not UTF-8")
    except json.JSONDecodeError as error:
        fail("not JSON", f"the line is not JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets nested thousands deep
        fail("not JSON", "the line is JSON of an absurd kind (too deep, or a number too long)")
    if not isinstance(record, dict):
        fail("not an object", f'the line is {_kind_of(record)}; expected an object like {{"image": ..., ...}}')
    return record


def _text(record: dict, key: str, fail: Callable) -> str:
    if key not in record:
        fail("missing key", f"key {key!r} is missing; expected image, captions, task and split")
    value = record[key]
    if not isinstance(value, str):
        fail("wrong type", f"{key} is {_kind_of(value)}; expected a string")
    if not value.strip():
        fail("wrong type", f"{key} is empty; expected a string with something in it")
    _refuse_half_characters(key, value, fail)
    return value


def _captions(record: dict, fail: Callable) -> tuple[str, ...]:
    if "captions" not in record:
        fail("missing key", "key 'captions' is missing; expected image, captions, task and split")
    captions = record["captions"]
    if not isinstance(captions, list):
        fail("wrong type", f"captions is {_kind_of(captions)}; expected a list of strings")
    if not captions:
        fail("no captions", "captions is an empty list; expected one caption or more")
    for caption in captions:
        if not isinstance(caption, str):
            fail("wrong type", f"captions holds {_kind_of(caption)}; expected a list of strings")
        _refuse_half_characters("captions", caption, fail)
        try:
            clean_caption(caption)
        except ValueError:
            fail("empty caption", f"caption {_shown(caption)} is empty once it is cleaned of punctuation")
    return tuple(captions)


def _refuse_half_characters(key: str, value: str, fail: Callable) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # "\ud800": allowed by JSON, but no text
        fail("not UTF-8", f"{key} holds half of a surrogate pair ({value!a:.60}), which is no character")


def _check_pictures(
    path: str, lines: Sequence[_Line], max_pixels: int, decode: bool, bad: Callable
) -> list[int | None]:
    """Size in bytes of each line's picture, None for a bad one (reported to `bad`, in the order of the lines)."""

    def check(line: _Line) -> int | BadImage:
        picture = _resolve(path, line.image)
        try:
            if not decode:
                return check_image(picture, max_pixels)
            read_image(picture, max_pixels)
            return os.stat(picture).st_size
        except BadImage as error:
            return _at(path, line.number, error)

    sizes: list[int | None] = []
    quiet = len(lines) <= _PROGRESS_FROM
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(lines), desc="checking pictures", unit="picture", disable=quiet) as bar,
    ):
        for start in range(0, len(lines), _BLOCK):
            for found in pool.map(check, lines[start : start + _BLOCK]):
                if isinstance(found, BadImage):
                    bad(found)
                sizes.append(None if isinstance(found, BadImage) else found)
                bar.update()
    return sizes


def _ordered_tasks(path: str, seen: Sequence[str], order: Sequence[str]) -> list[str]:
    if not seen:
        raise UserError(f"{path}: no line names a task; expected at least one good line")
    if not order:
        return list(seen)
    for name, count in Counter(order).items():
        if count > 1:
            raise UserError(f"task_order names {name!r} {count} times; expected every task once")
    if unknown := [name for name in order if name not in seen]:
        raise UserError(f"task_order names {_listed(unknown)}, not in {path}; its tasks are {_listed(seen)}")
    if missing := [name for name in seen if name not in order]:
        raise UserError(f"task_order leaves out {_listed(missing)}, a task of {path}; expected every task once")
    return list(order)


def _task(path: str, name: str, lines: Sequence[_Line], max_pixels: int, skipped: Counter) -> Task:
    splits = {}
    for split in SPLITS:
        rows = [line for line in lines if line.split == split]
        if not rows:
            lost = f" once the {skipped.total()} bad lines of the file are skipped" if skipped else ""
            raise UserError(f"{path}: task {_shown(name)} has no {split} pictures{lost}; expected at least one")
        images = tuple(line.image for line in rows)
        loader = _Loader(path, images, tuple(line.number for line in rows), max_pixels)
        splits[split] = Split(keys=images, captions=tuple(line.captions for line in rows), load=loader)
    description = next((line.description for line in lines if line.description is not None), name)
    return Task(name=name, description=description, **splits)


def _resolve(path: str, image: str) -> str:
    return os.path.join(os.path.dirname(path), image)


def _at(path: str, number: int, error: BadImage) -> BadImage:
    return BadImage(error.kind, f"{path}, line {number}: {error}")


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 80 else repr(text[:77] + "...")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
