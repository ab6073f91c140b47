"""COCO 2014 as TensorFlow Datasets builds it: `coco_captions/2014` in array_record files, read without TensorFlow.

Nothing is downloaded or built here. Pictures stay encoded until they are asked for, and are then read like any other.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from lpi_jax.data import karpathy
from lpi_jax.data.coco_tasks import SUPERCATEGORY, Coco, CocoImage, CocoObject, described
from lpi_jax.data.examples import BadExample, shown
from lpi_jax.data.json_file import load
from lpi_jax.data.pictures import MAX_BYTES, TOO_LARGE, UNREADABLE, BadImage, check_image, read_image
from lpi_jax.errors import UserError

FOLDER = "coco_captions"
CONFIG = "2014"
_PROGRESS_FROM = 500  # records: fewer are read in a moment


@dataclass(frozen=True, slots=True)
class RecordPicture:
    """A picture inside record `index` of a split of the data set built in `folder`, called `name` in messages."""

    folder: str
    split: str
    index: int
    name: str

    def read(self, max_pixels: int) -> np.ndarray:
        return read_image(self._bytes(), max_pixels, self._called)

    def check(self, max_pixels: int) -> int:
        return check_image(self._bytes(), max_pixels, self._called)

    @property
    def _called(self) -> str:
        return f"{self.folder}, {_place(self.split, self.index)}, {self.name}"

    def _bytes(self) -> bytes:
        try:
            found = _records(self.folder, self.split)[self.index]["image"]
        except Exception as error:  # the library raises nearly anything for a damaged file
            raise BadImage(UNREADABLE, f"{self._called}: the record cannot be read ({_reason(error)})") from error
        if not isinstance(found, bytes):
            raise BadImage(UNREADABLE, f"{self._called}: the record holds no encoded picture")
        if len(found) > MAX_BYTES:
            raise BadImage(TOO_LARGE, f"{self._called}: {len(found)} bytes are more than the {MAX_BYTES} allowed")
        return found


def read(path: str) -> Coco:
    """Reads what is known of every image; that means reading every record, about 20 GB of the whole data set.

    Karpathy's splits are the data set's own; what COCO published as train is his train, the rest is val.

    Args:
      path: the folder that holds `coco_captions/`, TFDS's data_dir.

    Raises:
      UserError: no such data set is built there, or it is not what TFDS builds.
    """
    folder = _built(path)
    categories = _categories(folder)
    images: list[CocoImage] = []
    bad: list[BadExample] = []
    for split in karpathy.SPLITS:
        count = _count(folder, split)
        for index in tqdm(range(count), desc=f"reading {split}", unit="record", disable=count <= _PROGRESS_FROM):
            try:
                images.append(_image(folder, split, index, categories))
            except Exception as error:  # a damaged file raises nearly anything, a record of another kind as well
                where = f"{folder}, {_place(split, index)}"
                bad.append(BadExample("unreadable record", f"{where}: the record cannot be read ({_reason(error)})"))
    kind = f"TFDS {FOLDER}/{CONFIG}/{os.path.basename(folder)}"
    return Coco(kind, tuple(images), described({name: SUPERCATEGORY[name] for name in categories}), tuple(bad))


def _built(path: str) -> str:
    """The folder of the newest version that was built."""
    parent = os.path.join(path, FOLDER, CONFIG)
    names = os.listdir(parent) if os.path.isdir(parent) else []
    numbers = [tuple(map(int, name.split("."))) for name in names if re.fullmatch(r"\d{1,9}(\.\d{1,9}){2}", name)]
    for version in sorted(numbers, reverse=True):
        folder = os.path.join(parent, ".".join(map(str, version)))
        if os.path.isfile(os.path.join(folder, "dataset_info.json")):
            return folder
    raise UserError(
        f"{parent}: no version of this data set is built here; expected a folder such as"
        f" {os.path.join(parent, '1.1.0')}, made by 'tfds build {FOLDER}/{CONFIG} --file_format=array_record'"
    )


@functools.lru_cache(maxsize=4)
def _builder(folder: str) -> Any:
    """TFDS's reader of a built data set."""
    _refuse_foreign_classes(os.path.join(folder, "features.json"))
    try:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(folder)
    except Exception as error:
        raise UserError(f"{folder}: TFDS cannot open this data set ({_reason(error)})") from error


def _refuse_foreign_classes(path: str) -> None:
    """TFDS imports whatever class its description of the features names; a data set must not choose what is run."""
    waiting: list[Any] = [load(path, "TFDS's description of the features")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for name in (value.get("pythonClassName"), value.get("type")):  # the second in files of early versions
                if isinstance(name, str) and not name.startswith("tensorflow_datasets."):
                    raise UserError(f"{path}: class {shown(name)} is none of TFDS's own")


@functools.lru_cache(maxsize=16)
def _records(folder: str, split: str) -> Sequence[Mapping[str, Any]]:
    """The records of a split, each read when it is asked for, its picture left encoded. Threads may share it."""
    import tensorflow_datasets as tfds

    return _builder(folder).as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def _count(folder: str, split: str) -> int:
    if split not in _builder(folder).info.splits:
        raise UserError(f"{folder}: there is no split {split!r}; expected {', '.join(karpathy.SPLITS)}")
    try:
        return len(_records(folder, split))
    except Exception as error:
        raise UserError(
            f"{folder}: split {split!r} cannot be read ({_reason(error)}); expected files in array_record format"
        ) from error


def _categories(folder: str) -> list[str]:
    """The names that labels stand for."""
    try:
        names = list(_builder(folder).info.features["objects"]["label"].names)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder}: its features have no objects with labels ({_reason(error)})") from error
    for name in names:
        if name not in SUPERCATEGORY:
            raise UserError(f"{folder}: label {shown(name)} is none of COCO's {len(SUPERCATEGORY)} categories")
    return names


def _image(folder: str, split: str, index: int, categories: Sequence[str]) -> CocoImage:
    record = _records(folder, split)[index]
    name, captions = record["image/filename"].decode(), record["captions"]
    texts = sorted(zip(captions["id"], captions["text"], strict=True))
    return CocoImage(
        id=int(record["image/id"]),
        file_name=name,
        source=folder,
        place=_place(split, index),
        picture=RecordPicture(folder, split, index, name),
        captions=tuple(" ".join(text.decode().split()) for _, text in texts),
        objects=tuple(sorted(_objects(record["objects"], categories), key=lambda thing: thing.id)),
        published="train" if split == "train" else "val",
        karpathy=split,
    )


def _objects(columns: Mapping[str, Sequence], categories: Sequence[str]) -> Iterator[CocoObject]:
    names = ("id", "label", "bbox", "area", "is_crowd")
    for key, label, box, area, crowd in zip(*(columns[name] for name in names), strict=True):
        if not 0 <= label < len(categories):
            raise ValueError(f"label {label} stands for no category")
        top, left, bottom, right = map(float, box)
        category = categories[label]
        yield CocoObject(
            int(key), category, SUPERCATEGORY[category], (left, top, right, bottom), int(area), bool(crowd)
        )


def _place(split: str, index: int) -> str:
    return f"split {split}, record {index}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
