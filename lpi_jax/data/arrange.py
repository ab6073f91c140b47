"""What can be done to any stream: a few images per task, another order of tasks, several streams as one.

Each function returns a new stream with a fingerprint of its own; what was done stands in its notes. Images are not
touched, and splits can be pickled if they could before.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from lpi_jax.data.builder import TOLD
from lpi_jax.data.examples import shown
from lpi_jax.data.stream import Refused, Split, Stream, Task
from lpi_jax.errors import UserError
from lpi_jax.options import option, with_any


@dataclass(frozen=True)
class Options:
    """`seed` is also what sources read that choose images."""

    order_seed: int = option(-1, "shuffles the tasks; -1: does not", least=-1)
    shots: int = option(0, "training images kept of each task, chosen by data.seed; 0: all", least=0)
    seed: int = option(0, "decides which images", least=0, reader=with_any("data.shots"))


def arranged(stream: Stream, options: Options) -> Stream:
    """The stream, its tasks shuffled and its training images thinned out if the options say so."""
    if options.order_seed >= 0:
        stream = shuffled(stream, options.order_seed)
    return shots(stream, options.shots, options.seed) if options.shots else stream


def shots(stream: Stream, count: int, seed: int) -> Stream:
    """Few-shot: `count` training images per task, in their order; validation stays whole.

    Which ones is decided by `seed` and the task's name, not by the other tasks; those of a smaller count are among
    those of a larger one. A task with fewer keeps all; the notes name it.

    Raises:
      UserError: count is less than 1, or seed is negative.
    """
    if count < 1:
        raise UserError(f"count is {count}; expected at least 1 training image per task")
    _check_seed(seed)
    tasks = tuple(replace(task, train=_few(task.train, count, seed, task.name)) for task in stream.tasks)
    fewer = {task.name: len(task.train) for task in tasks if len(task.train) < count}
    return _arranged(stream, tasks, {"shots": count, "seed": seed, "fewer": fewer})


def shuffled(stream: Stream, seed: int) -> Stream:
    """The tasks in an order that `seed` and their names decide, whatever order they had and whichever others there are.

    Raises:
      UserError: seed is negative.
    """
    _check_seed(seed)
    tasks = tuple(sorted(stream.tasks, key=lambda task: _hash(["shuffled", seed, task.name])))
    return _arranged(stream, tasks, {"shuffled": [task.name for task in tasks], "seed": seed})


def ordered(stream: Stream, names: Sequence[str]) -> Stream:
    """The tasks in the order of `names`. Raises UserError unless it names each of them once."""
    by_name = {task.name: task for task in stream.tasks}
    if sorted(names) != sorted(by_name):
        raise UserError(
            f"task_order is {', '.join(map(shown, names))}; expected each of {', '.join(map(shown, by_name))} once"
        )
    return _arranged(stream, tuple(by_name[name] for name in names), {"ordered": list(names)})


def combined(streams: Sequence[Stream], names: Sequence[str]) -> Stream:
    """Several streams one after the other, domain after domain.

    A task's name that stands in several streams gets its stream's name in front: "flickr30k/person". Bad examples that
    were skipped are added up, and each stream keeps its notes under its name.

    Args:
      streams: at least one.
      names: what each stream is called here.

    Raises:
      UserError: names that are too few, too many or not unique, or tasks that share a name even so.
    """
    if not streams or len(streams) != len(names):
        raise UserError(f"there are {len(streams)} streams and {len(names)} names; expected one name for each stream")
    if twice := _twice(names):
        raise UserError(f"two streams are called {shown(twice)}; expected different names")
    counts = Counter(task.name for stream in streams for task in stream.tasks)

    def called(name: str, task: str) -> str:
        return f"{name}/{task}" if counts[task] > 1 else task

    named = list(zip(names, streams, strict=True))
    tasks = tuple(replace(task, name=called(name, task.name)) for name, stream in named for task in stream.tasks)
    if twice := _twice([task.name for task in tasks]):
        raise UserError(f"two tasks are called {shown(twice)} once the streams are combined; expected different names")
    return Stream(
        name="+".join(names),
        tasks=tasks,
        fingerprint=_hash(["combined", [[name, stream.fingerprint] for name, stream in named]]),
        refused=_together([(partial(called, name), stream.refused) for name, stream in named]),
        notes={"streams": {name: dict(stream.notes) for name, stream in named}},
        remarks=tuple(f"{name}: {remark}" for name, stream in named for remark in stream.remarks),
    )


def _together(parts: Sequence[tuple[Callable[[str], str], Refused]]) -> Refused:
    """What several streams refused, with what each task is called now."""
    counts: dict[str, Counter[str]] = {}
    for called, refused in parts:
        for task, kinds in refused.counts.items():
            counts.setdefault(called(task), Counter()).update(kinds)
    counts = {task: dict(kinds) for task, kinds in counts.items()}
    return Refused(counts, tuple(message for _, refused in parts for message in refused.first)[:TOLD])


@dataclass(frozen=True)
class _Chosen:
    """The images of a split, numbered as they are in a choice of them."""

    load: Callable[[int], Image.Image]
    indices: tuple[int, ...]

    def __call__(self, index: int) -> Image.Image:
        return self.load(self.indices[index])


def _few(split: Split, count: int, seed: int, name: str) -> Split:
    """`count` items of a split, in their order; all if there are no more."""
    if len(split) <= count:
        return split
    order = sorted(range(len(split)), key=lambda i: _hash(["shots", seed, name, i]))
    chosen = tuple(sorted(order[:count]))
    return Split(tuple(split.records[i] for i in chosen), _Chosen(split.load, chosen))


def _arranged(stream: Stream, tasks: tuple[Task, ...], done: Mapping[str, Any]) -> Stream:
    """The stream with other tasks, and a note of what was done to it after what had been done before."""
    images = sum(len(task.train) + len(task.val) for task in tasks)
    notes = {**stream.notes, "images": images, "arranged": [*stream.notes.get("arranged", ()), dict(done)]}
    return replace(stream, tasks=tasks, notes=notes, fingerprint=_hash([stream.fingerprint, done]))


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"seed is {seed}; expected a whole number from 0")


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _hash(made_from: Any) -> str:
    """SHA-256; also the source of chance here, for it stays the same with every library and platform."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
