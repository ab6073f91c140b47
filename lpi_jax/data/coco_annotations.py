"""COCO 2014 as it is published: folders of pictures, and annotation files in JSON.

    train2014/  annotations/captions_train2014.json  annotations/instances_train2014.json
    val2014/    annotations/captions_val2014.json    annotations/instances_val2014.json

Karpathy's `dataset_coco.json` may lie in the folder or in `annotations/`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lpi_jax.data import json_file, karpathy
from lpi_jax.data.coco_tasks import TASKS, Coco, CocoImage, CocoObject, described
from lpi_jax.data.examples import BadExample, failing_at, shown
from lpi_jax.data.pictures import PictureFile
from lpi_jax.errors import UserError

FOLDER = "annotations"
KARPATHY_FILE = "dataset_coco.json"
LAYOUT = "COCO 2014's layout: train2014/, val2014/ and annotations/ with captions_*.json and instances_*.json"


@dataclass
class _Image:
    """What is gathered of one image while the files of its half are read."""

    place: str
    file_name: str
    path: str
    width: int
    height: int
    objects: dict[int, CocoObject] = field(default_factory=dict)
    captions: dict[int, str] = field(default_factory=dict)


def read(path: str, with_karpathy: bool) -> Coco:
    """Reads the annotations; pictures are not opened.

    Args:
      path: the folder.
      with_karpathy: whether Karpathy's file is read as well.

    Raises:
      UserError: a file that is missing or holds what it should not, named with the entry.
    """
    splits = _karpathy_splits(path) if with_karpathy else {}
    images: list[CocoImage] = []
    bad: list[BadExample] = []
    known: dict[int, tuple[str, str]] | None = None
    for half in ("train", "val"):
        instances, captions = (
            os.path.join(path, FOLDER, f"{name}_{half}2014.json") for name in ("instances", "captions")
        )
        record = json_file.load(instances, LAYOUT, without=("segmentation",))
        categories = _categories(instances, record)
        if known not in (None, categories):
            raise UserError(f"{instances}: its categories are not those of instances_train2014.json")
        known = categories
        found = _images(instances, record, os.path.join(path, f"{half}2014"))
        _add_objects(instances, record, categories, found, bad)
        _add_captions(captions, json_file.load(captions, LAYOUT), found, instances, bad)
        images += [_image(instances, half, key, image, splits.get(image.file_name)) for key, image in found.items()]
    if unknown := splits.keys() - {image.file_name for image in images}:
        raise UserError(f"{_karpathy_file(path)}: image {shown(min(unknown))} is in none of the annotations of {path}")
    return Coco("COCO 2014 annotations", tuple(images), described(dict(known.values())), tuple(bad))


def _karpathy_file(path: str) -> str:
    beside = os.path.join(path, KARPATHY_FILE)
    return beside if os.path.isfile(beside) else os.path.join(path, FOLDER, KARPATHY_FILE)


def _karpathy_splits(path: str) -> dict[str, str]:
    """File name -> Karpathy's split."""
    file = _karpathy_file(path)
    splits: dict[str, str] = {}
    for image in karpathy.read(file):
        if isinstance(image, BadExample):
            raise image
        if image.filename in splits:
            raise UserError(f"{file}, {image.place}: image {shown(image.filename)} stands already in it")
        splits[image.filename] = image.split
    return splits


def _categories(file: str, record: dict[str, Any]) -> dict[int, tuple[str, str]]:
    """Category's number -> its name and supercategory."""
    categories: dict[int, tuple[str, str]] = {}
    for place, entry in json_file.entries(file, record, "categories"):
        fail = failing_at(f"{file}, {place}")
        entry = json_file.checked_object(entry, fail)
        key, name = json_file.whole_number(entry, "id", fail), json_file.text(entry, "name", fail)
        task = json_file.text(entry, "supercategory", fail)
        if task not in TASKS:
            fail("unknown supercategory", f"supercategory is {shown(task)}; expected one of {', '.join(TASKS)}")
        if key in categories:
            fail("repeated category", f"category id {key} stands already in this file")
        categories[key] = name, task
    return categories


def _images(file: str, record: dict[str, Any], folder: str) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    for place, entry in json_file.entries(file, record, "images"):
        fail = failing_at(f"{file}, {place}")
        entry = json_file.checked_object(entry, fail)
        key = json_file.whole_number(entry, "id", fail)
        if key in images:
            fail("repeated image", f"image id {key} stands already in {images[key].place}")
        images[key] = _Image(
            place,
            json_file.text(entry, "file_name", fail),
            json_file.file_inside(folder, entry, "file_name", fail),
            json_file.whole_number(entry, "width", fail, least=1),
            json_file.whole_number(entry, "height", fail, least=1),
        )
    return images


def _add_objects(
    file: str,
    record: dict[str, Any],
    categories: Mapping[int, tuple[str, str]],
    images: Mapping[int, _Image],
    bad: list[BadExample],
) -> None:
    for place, entry in json_file.entries(file, record, "annotations"):
        fail = failing_at(f"{file}, {place}")
        entry = json_file.checked_object(entry, fail)
        key, image_id = json_file.whole_number(entry, "id", fail), json_file.whole_number(entry, "image_id", fail)
        if (category := json_file.whole_number(entry, "category_id", fail)) not in categories:
            fail("unknown category", f"category_id is {category}, which is none of the file's categories")
        area = int(json_file.number(entry, "area", fail))
        left, top, width, height = json_file.four_numbers(entry, "bbox", fail)
        if (crowd := json_file.whole_number(entry, "iscrowd", fail)) > 1:
            fail("wrong type", f"iscrowd is {crowd}; expected 0 or 1")
        if (image := images.get(image_id)) is None:
            bad.append(BadExample("object without image", f"{file}, {place}: {_no_image(image_id, file)}"))
            continue
        if key in image.objects:
            fail("repeated object", f"annotation id {key} stands already in this file")
        right, bottom = left + width, top + height
        box = left / image.width, top / image.height, right / image.width, bottom / image.height
        image.objects[key] = CocoObject(key, *categories[category], box, area, crowd == 1)


def _add_captions(
    file: str, record: dict[str, Any], images: Mapping[int, _Image], instances: str, bad: list[BadExample]
) -> None:
    for place, entry in json_file.entries(file, record, "annotations"):
        fail = failing_at(f"{file}, {place}")
        entry = json_file.checked_object(entry, fail)
        key, image_id = json_file.whole_number(entry, "id", fail), json_file.whole_number(entry, "image_id", fail)
        caption = json_file.string(entry, "caption", fail)
        if (image := images.get(image_id)) is None:
            bad.append(BadExample("caption without image", f"{file}, {place}: {_no_image(image_id, instances)}"))
            continue
        if key in image.captions:
            fail("repeated caption", f"annotation id {key} stands already in this file")
        image.captions[key] = " ".join(caption.split())


def _no_image(image_id: int, file: str) -> str:
    return f"image_id is {image_id}, which is no image of {os.path.basename(file)}"


def _image(source: str, half: str, key: int, image: _Image, split: str | None) -> CocoImage:
    return CocoImage(
        id=key,
        file_name=image.file_name,
        source=source,
        place=f"image {key}",
        picture=PictureFile(image.path),
        captions=tuple(caption for _, caption in sorted(image.captions.items())),
        objects=tuple(thing for _, thing in sorted(image.objects.items())),
        published=half,
        karpathy=split,
    )
