"""From images to the pixels that tests look at, and back."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from lpi_jax.data.stream import Split


def pixels(image: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8 of an image, which must be what every source hands out: a Pillow image in mode RGB."""
    assert isinstance(image, Image.Image) and image.mode == "RGB"
    return np.asarray(image)


def shades(split: Split) -> list[int]:
    """The red of every image's first pixel."""
    return [int(pixels(split.load(i))[0, 0, 0]) for i in range(len(split))]


def loading(arrays: Sequence[np.ndarray]) -> Callable[[int], Image.Image]:
    """`Split.load` of images at hand, each [H, W, 3] uint8."""
    return lambda index: Image.fromarray(arrays[index])
