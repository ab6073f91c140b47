"""Published benchmarks of continual instruction tuning: a folder for each task, with a file to learn from and one to
measure on, and one folder of images for all."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lpi_jax.data.builder import Digest, assemble
from lpi_jax.data.examples import BadExample, Fail, Identity, failing_at, listed, shown
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats import json_file
from lpi_jax.data.formats.json_records import Record
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources import conversations
from lpi_jax.data.sources.conversations import Distinct, Images, Sample
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.options import option


@dataclass(frozen=True)
class BenchmarkOptions(FileOptions):
    """Beside the folder of the instructions, where the images are."""

    images: str = option(
        "", "folder that the paths of images begin in; '': the instructions' own", kind="place", content="stream"
    )


@dataclass(frozen=True)
class References:
    """All right answers of what is measured, where they stand in a file of their own.

    Attributes:
      path: the file. answers: by what `called` makes of a record.
    """

    path: str
    answers: Mapping[str, tuple[str, ...]]
    called: Callable[[Record, Fail], str]


@dataclass(frozen=True)
class Published:
    """One task of a benchmark.

    Attributes:
      name: the task's. folders: names that its folder has had. train, measured: the files in it.
      scoring: how its answers are judged.
      references: the task's folder -> all right answers; None: there are no others than in the records.
      cut: characters too many at the end of the paths of measured images.
      fit: of measured images in the benchmark's own script, `pad` or `crop`.
    """

    name: str
    folders: tuple[str, ...]
    train: str
    measured: str
    scoring: str
    references: Callable[[str], References | None] = lambda folder: None
    cut: int = 0
    fit: str = "pad"


def published(benchmark: str, tasks: Sequence[Published], options: BenchmarkOptions) -> Stream[Instructed]:
    """Reads and checks a whole benchmark, record by record; images are decoded only when they are asked for.

    Args:
      benchmark: its name, the stream's.
      tasks: in their order.
      options: `path` is the folder of the instructions; `task_order` may name some of the tasks, and only these are
        read. For the others see `builder.assemble`.

    Returns:
      The stream. Training samples are called by file and place (published ids repeat), measured ones by question_id.

    Raises:
      UserError: a file that is missing or broken, a bad record (unless skipped), or a task that does not exist.
    """
    path = os.fspath(options.path)
    root = os.fspath(options.images) or path
    known = {task.name: task for task in tasks}
    if unknown := [name for name in options.task_order if name not in known]:
        raise UserError(f"task_order names {listed(unknown)}, not in {benchmark}; its tasks are {listed(list(known))}")
    chosen = [known[name] for name in dict.fromkeys(options.task_order)] or list(tasks)
    folders = {task.name: _folder(path, task) for task in chosen}
    references = {task.name: task.references(folders[task.name]) for task in chosen}
    images = Images(lambda record, fail: json_file.file_inside(root, record, "image", fail), Identity())
    digest = hashlib.sha256()

    def samples() -> Iterator[Sample | BadExample]:
        for task in chosen:
            yield from _of_task(task, folders[task.name], images, references[task.name], digest)

    notes = {
        "path": os.path.abspath(path),
        "images_path": os.path.abspath(root),
        "references": {name: found.path for name, found in references.items() if found},
    }
    return assemble(path, samples(), options, digest=digest, notes=notes, gathering=Distinct())


def _folder(path: str, task: Published) -> str:
    """The folder of a task, with both of its files."""
    there = [folder for name in task.folders if os.path.isdir(folder := os.path.join(path, name))]
    if not there:
        raise UserError(
            f"{path}: there is no folder {' or '.join(task.folders)} of task {task.name}; expected it with"
            f" {task.train} and {task.measured}, or --config.data.task_order with the tasks that are there"
        )
    return there[0]


def _of_task(
    task: Published, folder: str, images: Images, references: References | None, digest: Digest
) -> Iterator[Sample | BadExample]:
    train, measured = os.path.join(folder, task.train), os.path.join(folder, task.measured)
    yield from conversations.read(train, digest.update, partial(_learnt, task, train, images))
    if references:
        digest.update(json.dumps(references.answers, sort_keys=True).encode())
    yield from conversations.read(measured, digest.update, partial(_measured, task, measured, images, references))


def _learnt(task: Published, path: str, images: Images, place: str, record: Record) -> Sample:
    fail = failing_at(f"{path}, {place}", task.name)
    turns = conversations.conversation(record, fail)
    image, identity = images.of(record, fail)
    said = Instructed(
        key=f"{task.name}/{os.path.basename(path)}, {place}",
        turns=turns,
        answers=(turns[-1][1],),
        has_image=identity is not None,
        scoring=task.scoring,
    )
    return Sample(said, image, path, place, task.name, "train", identity)


def _measured(
    task: Published, path: str, images: Images, references: References | None, place: str, record: Record
) -> Sample:
    fail = failing_at(f"{path}, {place}", task.name)
    key = conversations.identifier(record, ("question_id",), fail)
    if key is None:
        fail("missing key", "key 'question_id' is missing")
    question = conversations.question(record, fail)
    one = conversations.answers(record, fail)
    right = one
    if references:
        called = references.called(record, fail)
        right = references.answers.get(called)
        if right is None:
            fail("no references", f"{shown(called)} is not in {references.path}")
    if right is None:
        fail("missing key", "key 'answer' is missing")
    image, identity = images.of(_cut(record, task.cut), fail)
    said = Instructed(
        key=key,
        turns=((question, (one or right)[0]),),
        answers=right,
        has_image=identity is not None,
        scoring=task.scoring,
        annotation=conversations.annotation(record, task.scoring, fail),
        fit=task.fit,
    )
    return Sample(said, image, path, place, task.name, "val", identity)


def _cut(record: Record, characters: int) -> Record:
    """The record, its image's path without so many last characters."""
    path = record.get("image")
    return {**record, "image": path[:-characters]} if characters and isinstance(path, str) else record
