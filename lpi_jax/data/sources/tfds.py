"""A stream from any data set that TensorFlow Datasets has prepared with an image and a text."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lpi_jax.data.builder import assemble
from lpi_jax.data.examples import (
    SPLITS,
    BadExample,
    Example,
    Fail,
    checked_captions,
    failing_at,
    no_such_name,
    refuse_what_is_no_text,
    shown,
)
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.sources.tfds_records import ImageInRecord, Leaf, leaves_of, opened, prepared, records
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError, reason
from lpi_jax.options import option, section


@dataclass(frozen=True)
class Fields:
    """Names of features and splits."""

    image: str = option("", "column or feature; '': the source's usual name")
    caption: str = option("", "column or feature; '': the source's usual name")
    task: str = option("", "column or feature; '': the source's usual name")
    train: str = option("", "the split that is trained on; '': train")
    val: str = option("", "the split that is measured on; '': the usual one")


@dataclass(frozen=True)
class Options(FileOptions):
    """Beside TFDS's data_dir: the data set and its features."""

    builder: str = option("", "the data set, such as coco_captions/2014")
    fields: Fields = section(Fields)


def tfds(options: Options) -> Stream:
    """Reads what is known of every image; that means reading every record once.

    Records with equal images in one task and split are one image with the captions of all.

    Args:
      options: for those of all sources see `builder.assemble`.
        builder: the data set as TFDS names it: "coco_captions/2014", "flickr30k:1.0.0"; without a version the highest
          that is prepared, without a configuration the only one. Or the folder of a prepared version.
        path: where data sets are prepared; '': where TFDS keeps them.
        fields.image: the feature with the image. Features are named by their path ("objects/label").
        fields.caption: the feature with the captions: text or class labels, one or a sequence ("captions/text").
        fields.task: the feature that names the task: text or a class label; in a sequence, all must be the same. '':
          all of it is one task, named after the data set.
        fields.train, val: splits as TFDS writes them ("train[:80%]", "train+restval"); '': train and validation.

    Returns:
      The stream. Its fingerprint covers name and version of the data set, captions and tasks of all records, all bytes
      of the images used and the order of the tasks.

    Raises:
      UserError: a bad record (unless skipped), a task without train or val images, no such data set, feature or
        split, or a wrong argument.
    """
    if not options.builder:
        raise UserError("config.data.builder is empty, expected a TFDS data set such as 'coco_captions/2014'")
    fields = options.fields
    image, caption, task = fields.image or "image", fields.caption or "caption", fields.task
    train, val = fields.train or "train", fields.val or "validation"
    folder = prepared(options.builder, os.fspath(options.path))
    info = opened(folder).info
    texts = _checked(folder, image, [caption, *filter(None, [task])])
    digest = hashlib.sha256(json.dumps([info.full_name, image, caption, task, train, val]).encode())
    examples = (
        example
        for split, name in zip(SPLITS, (train, val), strict=True)
        for example in _examples(folder, split, name, image, texts, digest.update)
    )
    stream = assemble(
        folder,
        examples,
        options,
        digest=digest,
        notes={"data_set": info.full_name, "path": folder, "train": train, "val": val},
    )
    return replace(stream, name=info.name)


def _checked(folder: str, image: str, texts: Sequence[str]) -> list[Leaf]:
    """The features with texts; refuses those that are not there or of the wrong kind, the image's included."""
    from tensorflow_datasets import features

    known = {leaf.path: leaf for leaf in leaves_of(opened(folder).info.features)}

    def is_image(leaf: Leaf) -> bool:  # of other numbers than these, what is stored is another image
        kind = leaf.feature
        return isinstance(kind, features.Image) and kind.np_dtype in (np.uint8, np.uint16) and not leaf.several

    def is_text(leaf: Leaf) -> bool:
        return isinstance(leaf.feature, features.ClassLabel) or leaf.feature.np_dtype == np.object_

    wanted = [(image, is_image, "one image of whole numbers")]
    wanted += [(path, is_text, "text or class labels") for path in texts]
    for path, is_right, expected in wanted:
        if path not in known:
            raise no_such_name(folder, "feature", path, sorted(known))
        if not is_right(known[path]):
            told = "a sequence of " * known[path].several + " ".join(repr(known[path].feature).split())
            raise UserError(f"{folder}: feature {path!r} is {told}; expected {expected}")
    return [known[path] for path in texts]


def _examples(
    folder: str, split: str, name: str, image: str, texts: Sequence[Leaf], update: Callable[[bytes], object]
) -> Iterator[Example | BadExample]:
    """All examples of the split that TFDS calls `name`; of `texts`, the first is the captions, the second the task."""
    stored_records = records(folder, name, (image, *(leaf.path for leaf in texts)))
    for index, place in stored_records.numbered_places():
        file, position = place
        fail = failing_at(f"{file}, record {position}")
        try:
            try:
                stored, *values = stored_records[index]
            except Exception as error:
                fail("damaged record", f"the record cannot be read ({reason(error)})")
            task = _task(folder, texts[1:], values[1:], fail)
            fail = failing_at(f"{file}, record {position}", task)
            captions, faults = checked_captions(_texts(texts[0], values[0], fail), fail)
        except BadExample as error:
            yield error
            continue
        update(json.dumps([task, captions]).encode())
        yield Example(
            source=file,
            place=f"record {position}",
            key=f"{name}[{index}]",
            image=ImageInRecord(folder, name, index, image),
            captions=captions,
            faults=faults,
            task=task,
            split=split,
            identity=hashlib.sha256(stored[0]).digest() if stored and isinstance(stored[0], bytes) else place,
        )


def _task(folder: str, leaves: Sequence[Leaf], values: Sequence[Any], fail: Fail) -> str:
    """The task that the record names; without a feature for it, the data set's name and configuration."""
    if not leaves:
        return opened(folder).info.full_name.rpartition("/")[0]
    names = list(dict.fromkeys(_texts(leaves[0], values[0], fail)))
    if len(names) != 1:
        said = ", ".join(map(shown, names[:20])) or "nothing"
        fail("no single task", f"feature {leaves[0].path!r} says {said}; expected one task's name")
    if not names[0].strip():
        fail("no single task", f"feature {leaves[0].path!r} is empty; expected a task's name")
    return names[0]


def _texts(leaf: Leaf, values: Sequence[Any], fail: Fail) -> list[str]:
    """A feature's values as texts: class labels by their names."""
    texts = []
    for value in values:
        try:
            if not isinstance(value, bytes) and value < 0:
                raise ValueError("a class below 0")  # or TFDS would count from the end
            texts.append(value.decode() if isinstance(value, bytes) else leaf.feature.int2str(value))
        except UnicodeDecodeError as error:
            fail("not UTF-8", f"byte {error.start + 1} of feature {leaf.path!r} is not UTF-8")
        except Exception:  # a label beyond the names, or in a damaged record no label at all
            fail("unknown label", f"feature {leaf.path!r} is {value!r:.60}, which stands for no class")
        refuse_what_is_no_text(f"feature {leaf.path!r}", texts[-1], fail)
    return texts
