"""COCO in twelve tasks: what is known of an image, and the rule that gives it its one task.

The tasks are COCO's supercategories, or those of other data in its format. LPI's authors did not publish which image
they gave to which, nor their rule; ours are these, and the one that was used stands in every result.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpi_jax.data.examples import BadExample
from lpi_jax.data.images import StoredImage

CATEGORIES = {
    "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
    "sports": (
        *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
        *("surfboard", "tennis racket"),
    ),
    "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
    "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    "food": ("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "person": ("person",),
}
TASKS = tuple(CATEGORIES)  # in the order of the release and of the bundled similarity table
SUPERCATEGORY = {category: task for task, categories in CATEGORIES.items() for category in categories}

LARGEST_AREA, MOST_OBJECTS, SINGLE_ONLY, MANIFEST = "largest_area", "most_objects", "single_only", "manifest"
RULES = (LARGEST_AREA, MOST_OBJECTS, SINGLE_ONLY, MANIFEST)


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One annotated object.

    Attributes:
      id: COCO's number of the annotation.
      category: its name, as in "potted plant".
      task: the category's supercategory.
      box: left, top, right, bottom as shares of the image's width and height, 0..1.
      area: of the segmentation, in whole square pixels: fractions are dropped, as TFDS drops them, so that a rule finds
        the same task in both sources.
      crowd: whether it stands for a group of objects that were not told apart.
    """

    id: int
    category: str
    task: str
    box: tuple[float, float, float, float]
    area: int
    crowd: bool


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image with all that is known of it.

    Attributes:
      id: COCO's number of the image.
      file_name: its file, without the folder.
      source, place: the file that names it and where in it, for messages.
      stored: where it lies.
      captions: by COCO's number of the caption, white space made single; there may be none.
      objects: by COCO's number of the annotation; there may be none.
      published: train or val, as COCO published it.
      karpathy: Karpathy's split; None: unknown to his file, or his file was not asked.
    """

    id: int
    file_name: str
    source: str
    place: str
    stored: StoredImage
    captions: tuple[str, ...]
    objects: tuple[CocoObject, ...]
    published: str
    karpathy: str | None

    @property
    def where(self) -> str:
        return f"{self.source}, {self.place}"


@dataclass(frozen=True)
class Coco:
    """All that a copy of COCO holds.

    Attributes:
      kind: which form of it was read, for the notes.
      images: in any order.
      descriptions: task -> what it is about.
      bad: what belongs to no image.
    """

    kind: str
    images: tuple[CocoImage, ...]
    descriptions: Mapping[str, str]
    bad: tuple[BadExample, ...]


def described(categories: Mapping[str, str]) -> dict[str, str]:
    """task -> "vehicle: bicycle, car, ..." of category -> task, in their order; a task's own name is not repeated."""
    by_task: dict[str, list[str]] = {}
    for category, task in categories.items():
        by_task.setdefault(task, []).append(category)
    return {task: task if names == [task] else f"{task}: {', '.join(names)}" for task, names in by_task.items()}


def task_of(objects: Sequence[CocoObject], rule: str) -> str | None:
    """The one task of an image with these objects; None where the rule gives it none, as where there are no objects.

    Args:
      objects: of one image. A crowd counts with its area, and as one object.
      rule: 'largest_area': the task whose objects cover the largest area together (each with its whole area, also where
        they overlap); 'most_objects': the task with most objects; 'single_only': the task of all objects.
        Of several tasks that are equal, the first by `place_of`.
    """
    weights: Counter[str] = Counter()
    for thing in objects:
        weights[thing.task] += thing.area if rule == LARGEST_AREA else 1
    if not weights or (rule == SINGLE_ONLY and len(weights) > 1):
        return None
    return max(sorted(weights, key=place_of), key=weights.__getitem__)


def place_of(task: str) -> tuple[int, str]:
    """What tasks are sorted by: COCO's own in the order of `TASKS`, others by name after them."""
    return (TASKS.index(task), "") if task in TASKS else (len(TASKS), task)
