"""Pictures and captions as the towers want them: read, resize, crop, flip and normalise; clean a caption.

Pictures are untrusted: their size is checked from the header before a single pixel is decoded, and whatever is wrong
with a file ends in `BadImage`. Resizing follows the original CLIP and torchvision on Pillow pictures, rounding
included; captions follow spec section 4.
"""

import contextlib
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lpi_jax.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 50_000_000
MISSING, UNREADABLE, TOO_LARGE = "missing file", "unreadable picture", "picture too large"

# EXIF tag 0x0112: how the stored picture must be turned to be seen upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A side more than this many times the other is cut before resizing: 1 x 50,000,000 pixels must not become gigabytes.
_LONGEST_RATIO = 32

_DROPPED = str.maketrans(dict.fromkeys(",.'!?\"()*#:;~") | dict.fromkeys("-/", " "))


class BadImage(UserError):  # noqa: N818, it names the file, not a failure of ours
    """A picture that cannot be used. `kind` is 'missing file', 'unreadable picture' or 'picture too large'."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):  # an exception with two arguments must say how it crosses a process border
        return BadImage, (self.kind, str(self))


def read_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads any picture Pillow reads (except EPS, which would run Ghostscript) as it is meant to be seen.

    Palettes, CMYK and the like become RGB, transparency is laid on white, 16-bit grey is scaled to 8 bits, EXIF
    orientation is applied, and of an animation the first frame is taken. Colour profiles are not applied.

    Args:
      path: the file.
      max_pixels: height x width allowed; Pillow's own limit (about 179 million) holds besides.

    Returns:
      [H, W, 3] uint8 RGB.

    Raises:
      BadImage: the file is missing, unreadable (truncated included) or too large.
    """
    with _quiet_pillow(), _opened(path, max_pixels) as image:
        try:
            image.load()
            pixels = from_pillow(image)
        except Exception as error:  # damaged files raise nearly anything: OSError, SyntaxError, struct.error, ...
            raise BadImage(UNREADABLE, f"{path}: the picture cannot be decoded ({_reason(error)})") from error
    height, width = pixels.shape[:2]
    _check_size(path, width, height, max_pixels)  # icons may hold another picture than their header says
    return pixels


def from_pillow(image: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8 RGB of an opened picture as it is meant to be seen; `read_image` says what becomes of what."""
    return _rgb(_upright(image))


def check_image(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> int:
    """Looks at a picture without decoding it: file there, header sound, size allowed, checksums (PNG) right.

    Returns the size of the file in bytes; raises `BadImage` like `read_image`. A picture that passes may still fail
    to decode.
    """
    with _quiet_pillow(), _opened(path, max_pixels) as image:
        try:
            image.verify()
        except Exception as error:
            raise BadImage(UNREADABLE, f"{path}: the picture is damaged ({_reason(error)})") from error
    return os.stat(path).st_size


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """CLIP's evaluation view: the shorter side is resized to `size` (bicubic, antialiased), then the centre is cut out.

    Equal to torchvision's Resize + CenterCrop on Pillow pictures, which the original CLIP uses: the longer side
    becomes int(size * long / short), the crop starts at round((side - size) / 2) with halves to even. (Processors
    that start at the floor of it differ by one pixel for some odd differences.)

    Args:
      image: [H, W, 3] uint8.
      size: side of the result in pixels.

    Returns:
      [size, size, 3] uint8.
    """
    _check_pixels(image)
    image = _cut_extreme(image)
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    long = int(size * long / short)
    new_width, new_height = (size, long) if width <= height else (long, size)
    picture = Image.fromarray(image)
    if (new_width, new_height) != (width, height):
        picture = picture.resize((new_width, new_height), Image.Resampling.BICUBIC)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.array(picture.crop((left, top, left + size, top + size)))


def random_crop_and_flip(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> np.ndarray:
    """The training view: torchvision's RandomResizedCrop (bicubic), then a horizontal flip of every second picture.

    Ten times an area (a share of the picture's, uniform in `scale`) and an aspect ratio (log-uniform in `ratio`) are
    drawn; the first crop that fits is used, else the largest centred crop whose ratio is allowed.

    Args:
      image: [H, W, 3] uint8.
      size: side of the result in pixels.
      rng: the only source of chance: the same state gives the same crop.
      scale: share of the area, dimensionless.
      ratio: width / height, dimensionless.
      flip: whether to flip half of the time.

    Returns:
      [size, size, 3] uint8.
    """
    _check_pixels(image)
    top, left, height, width = _random_box(*image.shape[:2], rng, scale, ratio)
    crop = Image.fromarray(np.ascontiguousarray(image[top : top + height, left : left + width]))
    crop = np.array(crop.resize((size, size), Image.Resampling.BICUBIC))
    if flip and rng.random() < 0.5:
        crop = np.ascontiguousarray(crop[:, ::-1])
    return crop


def normalise(images: jax.Array | np.ndarray, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """(images / 255 - mean) / std per channel, computed where the array is put (on the device).

    Args:
      images: [..., 3] uint8.
      mean: 3 floats on the scale 0..1.
      std: 3 floats on the scale 0..1.

    Returns:
      [..., 3] float32.
    """
    if images.dtype != np.uint8 or images.ndim < 1 or images.shape[-1] != 3:
        raise ValueError(f"pictures must be [..., 3] uint8, not {tuple(images.shape)} {images.dtype}")
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (jnp.asarray(images).astype(jnp.float32) / 255.0 - mean) / std


def clean_caption(text: str, max_words: int = 30) -> str:
    """A caption as the method reads it (spec section 4), in both presets.

    Lower case; , . ' ! ? " ( ) * # : ; ~ dropped; "-" and "/" become spaces; white space becomes single spaces; the
    first `max_words` words; a full stop at the end. Cleaning twice changes nothing.

    Raises:
      ValueError: nothing is left.
    """
    words = text.lower().translate(_DROPPED).split()[:max_words]
    if not words:
        raise ValueError(f"caption {text!r} is empty after cleaning")
    return " ".join(words) + "."


@contextlib.contextmanager
def _opened(path: str | os.PathLike, max_pixels: int) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked, nothing decoded; closed afterwards whatever happens."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # before opening: a pipe or a device would block or never end
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise BadImage(UNREADABLE, f"{path}: no permission to read this file") from error
        raise BadImage(MISSING, f"{path}: there is no such file") from error
    if not regular:
        raise BadImage(MISSING, f"{path}: this is not a regular file")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
            image = stack.enter_context(Image.open(file))
        except Image.DecompressionBombError as error:
            raise BadImage(TOO_LARGE, f"{path}: the picture is too large ({error})") from error
        except Image.UnidentifiedImageError as error:
            raise BadImage(UNREADABLE, f"{path}: this is not a picture in a known format") from error
        except Exception as error:
            raise BadImage(UNREADABLE, f"{path}: the picture cannot be opened ({_reason(error)})") from error
        if image.format == "EPS":
            raise BadImage(UNREADABLE, f"{path}: EPS pictures are programs and are not run; convert it to PNG")
        _check_size(path, *image.size, max_pixels)
        yield image


def _check_size(path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(
            TOO_LARGE, f"{path}: the picture has {width} x {height} pixels, more than the {max_pixels} allowed"
        )
    if min(width, height) < 1:
        raise BadImage(UNREADABLE, f"{path}: the picture has no pixels ({width} x {height})")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG))
    except Exception:  # damaged metadata does not make a picture unreadable
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8 of a decoded picture of any mode."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        grey = _grey_to_8_bits(values)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey = np.where(values == transparent, np.uint8(255), grey)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _grey_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Integers are 16-bit (0..65535, rounded to 0..255); floats are 0..1 if they fit in it, else 0..255."""
    if np.issubdtype(values.dtype, np.floating):
        values = np.nan_to_num(values)
        top = 1.0 if values.max() <= 1.0 and values.min() >= 0.0 else 255.0
        return np.rint(np.clip(values, 0, top) * (255.0 / top)).astype(np.uint8)
    return ((np.clip(values, 0, 65535).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _check_pixels(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a picture must be [H, W, 3] uint8, not {image.shape} {image.dtype}")


def _cut_extreme(image: np.ndarray) -> np.ndarray:
    limit = _LONGEST_RATIO * min(image.shape[:2])
    for axis in (0, 1):
        surplus = image.shape[axis] - limit
        if surplus > 0:
            image = image.take(range(surplus // 2, surplus // 2 + limit), axis=axis)
    return image


def _random_box(height: int, width: int, rng: np.random.Generator, scale, ratio) -> tuple[int, int, int, int]:
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


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filter = None


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences warnings raised inside Pillow, and only those, while any thread is in here.

    `warnings.catch_warnings` would do, were pictures not read by many threads: interleaved, it restores the wrong
    filters. So the first reader puts one filter in and the last one takes it out again.
    """
    global _quiet_users, _quiet_filter
    with _quiet_lock:
        _quiet_users += 1
        if _quiet_users == 1:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _quiet_filter = (warnings.filters, warnings.filters[0])
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                inserted_into, entry = _quiet_filter
                _quiet_filter = None
                # They are two lists if somebody entered `catch_warnings` meanwhile.
                for filters in (inserted_into, warnings.filters):
                    if entry in filters:
                        filters.remove(entry)
