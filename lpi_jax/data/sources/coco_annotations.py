"""COCO 2014 as it is published, and trees of other data in its format: folders of images, annotations in JSON.

    train2014/  annotations/captions_train2014.json  annotations/instances_train2014.json
    val2014/    annotations/captions_val2014.json    annotations/instances_val2014.json

Another year, or none, may stand in place of 2014. Karpathy's `dataset_coco.json` may lie in the folder or in
`annotations/`. Tasks are the supercategories; a category without one, or with "none", is its own. Image ids may begin
anew in the second half. An entry that is not as it should be is a bad example of its own.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpi_jax.data.examples import BadExample, Fail, failing_at, shown
from lpi_jax.data.formats import json_file
from lpi_jax.data.images import ImageInFile
from lpi_jax.data.sources import karpathy
from lpi_jax.data.sources.coco_tasks import Coco, CocoImage, CocoObject, described
from lpi_jax.errors import UserError

FOLDER = "annotations"
KARPATHY_FILE = "dataset_coco.json"
USUAL_YEAR = "2014"
NO_SUPERCATEGORY = ("", "none")  # as tools that know none write it
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
    """Reads the annotations; images are not opened.

    Args:
      path: the folder.
      with_karpathy: whether Karpathy's file is read as well.

    Raises:
      UserError: a file that is missing or that is no such JSON, named.
    """
    splits = _karpathy_splits(path) if with_karpathy else {}
    images: list[CocoImage] = []
    bad: list[BadExample] = []
    tasks: dict[str, str] = {}  # by category, of both halves
    years = {half: _year(path, half) for half in ("train", "val")}
    for half, year in years.items():
        instances, captions = (
            os.path.join(path, FOLDER, f"{name}_{half}{year}.json") for name in ("instances", "captions")
        )
        record = json_file.load(instances, LAYOUT, without=("segmentation",))
        categories = _categories(instances, record, bad)
        tasks |= dict(categories.values())
        gathered = _images(instances, record, os.path.join(path, f"{half}{year}"), bad)
        _add_objects(instances, record, categories, gathered, bad)
        _add_captions(captions, json_file.load(captions, LAYOUT), gathered, instances, bad)
        images += [_image(instances, half, key, image, splits.get(image.file_name)) for key, image in gathered.items()]
    if unknown := splits.keys() - {image.file_name for image in images}:
        raise UserError(f"{_karpathy_file(path)}: image {shown(min(unknown))} is in none of the annotations of {path}")
    kind = "COCO 2014 annotations" if set(years.values()) == {USUAL_YEAR} else "annotations in COCO's format"
    return Coco(kind, tuple(images), described(tasks), tuple(bad))


def _year(path: str, half: str) -> str:
    """What stands behind train or val in the names of the files: 2014 if there is such a file, else the only one."""
    names = os.listdir(os.path.join(path, FOLDER))
    years = sorted(found[1] for name in names if (found := re.fullmatch(rf"captions_{half}(\w*)\.json", name)))
    if USUAL_YEAR in years or not years:
        return USUAL_YEAR
    if len(years) > 1:
        listed = ", ".join(f"captions_{half}{year}.json" for year in years)
        raise UserError(f"{os.path.join(path, FOLDER)}: there are {listed}; expected one of them")
    return years[0]


def _each(
    file: str, record: dict[str, Any], key: str, bad: list[BadExample], use: Callable[[str, dict[str, Any], Fail], None]
) -> None:
    """Calls `use` with place, entry and `fail` of every entry of the list `key`; what it refuses goes to `bad`."""
    for place, entry in json_file.entries(file, record, key):
        fail = failing_at(f"{file}, {place}")
        try:
            use(place, json_file.checked_object(entry, fail), fail)
        except BadExample as error:
            bad.append(error.with_traceback(None))  # which would keep the whole record


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


def _categories(file: str, record: dict[str, Any], bad: list[BadExample]) -> dict[int, tuple[str, str]]:
    """Category's number -> its name and task; a number that stands for two of them is none."""
    categories: dict[int, tuple[str, str]] = {}
    twice: set[int] = set()

    def add(place: str, entry: dict[str, Any], fail: Fail) -> None:
        key, name = json_file.whole_number(entry, "id", fail), json_file.text(entry, "name", fail)
        above = entry.get("supercategory")
        nothing = above is None or (isinstance(above, str) and above.strip().lower() in NO_SUPERCATEGORY)
        task = name if nothing else json_file.text(entry, "supercategory", fail)
        if key in twice or categories.get(key, (name, task)) != (name, task):
            categories.pop(key, None)
            twice.add(key)
            fail("repeated category", f"category id {key} stands already in this file, for another category")
        categories[key] = name, task

    _each(file, record, "categories", bad, add)
    return categories


def _images(file: str, record: dict[str, Any], folder: str, bad: list[BadExample]) -> dict[int, _Image]:
    """Image's number -> the image; a number that stands for two is none, for nobody knows whose the captions are."""
    images: dict[int, _Image] = {}
    places: dict[int, str] = {}
    twice: set[int] = set()
    files: dict[str, str] = {}

    def add(place: str, entry: dict[str, Any], fail: Fail) -> None:
        key = json_file.whole_number(entry, "id", fail)
        first = places.setdefault(key, place)
        image = _Image(
            place,
            json_file.text(entry, "file_name", fail),
            json_file.file_inside(folder, entry, "file_name", fail),
            json_file.whole_number(entry, "width", fail, least=1),
            json_file.whole_number(entry, "height", fail, least=1),
        )
        if first != place:
            if key in images and images[key].path != image.path:
                del images[key]
                twice.add(key)
            lost = ", for another file: neither is used" if key in twice else ""
            fail("repeated image", f"image id {key} stands already in {first}{lost}")
        if (other := files.setdefault(image.path, place)) != place:
            fail("repeated image", f"file name {shown(image.file_name)} stands already in {other}")
        images[key] = image

    _each(file, record, "images", bad, add)
    return images


def _add_objects(
    file: str,
    record: dict[str, Any],
    categories: Mapping[int, tuple[str, str]],
    images: Mapping[int, _Image],
    bad: list[BadExample],
) -> None:
    def add(place: str, entry: dict[str, Any], fail: Fail) -> None:
        key, image_id = json_file.whole_number(entry, "id", fail), json_file.whole_number(entry, "image_id", fail)
        if (category := json_file.whole_number(entry, "category_id", fail)) not in categories:
            fail("unknown category", f"category_id is {category}, which is none of the file's categories")
        left, top, width, height = json_file.four_numbers(entry, "bbox", fail)
        area = int(json_file.number({"area": abs(width * height), **entry}, "area", fail))
        if (crowd := json_file.whole_number({"iscrowd": 0, **entry}, "iscrowd", fail)) > 1:
            fail("wrong type", f"iscrowd is {crowd}; expected 0 or 1")
        if (image := images.get(image_id)) is None:
            fail("object without image", _no_image(image_id, file))
        right, bottom = left + width, top + height
        box = left / image.width, top / image.height, right / image.width, bottom / image.height
        thing = CocoObject(key, *categories[category], box, area, crowd == 1)
        if image.objects.setdefault(key, thing) is not thing:
            fail("repeated object", f"annotation id {key} stands already in this file, for the same image")

    _each(file, record, "annotations", bad, add)


def _add_captions(
    file: str, record: dict[str, Any], images: Mapping[int, _Image], instances: str, bad: list[BadExample]
) -> None:
    def add(place: str, entry: dict[str, Any], fail: Fail) -> None:
        key, image_id = json_file.whole_number(entry, "id", fail), json_file.whole_number(entry, "image_id", fail)
        caption = " ".join(json_file.string(entry, "caption", fail).split())
        if (image := images.get(image_id)) is None:
            fail("caption without image", _no_image(image_id, instances))
        if key in image.captions:
            fail("repeated caption", f"annotation id {key} stands already in this file, for the same image")
        image.captions[key] = caption

    _each(file, record, "annotations", bad, add)


def _no_image(image_id: int, file: str) -> str:
    return f"image_id is {image_id}, which is no image of {os.path.basename(file)}"


def _image(source: str, half: str, key: int, image: _Image, split: str | None) -> CocoImage:
    return CocoImage(
        id=key,
        file_name=image.file_name,
        source=source,
        place=f"image {key}",
        stored=ImageInFile(image.path),
        captions=tuple(caption for _, caption in sorted(image.captions.items())),
        objects=tuple(thing for _, thing in sorted(image.objects.items())),
        published=half,
        karpathy=split,
    )
