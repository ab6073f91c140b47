"""From pictures with what is asked about them to a split; shared by the tasks and the general samples."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lpi_jax.data.questions.picture import Box, Picture

VERSION = 3  # raise it with any change that alters an image or a word
SPLITS = {"train": 0, "val": 1}
CONTENT, WORDS, PLACES, PIXELS, TURNS, UNSEEN = range(6)  # what a random generator is for


@dataclass(frozen=True)
class Origin:
    """Where samples come from; each of their random generators follows from it and the sample's index."""

    name: str
    split: str
    seed: int

    def rng(self, purpose: int, index: int = 0) -> np.random.Generator:
        """The generator of one sample for one purpose."""
        key = [VERSION, purpose, self.seed, zlib.crc32(self.name.encode()), SPLITS[self.split], index]
        return np.random.default_rng(key)

    def turn(self, purpose: int, index: int, count: int) -> int:
        """Whose turn of `count` it is: each comes once in every `count` samples, in a random order."""
        block, at = divmod(index, count)
        return int(self.rng(purpose, block).permutation(count)[at])

    def key(self, index: int) -> str:
        """A sample's name."""
        return f"questions/{self.name}/{self.split}/{self.seed}/{index}"

    def boxes(self, picture: Picture, index: int) -> tuple[Box, ...]:
        """Where the things of a sample's picture are."""
        return picture.boxes(self.rng(PLACES, index))


@dataclass(frozen=True)
class Images:
    """A split's images; a method of it can be sent to other processes. pictures: None where there is no image."""

    origin: Origin
    pictures: Sequence[Picture | None]
    size: int

    def load(self, index: int) -> Image.Image:
        """size x size, mode RGB; black where there is no image."""
        picture = self.pictures[index]
        if picture is None:
            return Image.new("RGB", (self.size, self.size))
        places, pixels = (self.origin.rng(purpose, index) for purpose in (PLACES, PIXELS))
        return picture.image(places, pixels, self.size)


def annotation(picture: Picture, size: int, box: Box | None = None) -> Mapping[str, Any]:
    """What is known of an image: its things, its size [w, h] and the box that is asked for."""
    known: dict[str, Any] = {"things": picture.things, "size": (size, size)}
    return known if box is None else known | {"box": box}
