"""From pictures to the pixels that tests look at, and back."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from lpi_jax.data.stream import Split


def pixels(picture: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8 of a picture, which must be what every source hands out: a Pillow image in mode RGB."""
    assert isinstance(picture, Image.Image) and picture.mode == "RGB"
    return np.asarray(picture)


def shades(split: Split) -> list[int]:
    """The red of every picture's first pixel."""
    return [int(pixels(split.load(i))[0, 0, 0]) for i in range(len(split))]


def loading(arrays: Sequence[np.ndarray]) -> Callable[[int], Image.Image]:
    """`Split.load` of pictures at hand, each [H, W, 3] uint8."""
    return lambda index: Image.fromarray(arrays[index])
