"""From good and bad examples to a stream: refuses or counts the bad ones, checks every image, forms the tasks."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from PIL import Image

from lpi_jax.data.descriptions import Descriptions, alike
from lpi_jax.data.examples import SPLITS, BadExample, listed, shown
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.images import BadImage, StoredImage
from lpi_jax.data.merging import Merged
from lpi_jax.data.stream import Record, Refused, Split, Stream, Task
from lpi_jax.errors import UserError
from lpi_jax.terminal.display import counting

TOLD = 20  # bad examples whose message is kept, beside the counts of all
_PROGRESS_FROM = 500  # images: fewer are checked in a moment
_SAMPLED = 2048  # images at most that are looked into for the fingerprint, spread evenly: 24 MB are read
_BLOCK = 1024  # images handed to the threads at a time: an error ends the check soon, and memory stays small


class Sourced(Protocol):
    """What a source found: `examples.Example`, or another class with these of its attributes."""

    @property
    def image(self) -> StoredImage: ...
    @property
    def identity(self) -> Hashable: ...
    @property
    def task(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def faults(self) -> Sequence[BadExample]: ...
    @property
    def where(self) -> str: ...
    def record(self) -> Record: ...


class Gathering(Protocol):
    """Which examples become one and which are bad beside others; `called`: what they are, for messages."""

    called: str

    def add(self, example: Any, /) -> BadExample | None: ...
    def examples(self) -> Sequence[Sourced]: ...


class Digest(Protocol):
    """A hash that goes on, such as hashlib's."""

    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


def assemble(
    source: str,
    source_examples: Iterable[Sourced | BadExample],
    options: FileOptions,
    *,
    digest: Digest,
    notes: Mapping[str, Any],
    gathering: Gathering | None = None,
) -> Stream:
    """The stream of the good examples, in the order in which they were found.

    Examples of one image in one task and split are one, with the captions of all, unless `gathering` says otherwise; of
    a task's descriptions the first counts, and others are remarked upon.

    Every image is checked before training begins: with 'error' its header and size (an image damaged further inside
    raises `BadImage`, naming its place, when it is loaded), with 'skip' by decoding it once, so that a run never meets
    a bad one later.

    Args:
      source: the file or folder it all comes from, for messages; its last part becomes the stream's name.
      source_examples: examples and bad ones; it may update `digest` while it is read.
      options: `task_order`: names of all tasks in the order wanted; empty: by first appearance. `on_bad_example`:
        'error' raises the first bad one; 'skip' counts them in `Stream.refused`, where a caption that is left out of an
        example counts as one. `max_pixels`: height x width an image may have. Its path is not read.
      digest: becomes the fingerprint, with the order of the tasks, and the sizes and samples of the images used: a
        hash of all bytes where `Example.identity` is one, else three pieces of at most _SAMPLED images.
      notes: `Stream.notes`; the number of images is added. gathering: what takes the examples; None: `merging.Merged`.

    Raises:
      UserError: a bad example (unless skipped), a task without train or val images or without words that say what it
        is about, or a wrong argument.
    """
    _check_options(options)
    skips, max_pixels = options.on_bad_example == "skip", options.max_pixels
    counter, descriptions = _Counter(not skips), Descriptions()
    gathering = Merged() if gathering is None else gathering
    names, examples = _read(source_examples, gathering, descriptions, counter)
    by_task: dict[str, list[Sourced]] = {name: [] for name in _ordered_tasks(source, names, options.task_order)}
    about = {name: descriptions.of(source, name) for name in by_task}
    checked = _check_images(examples, max_pixels, skips, counter)
    for example, look in zip(examples, checked, strict=True):
        if look is not None:
            by_task[example.task].append(example)
    refused = counter.refused()
    tasks = tuple(
        _task(source, name, about[name], rows, max_pixels, refused, gathering.called) for name, rows in by_task.items()
    )
    looks = [look for look in checked if look is not None]
    digest.update(json.dumps([[look.size for look in looks], list(by_task)]).encode())
    for look in looks:
        digest.update(look.content)
    return Stream(
        name=os.path.basename(os.path.normpath(source)),
        tasks=tasks,
        fingerprint=digest.hexdigest(),
        refused=refused,
        notes={**notes, "images": len(looks)},
        remarks=(*descriptions.remarks(), *alike(list(by_task))),
    )


def _check_options(options: FileOptions) -> None:
    if options.on_bad_example not in ("error", "skip"):
        raise UserError(f"on_bad_example is {options.on_bad_example!r}; expected 'error' or 'skip'")
    if isinstance(options.task_order, str):
        raise UserError(f"task_order is the string {options.task_order!r}; expected a list of task names")


class _Counter:
    """Raises bad examples, or counts them and keeps what is wrong with the first."""

    def __init__(self, raises: bool) -> None:
        self._raises = raises
        self._counts: dict[str, Counter[str]] = {}
        self._first: list[str] = []

    def __call__(self, error: BadExample | BadImage, task: str | None) -> None:
        if self._raises:
            raise error
        self._counts.setdefault(task or "", Counter())[error.kind] += 1
        if len(self._first) < TOLD:
            self._first.append(" ".join(str(error).split()))

    def refused(self) -> Refused:
        return Refused({task: dict(kinds) for task, kinds in self._counts.items()}, tuple(self._first))


def _read(
    source_examples: Iterable[Sourced | BadExample], gathering: Gathering, descriptions: Descriptions, bad: _Counter
) -> tuple[list[str], Sequence[Sourced]]:
    """Tasks by first appearance, those of bad examples included, and the good examples as they are gathered."""
    named: dict[str, None] = {}
    for example in source_examples:
        if example.task is not None:
            named.setdefault(example.task)
        error = example if isinstance(example, BadExample) else gathering.add(example)
        if error is not None:
            bad(error, error.task)
            continue
        for fault in (*example.faults, descriptions.add(example)):
            if fault is not None:
                bad(fault, example.task)
    return list(named), gathering.examples()


class _Look(NamedTuple):
    """What is kept of a checked image: its encoded size in bytes, and a hash of content ("": not looked into)."""

    size: int
    content: bytes


@dataclass(frozen=True)
class _Loader:
    """index -> image. A plain record, so that it crosses process borders; keeps no image."""

    images: tuple[StoredImage, ...]
    places: tuple[str, ...]
    max_pixels: int

    def __call__(self, index: int) -> Image.Image:
        try:
            return self.images[index].read(self.max_pixels)
        except BadImage as error:
            raise _at(self.places[index], error) from error


def _check_images(examples: Sequence[Sourced], max_pixels: int, decode: bool, bad: _Counter) -> list[_Look | None]:
    """A look at each example's image, None for a bad one (reported to `bad`, in order); an image is looked at once."""
    first: dict[Hashable, int] = {}  # by image: the number of its first example
    of_image = [first.setdefault(example.identity, number) for number, example in enumerate(examples)]
    distinct = list(first.values())
    every = -(-len(distinct) // _SAMPLED)

    def check(place: int) -> _Look | BadImage:
        example = examples[distinct[place]]
        try:
            if decode:
                example.image.read(max_pixels)
            size = example.image.check(max_pixels)
            if isinstance(example.identity, bytes):
                return _Look(size, example.identity)
            sample = hashlib.sha256(example.image.sample()).digest() if place % every == 0 else b""
            return _Look(size, sample)
        except BadImage as error:
            return error

    looks: dict[int, _Look | BadImage] = {}
    quiet = len(distinct) <= _PROGRESS_FROM
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        counting(len(distinct), "checking images", "image", quiet) as bar,
    ):
        for start in range(0, len(distinct), _BLOCK):
            block = range(start, min(start + _BLOCK, len(distinct)))
            for place, look in zip(block, pool.map(check, block), strict=True):
                number = distinct[place]
                if isinstance(look, BadImage):
                    bad(_at(examples[number].where, look), examples[number].task)
                looks[number] = look
                bar.update()
    for number, shown_first in enumerate(of_image):
        look = looks[shown_first]
        if number != shown_first and isinstance(look, BadImage):
            bad(_at(examples[number].where, look), examples[number].task)
    checked = [looks[number] for number in of_image]
    return [None if isinstance(look, BadImage) else look for look in checked]


def _ordered_tasks(source: str, tasks: Sequence[str], order: Sequence[str]) -> list[str]:
    if not tasks:
        raise UserError(f"{source}: nothing in it names a task; expected at least one good example")
    if not order:
        return list(tasks)
    for name, count in Counter(order).items():
        if count > 1:
            raise UserError(f"task_order names {name!r} {count} times; expected every task once")
    if unknown := [name for name in order if name not in tasks]:
        raise UserError(f"task_order names {listed(unknown)}, not in {source}; its tasks are {listed(tasks)}")
    if missing := [name for name in tasks if name not in order]:
        raise UserError(f"task_order leaves out {listed(missing)}, a task of {source}; expected every task once")
    return list(order)


def _task(
    source: str, name: str, about: str, examples: Sequence[Sourced], max_pixels: int, refused: Refused, called: str
) -> Task:
    splits = {}
    for split in SPLITS:
        rows = [example for example in examples if example.split == split]
        if not rows:
            count = sum(sum(kinds.values()) for kinds in refused.counts.values())
            lost = f" once {count} bad examples are skipped (the first: {refused.first[0]})" if count else ""
            raise UserError(f"{source}: task {shown(name)} has no {split} {called}{lost}; expected at least one")
        load = _Loader(tuple(e.image for e in rows), tuple(e.where for e in rows), max_pixels)
        splits[split] = Split(tuple(e.record() for e in rows), load)
    return Task(name=name, description=about, **splits)


def _at(where: str, error: BadImage) -> BadImage:
    return BadImage(error.kind, f"{where}: {error}")
