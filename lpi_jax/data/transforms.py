"""Images and captions as the towers want them: resize, crop, flip and normalise; clean a caption.

Resizing follows the original CLIP and torchvision on Pillow images, rounding included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lpi_jax.options import TRAINING, Reader, either, option, with_

if TYPE_CHECKING:
    import jax

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_CROPS = either(
    Reader(
        "by training with config.data.train_transform=random",
        lambda values: TRAINING.reads(values) and values["data.train_transform"] == "random",
    ),
    with_("eval.transform", "random"),
)


@dataclass(frozen=True)
class Options:
    """How training images are cropped, and captions cut."""

    train_transform: str = option("random", "random: crop and flip", choices=("random", "centre"), reader=TRAINING)
    crop_scale: tuple[float, float] = option((0.08, 1.0), "share of the area that a random crop keeps", reader=_CROPS)
    flip: bool = option(True, "whether half of the random crops are mirrored", reader=_CROPS)
    max_words: int = option(30, "of a caption; the rest is left out", least=1)


# A side more than this many times the other is cut before resizing: 1 x 50,000,000 pixels must not become gigabytes.
_LONGEST_RATIO = 32

_DROPPED = str.maketrans(dict.fromkeys(",.'!?\"()*#:;~") | dict.fromkeys("-/", " "))


def resize_and_crop(image: Image.Image, size: int) -> np.ndarray:
    """CLIP's evaluation view: the shorter side is resized to `size` (bicubic, antialiased), then the centre is cut out.

    Equal to torchvision's Resize + CenterCrop on Pillow images, which the original CLIP uses: the longer side
    becomes int(size * long / short), the crop starts at round((side - size) / 2) with halves to even. (Processors
    that start at the floor of it differ by one pixel for some odd differences.)

    Args:
      image: mode RGB, of any size.
      size: side of the result in pixels.

    Returns:
      [size, size, 3] uint8.
    """
    _check_image(image)
    image = _cut_extreme(image)
    width, height = image.size
    short, long = min(height, width), max(height, width)
    long = int(size * long / short)
    new_width, new_height = (size, long) if width <= height else (long, size)
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.array(image.crop((left, top, left + size, top + size)))


def random_crop_and_flip(
    image: Image.Image,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> np.ndarray:
    """The training view: torchvision's RandomResizedCrop (bicubic), then a horizontal flip of every second image.

    Ten times an area (a share of the image's, uniform in `scale`) and an aspect ratio (log-uniform in `ratio`) are
    drawn; the first crop that fits is used, else the largest centred crop whose ratio is allowed.

    Args:
      image: mode RGB, of any size.
      size: side of the result in pixels.
      rng: the only source of chance: the same state gives the same crop.
      scale: share of the area, dimensionless.
      ratio: width / height, dimensionless.
      flip: whether to flip half of the time.

    Returns:
      [size, size, 3] uint8.
    """
    _check_image(image)
    top, left, height, width = random_box(image.height, image.width, rng, scale, ratio)
    crop = image.crop((left, top, left + width, top + height))
    crop = crop.resize((size, size), Image.Resampling.BICUBIC)
    if flip and rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(crop)


def normalise(images: "jax.Array | np.ndarray", mean: Sequence[float], std: Sequence[float]) -> "jax.Array":
    """(images / 255 - mean) / std per channel, computed where the array is put (on the device).

    Args:
      images: [..., 3] uint8.
      mean: 3 floats on the scale 0..1.
      std: 3 floats on the scale 0..1.

    Returns:
      [..., 3] float32.
    """
    import jax.numpy as jnp  # here, because the options above are read where nothing is computed

    if images.dtype != np.uint8 or images.ndim < 1 or images.shape[-1] != 3:
        raise ValueError(f"images must be [..., 3] uint8, not {tuple(images.shape)} {images.dtype}")
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (jnp.asarray(images).astype(jnp.float32) / 255.0 - mean) / std


def clean_caption(text: str, max_words: int = 30) -> str:
    """A caption as the method reads it, in both presets.

    Lower case; , . ' ! ? " ( ) * # : ; ~ dropped; "-" and "/" become spaces; white space becomes single spaces; the
    first `max_words` words; a full stop at the end. Cleaning twice changes nothing.

    Raises:
      ValueError: nothing is left.
    """
    words = text.lower().translate(_DROPPED).split()[:max_words]
    if not words:
        raise ValueError(f"caption {text!r} is empty after cleaning")
    return " ".join(words) + "."


def _check_image(image: Image.Image) -> None:
    if not isinstance(image, Image.Image):
        raise TypeError(f"an image must be a Pillow image, not a {type(image).__name__}; Image.fromarray makes one")
    if image.mode != "RGB" or 0 in image.size:
        raise ValueError(f"an image must be in mode RGB and have pixels, not {image.mode} {image.size}")


def _cut_extreme(image: Image.Image) -> Image.Image:
    limit = _LONGEST_RATIO * min(image.size)
    if max(image.size) <= limit:
        return image
    width, height = (min(side, limit) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def random_box(height: int, width: int, rng: np.random.Generator, scale, ratio) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the random crop; see `random_crop_and_flip`."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        crop_width, crop_height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width, crop_height = width, height
    if width / height < ratio[0]:
        crop_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        crop_width = round(height * ratio[1])
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
