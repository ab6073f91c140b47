"""Images as CLIP's image tower takes them: made square, resized, and normalised on the host."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lpi_jax.data.images import MAX_PIXELS
from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD, resize_and_crop

PUBLISHED = "published"
MOST = math.isqrt(MAX_PIXELS)  # side of a square, pixels: no square has more pixels than an image may have

_COLOUR = tuple(int(255 * mean) for mean in CLIP_MEAN)  # (122, 116, 104)
_MEAN, _STD = np.asarray(CLIP_MEAN, np.float32), np.asarray(CLIP_STD, np.float32)


@dataclass(frozen=True)
class Pictures:
    """How images become the tower's input.

    Attributes:
      size: S, side of the input, pixels. fit: `pad` adds CLIP's mean colour on both sides of the shorter side, `crop`
        cuts the middle out of the longer one, `published` does one or the other as is said with each image.
    """

    size: int
    fit: str = "pad"

    def __call__(self, image: Image.Image, published: str = "pad") -> np.ndarray:
        """Pillow image in mode RGB -> [S, S, 3] float32, (x / 255 - mean) / std of CLIP.

        published: `pad` or `crop`, as the image's benchmark has it.
        """
        fit = published if self.fit == PUBLISHED else self.fit
        pixels = resize_and_crop(squared(image) if fit == "pad" else image, self.size)
        return (pixels.astype(np.float32) / 255 - _MEAN) / _STD

    @property
    def nothing(self) -> np.ndarray:
        """[S, S, 3] float32: what stands for the image of a sample without one."""
        return np.zeros((self.size, self.size, 3), np.float32)


def squared(image: Image.Image) -> Image.Image:
    """The image in the middle of a square of CLIP's mean colour; itself where it is square.

    One whose longer side is above MOST is shrunk first: the square of a strip has many more pixels than the strip.
    """
    if max(image.size) > MOST:
        shrunk = [max(1, round(side * MOST / max(image.size))) for side in image.size]
        image = image.resize((shrunk[0], shrunk[1]), Image.Resampling.BICUBIC)
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), _COLOUR)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
