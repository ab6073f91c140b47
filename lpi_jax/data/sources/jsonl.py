"""Bring your own data: a stream from one JSON Lines file.

One line per image, or one per caption: lines that name the same image in the same task and split are one image
with several captions, wherever they stand:

    {"image": "images/0001.jpg", "captions": ["a red kite"], "task": "toys", "split": "train", "description": "toys"}

`image` is relative to the file (or absolute), `split` is train or val, `description` is optional and says what the
task is about (the first one of a task counts, and that others differ is told; without one it is the task's name). Other
keys are ignored, and so are blank lines.
"""

import hashlib
import os
from collections.abc import Callable, Iterator

from lpi_jax.data.builder import assemble
from lpi_jax.data.examples import (
    SPLITS,
    BadExample,
    Example,
    Fail,
    Identity,
    checked_captions,
    failing_at,
    kind_of,
    refuse_what_is_no_text,
    shown,
)
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats.json_file import parse
from lpi_jax.data.formats.json_lines import MAX_LINE_BYTES, numbered_lines
from lpi_jax.data.images import ImageInFile
from lpi_jax.data.stream import Stream

Options = FileOptions


def jsonl(options: Options) -> Stream:
    """Reads and checks a whole JSON Lines file; images are decoded only when they are asked for.

    Args:
      options: `path` is the file, UTF-8; for the others see `builder.assemble`.

    Returns:
      The stream. Its fingerprint covers the file's bytes, sizes and samples of the images used and the order of the
      tasks.

    Raises:
      UserError: a bad line (unless skipped), a task without train or val images, no file, or a wrong argument.
    """
    path = os.fspath(options.path)
    digest = hashlib.sha256()
    return assemble(
        path,
        _examples(path, digest.update),
        options,
        digest=digest,
        notes={"path": os.path.abspath(path)},
    )


def _examples(path: str, update: Callable[[bytes], object]) -> Iterator[Example | BadExample]:
    identity = Identity()
    for number, line in numbered_lines(path, update, "image"):
        try:
            yield _example(path, number, line, identity)
        except BadExample as error:
            yield error


def _example(path: str, number: int, raw: bytes | None, identity: Identity) -> Example:
    """The example of one line (None: it was too long)."""
    fail = failing_at(f"{path}, line {number}")
    if raw is None:
        fail("line too long", f"the line has more than {MAX_LINE_BYTES} bytes")
    record = parse(raw, "the line", '{"image": ..., ...}', fail)
    task = _text(record, "task", fail)
    fail = failing_at(f"{path}, line {number}", task)
    split = _text(record, "split", fail)
    if split not in SPLITS:
        fail("unknown split", f"split is {shown(split)}; expected 'train' or 'val'")
    image = _text(record, "image", fail)
    captions, faults = checked_captions(_captions(record, fail), fail)
    description = _text(record, "description", fail) if record.get("description") is not None else None
    file = os.path.join(os.path.dirname(path), image)
    return Example(
        source=path,
        place=f"line {number}",
        key=image,
        image=ImageInFile(file),
        captions=captions,
        faults=faults,
        task=task,
        split=split,
        identity=identity(file),
        description=description,
    )


def _text(record: dict, key: str, fail: Fail) -> str:
    if key not in record:
        fail("missing key", f"key {key!r} is missing; expected image, captions, task and split")
    value = record[key]
    if not isinstance(value, str):
        fail("wrong type", f"{key} is {kind_of(value)}; expected a string")
    if not value.strip():
        fail("wrong type", f"{key} is empty; expected a string with something in it")
    refuse_what_is_no_text(key, value, fail)
    return value


def _captions(record: dict, fail: Fail) -> list[object]:
    if "captions" not in record:
        fail("missing key", "key 'captions' is missing; expected image, captions, task and split")
    captions = record["captions"]
    if not isinstance(captions, list):
        fail("wrong type", f"captions is {kind_of(captions)}; expected a list of strings")
    return captions
