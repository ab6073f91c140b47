"""COCO 2014 as TensorFlow Datasets builds it: `coco_captions/2014` in array_record files, read as `tfds` reads them."""

import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any

from lpi_jax.data.examples import BadExample, shown
from lpi_jax.data.sources import karpathy
from lpi_jax.data.sources.coco_tasks import SUPERCATEGORY, Coco, CocoImage, CocoObject, described
from lpi_jax.data.sources.tfds_records import ImageInRecord, opened, prepared, records
from lpi_jax.errors import UserError, reason

UNREADABLE = "unreadable record"  # of such a record not even the image's number is known
FOLDER = "coco_captions"
CONFIG = "2014"

_IMAGE = ("image/filename", "image/id")
_CAPTIONS = ("captions/id", "captions/text")
_OBJECTS = ("objects/id", "objects/label", "objects/bbox", "objects/area", "objects/is_crowd")


def read(path: str) -> Coco:
    """Reads what is known of every image; that means reading every record, about 20 GB of the whole data set.

    Karpathy's splits are the data set's own; what COCO published as train is his train, the rest is val.

    Args:
      path: the folder that holds `coco_captions/`, TFDS's data_dir.

    Raises:
      UserError: no such data set is built there, or it is not what TFDS builds.
    """
    folder = prepared(f"{FOLDER}/{CONFIG}", os.path.abspath(path))
    categories = _categories(folder)
    images: list[CocoImage] = []
    bad: list[BadExample] = []
    for split in karpathy.SPLITS:
        stored_records = records(folder, split, (*_IMAGE, *_CAPTIONS, *_OBJECTS))
        for index, _ in stored_records.numbered_places():
            place = f"split {split}, record {index}"
            try:
                images.append(_image(folder, split, index, place, stored_records[index], categories))
            except Exception as error:  # a damaged file raises nearly anything, a record of another kind as well
                message = f"{folder}, {place}: the record cannot be read ({reason(error)})"
                bad.append(BadExample(UNREADABLE, message))
    kind = f"TFDS {FOLDER}/{CONFIG}/{os.path.basename(folder)}"
    return Coco(kind, tuple(images), described({name: SUPERCATEGORY[name] for name in categories}), tuple(bad))


def _categories(folder: str) -> list[str]:
    """The names that labels stand for."""
    features = opened(folder).info.features
    try:
        names = list(features["objects"]["label"].names)
    except Exception as error:
        raise UserError(f"{folder}: its features have no objects with labels ({reason(error)})") from error
    for name in names:
        if name not in SUPERCATEGORY:
            raise UserError(f"{folder}: label {shown(name)} is none of COCO's {len(SUPERCATEGORY)} categories")
    return names


def _image(
    folder: str, split: str, index: int, place: str, values: Sequence[Sequence[Any]], categories: Sequence[str]
) -> CocoImage:
    """The image of one record; raises nearly anything if the record is of another kind."""
    (name,), (key,), caption_ids, captions, *objects = values
    return CocoImage(
        id=operator.index(key),
        file_name=name.decode(),
        source=folder,
        place=place,
        stored=ImageInRecord(folder, split, index, "image"),
        captions=tuple(" ".join(text.decode().split()) for _, text in sorted(zip(caption_ids, captions, strict=True))),
        objects=tuple(sorted(_objects(objects, categories), key=lambda thing: thing.id)),
        published="train" if split == "train" else "val",
        karpathy=split,
    )


def _objects(columns: Sequence[Sequence[Any]], categories: Sequence[str]) -> Iterator[CocoObject]:
    """Objects in the order in which they are stored. The column of boxes has four numbers for each."""
    ids, labels, numbers, areas, crowds = columns
    boxes = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
    for key, label, (top, left, bottom, right), area, crowd in zip(ids, labels, boxes, areas, crowds, strict=True):
        if not 0 <= label < len(categories):
            raise ValueError(f"label {label} stands for no category")
        category, box = categories[label], (float(left), float(top), float(right), float(bottom))
        yield CocoObject(operator.index(key), category, SUPERCATEGORY[category], box, operator.index(area), bool(crowd))
