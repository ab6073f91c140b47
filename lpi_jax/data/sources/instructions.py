"""Bring your own instructions: a stream from one file of conversations, a JSON list or JSON Lines.

    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                         {"from": "gpt", "value": "A kite"}], "task": "toys", "split": "train"}

The format is LLaVA's (see `conversations`), with `task` and `split` (train or val) in every record. `image` is relative
to the file, or absolute; without it the sample is text only. What is measured (val) may be judged by `answer` or by
several `answers`, the first of which is the reference; without either the conversation's last answer counts, and with
one of them the conversation may end with the question. `scoring` says how answers are judged (exact, unless it is
there; one of `instructed.SCORINGS`), `answer_bbox` and `size` belong to boxes. `id` names a sample, once in its task
and split. `description` says what the task is about.
"""

import hashlib
import os

from lpi_jax.data.builder import assemble
from lpi_jax.data.examples import SPLITS, Fail, Identity, failing_at, shown
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats import json_file
from lpi_jax.data.formats.json_records import Record
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources import conversations
from lpi_jax.data.sources.conversations import Distinct, Images, Sample
from lpi_jax.data.stream import Stream

Options = FileOptions


def instructions(options: Options) -> Stream[Instructed]:
    """Reads and checks the whole file, record by record; images are decoded only when they are asked for.

    Args:
      options: `path` is the file, UTF-8; for the others see `builder.assemble`.

    Returns:
      The stream. Its fingerprint covers the file's content, sizes and samples of the images used and the order of the
      tasks.

    Raises:
      UserError: a bad record (unless skipped), a broken list, a task without train or val samples, or no file.
    """
    path = os.fspath(options.path)
    digest = hashlib.sha256()

    def file(record: Record, fail: Fail) -> str:
        return os.path.join(os.path.dirname(path), json_file.text(record, "image", fail))

    images = Images(file, Identity())
    return assemble(
        path,
        conversations.read(path, digest.update, lambda place, record: _sample(path, place, record, images)),
        options,
        digest=digest,
        notes={"path": os.path.abspath(path)},
        gathering=Distinct(),
    )


def _sample(path: str, place: str, record: Record, images: Images) -> Sample:
    task = json_file.text(record, "task", failing_at(f"{path}, {place}"))
    fail = failing_at(f"{path}, {place}", task)
    split = json_file.text(record, "split", fail)
    if split not in SPLITS:
        fail("unknown split", f"split is {shown(split)}; expected 'train' or 'val'")
    right = conversations.answers(record, fail)
    turns = conversations.conversation(_answered(record, right), fail)
    judged = conversations.scoring(record, fail)
    known = conversations.annotation(record, judged if split == "val" else "", fail)
    image, identity = images.of(record, fail)
    described = record.get("description") is not None
    return Sample(
        Instructed(
            key=conversations.identifier(record, ("id", "question_id"), fail) or place,
            turns=turns,
            answers=right or (turns[-1][1],),
            has_image=identity is not None,
            scoring=judged,
            annotation=known,
        ),
        image,
        source=path,
        place=place,
        task=task,
        split=split,
        identity=identity,
        description=json_file.text(record, "description", fail) if described else None,
    )


def _answered(record: Record, right: tuple[str, ...] | None) -> Record:
    """The record, its conversation closed by what is right if it ends with the question."""
    said = record.get("conversations")
    if right is None or not isinstance(said, list) or len(said) % 2 == 0:
        return record
    return {**record, "conversations": [*said, {"from": conversations.MODEL, "value": right[0]}]}
