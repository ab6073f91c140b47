"""UCIT: six tasks of instruction tuning that LLaVA-1.5 was not tuned on, one after the other, as they are published.

`path` is the folder of the instructions, in this layout (HaiyangGuo/UCIT; other names that a folder has had behind it):

    ImageNet-R/   train.json           test_3000.json
    ArxivQA/      train_4w.json        test_3000.json
    VizWiz/       train.json           test_3000.json  val_coco_type_3000.json       VizWiz-caption/
    IconQA/       train.json           test_3000.json
    CLEVR/        train_4w.json        test_3000.json                                CLEVR-Math/
    Flickr30k/    train_brief_4w.json  test_3000.json  val_coco_type_3000.json       Flickr30k-cap/

Each is a list of records as in CoIN (see `conversations`). `images` is the folder that holds ArxivQA/, CLEVR/, ...

Captions are judged by all of an image's, which stand in val_coco_type_3000.json in COCO's format and belong to records
by the images' file names; without that file the one in test_3000.json is all that counts.
"""

import os
from dataclasses import dataclass

from lpi_jax.data.examples import Fail, failing_at
from lpi_jax.data.formats import json_file
from lpi_jax.data.formats.json_records import Record
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources.benchmark import BenchmarkOptions, Published, References, published
from lpi_jax.data.stream import Stream

CAPTIONS = "val_coco_type_3000.json"
MEASURED = "test_3000.json"


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """What every benchmark reads."""


def ucit(options: Options) -> Stream[Instructed]:
    """UCIT as a stream of its six tasks, or of those that `task_order` names; see `benchmark.published`."""
    return published("UCIT", _TASKS, options)


def _captions(folder: str) -> References | None:
    """All captions by their image's file name, or None if the file is not there."""
    path = os.path.join(folder, CAPTIONS)
    if not os.path.isfile(path):
        return None
    record = json_file.load(path, "captions in COCO's format, an object with the lists images and annotations")
    names: dict[int, str] = {}
    for place, entry in json_file.entries(path, record, "images"):
        fail = failing_at(f"{path}, {place}")
        entry = json_file.checked_object(entry, fail)
        names[json_file.whole_number(entry, "id", fail)] = _base(json_file.text(entry, "file_name", fail))
    known: dict[str, list[str]] = {}
    for place, entry in json_file.entries(path, record, "annotations"):
        fail = failing_at(f"{path}, {place}")
        entry = json_file.checked_object(entry, fail)
        if (number := json_file.whole_number(entry, "image_id", fail)) not in names:
            fail("caption without image", f"image_id is {number}, which is none of the file's images")
        known.setdefault(names[number], []).append(json_file.text(entry, "caption", fail))
    return References(path, {name: tuple(captions) for name, captions in known.items()}, _file_name)


def _file_name(record: Record, fail: Fail) -> str:
    return _base(json_file.text(record, "image", fail))


def _base(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


_TASKS = (
    Published("ImageNet-R", ("ImageNet-R",), "train.json", MEASURED, "exact"),
    Published("ArxivQA", ("ArxivQA",), "train_4w.json", MEASURED, "exact"),
    Published("VizWiz-cap", ("VizWiz", "VizWiz-caption"), "train.json", MEASURED, "caption", _captions),
    Published("IconQA", ("IconQA",), "train.json", MEASURED, "exact"),
    Published("CLEVR-Math", ("CLEVR", "CLEVR-Math"), "train_4w.json", MEASURED, "exact"),
    Published("Flickr30k", ("Flickr30k", "Flickr30k-cap"), "train_brief_4w.json", MEASURED, "caption", _captions),
)
