"""Images that a served model is given: arrays, Pillow images and files."""

import os
from typing import Any

import numpy as np
from PIL import Image

from lpi_jax import paths
from lpi_jax.data import images
from lpi_jax.errors import UserError, reason

ImageLike = np.ndarray | Image.Image | str | os.PathLike[str]


def rgb(image: Any) -> Image.Image:
    """An image in mode RGB, from an array, a PIL image or a file (upright, transparency on white).

    Raises:
      UserError: something else, or a file that is missing, damaged or too large.
    """
    if isinstance(image, str | os.PathLike):
        return images.read_image(paths.local(image, "an image"))
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UserError(f"an image is {image.width} x {image.height} pixels, expected at least one")
        try:
            return images.as_seen(image)
        except Exception as error:  # an image that was opened but not loaded may be damaged, or of a grey without white
            raise UserError(f"an image in mode {image.mode} cannot be used ({reason(error)})") from error
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise UserError(
            f"an image is a {type(image).__name__} of rows that differ, expected (height, width, 3)"
        ) from error
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise UserError(f"an image is {array.dtype} {array.shape}, expected uint8 (height, width, 3)")
    return Image.fromarray(array)
