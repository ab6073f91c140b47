"""Reading pictures that nobody vouches for: from files, or from inside archives.

The size is checked from the header before a single pixel is decoded, and whatever is wrong with a picture ends in
`BadImage`.
"""

import contextlib
import io
import os
import stat
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from lpi_jax.errors import UserError, reason

MAX_PIXELS = 50_000_000
MAX_BYTES = 1 << 28  # of one encoded picture inside an archive
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


class BadImage(UserError):  # noqa: N818, it names the file, not a failure of ours
    """A picture that cannot be used. `kind` is 'missing file', 'unreadable picture' or 'picture too large'."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):  # an exception with two arguments must say how it crosses a process border
        return BadImage, (self.kind, str(self))


class Picture(Protocol):
    """Where one encoded picture lies. Plain records, so that they cross process borders; none keeps a picture."""

    def read(self, max_pixels: int) -> Image.Image:
        """The decoded picture, mode RGB; raises `BadImage`."""
        ...

    def check(self, max_pixels: int) -> int:
        """Looks without decoding; the encoded size in bytes. Raises `BadImage`."""
        ...


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture in a file of its own."""

    path: str

    def read(self, max_pixels: int) -> Image.Image:
        return read_image(self.path, max_pixels)

    def check(self, max_pixels: int) -> int:
        return check_image(self.path, max_pixels)


class StoredPicture(ABC):
    """A picture that is stored in some larger thing: its kinds say what they are called and get their encoded bytes."""

    __slots__ = ()

    def read(self, max_pixels: int) -> Image.Image:
        return read_image(self._bytes(), max_pixels, self._called)

    def check(self, max_pixels: int) -> int:
        return check_image(self._bytes(), max_pixels, self._called)

    @property
    @abstractmethod
    def _called(self) -> str:
        """What messages call the picture."""

    @abstractmethod
    def _bytes(self) -> bytes:
        """The encoded picture; raises `BadImage`."""


@dataclass(frozen=True, slots=True)
class PictureInside(StoredPicture):
    """A picture stored uncompressed inside a larger file: `size` bytes from `offset`, called `name` in messages."""

    path: str
    offset: int
    size: int
    name: str

    @property
    def _called(self) -> str:
        return f"{self.path}, {self.name}"

    def _bytes(self) -> bytes:
        if self.size > MAX_BYTES:
            raise BadImage(TOO_LARGE, f"{self._called}: {self.size} bytes are more than the {MAX_BYTES} allowed")
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                found = file.read(self.size)
        except OSError as error:
            raise BadImage(MISSING, f"{self._called}: the file cannot be read ({error.strerror})") from error
        if len(found) < self.size:
            raise BadImage(UNREADABLE, f"{self._called}: the file ends after {len(found)} of its {self.size} bytes")
        return found


def read_image(source: str | os.PathLike | bytes, max_pixels: int = MAX_PIXELS, name: str = "picture") -> Image.Image:
    """Reads any picture Pillow reads (except EPS, which would run Ghostscript) as it is meant to be seen.

    Palettes, CMYK and the like become RGB, transparency is laid on white, 16-bit grey is scaled to 8 bits, EXIF
    orientation is applied, and of an animation the first frame is taken. Colour profiles are not applied.

    Args:
      source: the file, or its bytes.
      max_pixels: height x width allowed; Pillow's own limit (about 179 million) holds besides.
      name: what messages call a picture given as bytes.

    Returns:
      The picture, decoded, mode RGB. It stays a Pillow image because whatever cuts or resizes it wants one:
      `numpy.asarray` makes [H, W, 3] uint8 of it, at the price of a copy.

    Raises:
      BadImage: the file is missing, unreadable (truncated included) or too large.
    """
    name = name if isinstance(source, bytes) else source
    with _quiet_pillow(), _opened(source, name, max_pixels) as image:
        try:
            image.load()
            picture = as_seen(image)
            picture.info = {}  # metadata may be large, and would tell to turn what has been turned
        except Exception as error:  # damaged files raise nearly anything: OSError, SyntaxError, struct.error, ...
            raise BadImage(UNREADABLE, f"{name}: the picture cannot be decoded ({reason(error)})") from error
    _check_size(name, *picture.size, max_pixels)  # icons may hold another picture than their header says
    return picture


def as_seen(image: Image.Image) -> Image.Image:
    """An opened picture as it is meant to be seen, mode RGB; `read_image` says what becomes of what.

    Raises whatever Pillow raises for a damaged one.
    """
    return _rgb(_upright(image))


def check_image(source: str | os.PathLike | bytes, max_pixels: int = MAX_PIXELS, name: str = "picture") -> int:
    """Looks at a picture without decoding it: file there, header sound, size allowed, checksums (PNG) right.

    Returns the encoded size in bytes; raises `BadImage` like `read_image`. A picture that passes may still fail
    to decode.
    """
    name = name if isinstance(source, bytes) else source
    with _quiet_pillow(), _opened(source, name, max_pixels) as image:
        try:
            image.verify()
        except Exception as error:
            raise BadImage(UNREADABLE, f"{name}: the picture is damaged ({reason(error)})") from error
    return len(source) if isinstance(source, bytes) else os.stat(source).st_size


@contextlib.contextmanager
def _opened(source: str | os.PathLike | bytes, name: str | os.PathLike, max_pixels: int) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked, nothing decoded; closed afterwards whatever happens."""
    if not isinstance(source, bytes):
        _refuse_what_is_no_file(source)
    with contextlib.ExitStack() as stack:
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open(source, "rb"))
            image = stack.enter_context(Image.open(file))
        except Image.DecompressionBombError as error:
            raise BadImage(TOO_LARGE, f"{name}: the picture is too large ({error})") from error
        except Image.UnidentifiedImageError as error:
            raise BadImage(UNREADABLE, f"{name}: this is not a picture in a known format") from error
        except Exception as error:
            raise BadImage(UNREADABLE, f"{name}: the picture cannot be opened ({reason(error)})") from error
        if image.format == "EPS":
            raise BadImage(UNREADABLE, f"{name}: EPS pictures are programs and are not run; convert it to PNG")
        _check_size(name, *image.size, max_pixels)
        yield image


def _refuse_what_is_no_file(path: str | os.PathLike) -> None:
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # before opening: a pipe or a device would block or never end
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise BadImage(UNREADABLE, f"{path}: no permission to read this file") from error
        raise BadImage(MISSING, f"{path}: there is no such file") from error
    if not regular:
        raise BadImage(MISSING, f"{path}: this is not a regular file")


def _check_size(name, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(
            TOO_LARGE, f"{name}: the picture has {width} x {height} pixels, more than the {max_pixels} allowed"
        )
    if min(width, height) < 1:
        raise BadImage(UNREADABLE, f"{name}: the picture has no pixels ({width} x {height})")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG))
    except Exception:  # damaged metadata does not make a picture unreadable
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """A decoded picture of any mode in RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        grey = _grey_to_8_bits(values)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey = np.where(values == transparent, np.uint8(255), grey)
        return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_to_8_bits(values: np.ndarray) -> np.ndarray:
    """Integers are 16-bit (0..65535, rounded to 0..255); floats are 0..1 if they fit in it, else 0..255."""
    if np.issubdtype(values.dtype, np.floating):
        values = np.nan_to_num(values)
        top = 1.0 if values.max() <= 1.0 and values.min() >= 0.0 else 255.0
        return np.rint(np.clip(values, 0, top) * (255.0 / top)).astype(np.uint8)
    return ((np.clip(values, 0, 65535).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


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
