"""Images with captions: what a split of them holds, and the pairs of image and caption that are learned from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lpi_jax.data.stream import Split


@dataclass(frozen=True, slots=True)
class Captioned:
    """One image's captions.

    Attributes:
      key: a name of the image, unique in its split (a path, or a generator's coordinates).
      captions: one or more, as written by their author (not yet cleaned).
      annotation: what else is known of the image (objects, boxes, relations); None where nothing is.
    """

    key: str
    captions: tuple[str, ...]
    annotation: Any = None


def spoken(split: Split[Captioned]) -> list[str]:
    """All captions of a split, image after image."""
    return [caption for record in split.records for caption in record.captions]


def pairs(split: Split[Captioned]) -> np.ndarray:
    """[N, 2] int32 rows (image index, caption index within the image): each caption is one training example."""
    rows = [(image, caption) for image, record in enumerate(split.records) for caption in range(len(record.captions))]
    return np.asarray(rows, np.int32).reshape(-1, 2)
