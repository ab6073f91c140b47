"""Small copies of COCO in exactly the two published formats, for the tests of everything that reads it."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from lpi_jax.data.sources.coco_tasks import CATEGORIES

# As published: 80 categories, numbered 1 to 90 with gaps.
NAMES = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,
bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,
skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,
wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,
chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,
toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush
""".replace("\n", "").split(",")
NUMBERS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
SUPERCATEGORY = {name: task for task, names in CATEGORIES.items() for name in names}
CATEGORY = dict(zip(NAMES, NUMBERS, strict=True))


class Photo(NamedTuple):
    """objects: (category, area, crowd)."""

    id: int
    half: str
    karpathy: str
    objects: tuple[tuple[str, float, int], ...]
    captions: tuple[str, ...] = ("A thing.", "Something\n else\t here. ")
    mode: str = "RGB"

    @property
    def name(self) -> str:
        return f"COCO_{self.half}2014_{self.id:012d}.jpg"

    @property
    def size(self) -> tuple[int, int]:
        return 8 + self.id, 10


PHOTOS = (
    Photo(1, "train", "train", (("cat", 100.6, 0), ("car", 100.2, 0))),  # equal once fractions are dropped
    Photo(2, "train", "train", (("dog", 500.5, 0), ("dog", 20, 0)), mode="L"),
    Photo(3, "train", "train", (("person", 50.5, 0), ("person", 50.5, 0), ("dog", 400, 1))),
    Photo(4, "train", "train", (("bus", 60, 0),), mode="CMYK"),
    Photo(5, "train", "train", (("person", 1000, 0),)),
    Photo(6, "train", "train", ()),
    Photo(11, "val", "test", (("cat", 10, 0),), ("A cat\nsits.\n",)),
    Photo(12, "val", "test", (("truck", 10, 0),)),
    Photo(13, "val", "test", (("person", 30, 1),)),
    Photo(14, "val", "restval", (("zebra", 10, 0),)),
    Photo(15, "val", "val", (("car", 10, 0),)),
    Photo(16, "val", "val", (("horse", 10, 0),)),
    Photo(17, "val", "val", (("person", 10, 0),)),
)


def box(photo: Photo, number: int) -> list[float]:
    """x, y, width, height in pixels of the photo's object."""
    return [number + 0.5, 1.0, photo.size[0] / 2, 4.25]


def write_coco(folder: Path, photos=PHOTOS) -> Path:
    """The published layout."""
    (folder / "annotations").mkdir(parents=True)
    categories = [{"supercategory": SUPERCATEGORY[name], "id": CATEGORY[name], "name": name} for name in NAMES]
    karpathy = []
    for half in ("train", "val"):
        (folder / f"{half}2014").mkdir()
        images, objects, captions = [], [], []
        for photo in (photo for photo in reversed(photos) if photo.half == half):
            width, height = photo.size
            Image.new(photo.mode, photo.size, 7 * photo.id).save(folder / f"{half}2014" / photo.name, "JPEG")
            images.append(
                {"license": 5, "file_name": photo.name, "coco_url": "http://images", "height": height, "width": width}
                | {"date_captured": "2013-11-14 16:28:13", "flickr_url": "http://farm4", "id": photo.id}
            )
            for number, (category, area, crowd) in reversed(list(enumerate(photo.objects))):
                objects.append(
                    {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "area": area, "iscrowd": crowd}
                    | {"image_id": photo.id, "bbox": box(photo, number), "category_id": CATEGORY[category]}
                    | {"id": 1000 * photo.id + number}
                )
            numbered = list(enumerate(photo.captions))
            captions += [
                {"image_id": photo.id, "id": 9000 + 10 * photo.id + i, "caption": c} for i, c in numbered[::-1]
            ]
            karpathy.append(
                {"filepath": f"{half}2014", "sentids": [9000 + 10 * photo.id + i for i, _ in numbered]}
                | {"filename": photo.name, "imgid": len(karpathy), "split": photo.karpathy, "cocoid": photo.id}
                | {"sentences": [{"tokens": caption.split(), "raw": caption} for _, caption in numbered]}
            )
        head = {"info": {"year": 2014}, "images": images, "licenses": [{"id": 5}]}
        for name, rest in (("captions", {"annotations": captions}), ("instances", {"annotations": objects})):
            more = {"categories": categories} if name == "instances" else {}
            (folder / "annotations" / f"{name}_{half}2014.json").write_text(json.dumps(head | rest | more))
    (folder / "dataset_coco.json").write_text(json.dumps({"images": karpathy, "dataset": "coco"}))
    return folder


class CocoCaptions(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes what TFDS's builder of this name writes, from a folder in the published layout."""

    name = "coco_captions"
    code_path = None  # where TFDS would look for checksums of downloads, of which there are none
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014", version=tfds.core.Version("1.1.0"), description="2014")]  # noqa: RUF012

    def __init__(self, source: Path, photos=PHOTOS, splits=("train", "val", "test", "restval"), names=NAMES, **kwargs):
        self._source, self._photos, self._splits, self._names = source, photos, splits, names
        super().__init__(config="2014", file_format="array_record", **kwargs)

    def _info(self):
        features = tfds.features
        objects = {
            "id": np.int64,
            "area": np.int64,
            "bbox": features.BBoxFeature(),
            "label": features.ClassLabel(num_classes=80),
            "is_crowd": np.bool_,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "image": features.Image(encoding_format="jpeg"),
                    "image/filename": features.Text(),
                    "image/id": np.int64,
                    "objects": features.Sequence(objects),
                    "captions": features.Sequence({"text": np.str_, "id": np.int64}),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        self.info.features["objects"]["label"].names = self._names
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split):
        for photo in (photo for photo in self._photos if photo.karpathy == split):
            objects = []
            for number, (category, area, crowd) in enumerate(photo.objects):
                x, y, w, h = box(photo, number)
                width, height = photo.size
                corners = tfds.features.BBox(y / height, x / width, (y + h) / height, (x + w) / width)
                label = self._names[NAMES.index(category)]
                thing = {"id": 1000 * photo.id + number, "area": area, "bbox": corners, "label": label}
                objects.append(thing | {"is_crowd": bool(crowd)})
            yield (
                photo.name,
                {
                    "image": (self._source / f"{photo.half}2014" / photo.name).read_bytes(),
                    "image/filename": photo.name,
                    "image/id": photo.id,
                    "objects": objects,
                    "captions": [{"id": 10 * photo.id + i, "text": text} for i, text in enumerate(photo.captions)],
                },
            )


def write_tfds(folder: Path, source: Path, **kwargs) -> Path:
    """A built data set; returns the data_dir."""
    tfds.disable_progress_bar()
    CocoCaptions(source, data_dir=folder, **kwargs).download_and_prepare()
    return folder


def numbers(stream) -> dict[str, tuple[list[int], list[int]]]:
    """task -> numbers of its train and val images."""
    return {
        task.name: tuple([int(key[-16:-4]) for key in split.keys] for split in (task.train, task.val))
        for task in stream.tasks
    }


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def edit_records(shard: Path, change: Callable[[Any], Any]) -> None:
    """Lets `change` edit the features of each record, as they are stored."""
    with closing(ArrayRecordReader(str(shard))) as reader:
        examples = [tf_example_pb2.Example.FromString(raw) for raw in reader.read_all()]
    with closing(ArrayRecordWriter(str(shard), "group_size:1")) as writer:
        for example in examples:
            change(example.features.feature)
            writer.write(example.SerializeToString())


def manifest(folder: Path, *rows: str, header: str = "image_id,task,split") -> str:
    path = folder / "given.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return str(path)


FOUR = ("6,toys,train", "11,toys,val", "1,animal,train", "12,animal,val")
