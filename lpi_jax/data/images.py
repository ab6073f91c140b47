"""Reading images that nobody vouches for: from files, or from inside archives.

The size is checked from the header before a single pixel is decoded, and whatever is wrong with an image ends in
`BadImage`.
"""

import contextlib
import hashlib
import io
import os
import stat
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from lpi_jax.data import greys, png
from lpi_jax.errors import UserError, reason

Source = str | os.PathLike | bytes  # a file, or what stands in it
T = TypeVar("T")

MAX_PIXELS = 50_000_000
MAX_BYTES = 1 << 28  # of one encoded image inside an archive
WHOLE = 1 << 18  # bytes of an encoded image that is looked at wholly
SAMPLE = 4096  # bytes of a larger one that are looked at in each place
MISSING, UNREADABLE, TOO_LARGE = "missing file", "unreadable image", "image too large"

# EXIF tag 0x0112: how the stored image must be turned to be seen upright.
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
    """An image that cannot be used. `kind` is 'missing file', 'unreadable image' or 'image too large'."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):  # an exception with two arguments must say how it crosses a process border
        return BadImage, (self.kind, str(self))


class StoredImage(Protocol):
    """Where one encoded image lies. Plain records, so that they cross process borders; none keeps an image."""

    def read(self, max_pixels: int) -> Image.Image:
        """The decoded image, mode RGB; raises `BadImage`."""
        ...

    def check(self, max_pixels: int) -> int:
        """Looks without decoding; the encoded size in bytes. Raises `BadImage`."""
        ...

    def sample(self) -> bytes:
        """Its encoded bytes, of large ones some (see `parts_sampled`). Raises `BadImage`."""
        ...


def parts_sampled(size: int) -> tuple[tuple[int, int], ...]:
    """(start, length) of what is looked at in an image of so many encoded bytes: all, or head, middle and tail.

    Metadata stand at the head, so that it alone says little about the pixels.
    """
    if size <= WHOLE:
        return ((0, size),)
    return tuple((start, SAMPLE) for start in (0, (size - SAMPLE) // 2, size - SAMPLE))


@dataclass(frozen=True, slots=True)
class ImageInFile:
    """An image in a file of its own."""

    path: str

    def read(self, max_pixels: int) -> Image.Image:
        return read_image(self.path, max_pixels)

    def check(self, max_pixels: int) -> int:
        return check_image(self.path, max_pixels)

    def sample(self) -> bytes:
        _refuse_what_is_no_file(self.path)
        try:
            with open(self.path, "rb") as file:
                sampled = b""
                for start, length in parts_sampled(os.fstat(file.fileno()).st_size):
                    file.seek(start)
                    sampled += file.read(length)
                return sampled
        except OSError as error:
            raise BadImage(MISSING, f"{self.path}: the file cannot be read ({error.strerror})") from error


class EmbeddedImage(ABC):
    """An image that is stored in some larger thing: its kinds say what they are called and get their encoded bytes."""

    __slots__ = ()

    def read(self, max_pixels: int) -> Image.Image:
        return read_image(self._bytes(), max_pixels, self._called)

    def check(self, max_pixels: int) -> int:
        return check_image(self._bytes(), max_pixels, self._called)

    def sample(self) -> bytes:
        content = self._bytes()
        return b"".join(content[start : start + length] for start, length in parts_sampled(len(content)))

    def content_hash(self) -> bytes | None:
        """SHA-256 of the encoded bytes; None where they cannot be read, which `check` will tell."""
        try:
            return hashlib.sha256(self._bytes()).digest()
        except BadImage:
            return None

    @property
    @abstractmethod
    def _called(self) -> str:
        """What messages call the image."""

    @abstractmethod
    def _bytes(self) -> bytes:
        """The encoded image; raises `BadImage`."""


@dataclass(frozen=True, slots=True)
class ImageInside(EmbeddedImage):
    """An image stored uncompressed inside a larger file: `size` bytes from `offset`, called `name` in messages."""

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
                content = file.read(self.size)
        except OSError as error:
            raise BadImage(MISSING, f"{self._called}: the file cannot be read ({error.strerror})") from error
        if len(content) < self.size:
            raise BadImage(UNREADABLE, f"{self._called}: the file ends after {len(content)} of its {self.size} bytes")
        return content


def read_image(source: str | os.PathLike | bytes, max_pixels: int = MAX_PIXELS, name: str = "image") -> Image.Image:
    """Reads any image Pillow reads (except EPS, which would run Ghostscript) as it is meant to be seen.

    Palettes, CMYK and the like become RGB, transparency is laid on white, deeper grey is scaled to 8 bits
    (`greys.to_8_bits`), EXIF orientation is applied, and of an animation the first frame is taken. Colour profiles are
    not applied, and metadata that Pillow refuses do not matter.

    Args:
      source: the file, or its bytes.
      max_pixels: height x width allowed; Pillow's own limit (about 179 million) holds besides.
      name: what messages call an image given as bytes.

    Returns:
      The image, decoded, mode RGB. It stays a Pillow image because whatever cuts or resizes it wants one:
      `numpy.asarray` makes [H, W, 3] uint8 of it, at the price of a copy.

    Raises:
      BadImage: the file is missing, unreadable (truncated included) or too large.
    """
    return _or_without_metadata(_read, source, max_pixels, name)


def _read(source: Source, max_pixels: int, name: str | os.PathLike) -> Image.Image:
    with _quiet_pillow(), _opened(source, name, max_pixels) as opened:
        try:
            opened.load()
            image = as_seen(opened)
            image.info = {}  # metadata may be large, and would tell to turn what has been turned
        except Exception as error:  # damaged files raise nearly anything: OSError, SyntaxError, struct.error, ...
            raise BadImage(UNREADABLE, f"{name}: the image cannot be decoded ({reason(error)})") from error
    _check_size(name, *image.size, max_pixels)  # icons may hold another image than their header says
    return image


def as_seen(image: Image.Image) -> Image.Image:
    """An opened image as it is meant to be seen, mode RGB; `read_image` says what becomes of what.

    Raises whatever Pillow raises for a damaged one.
    """
    return _upright(_rgb(image), image)


def check_image(source: str | os.PathLike | bytes, max_pixels: int = MAX_PIXELS, name: str = "image") -> int:
    """Looks at an image without decoding it: file there, header sound, size allowed, checksums (PNG) right.

    Returns the encoded size in bytes; raises `BadImage` like `read_image`. An image that passes may still fail
    to decode.
    """
    _or_without_metadata(_verify, source, max_pixels, name)
    return len(source) if isinstance(source, bytes) else os.stat(source).st_size


def _verify(source: Source, max_pixels: int, name: str | os.PathLike) -> None:
    with _quiet_pillow(), _opened(source, name, max_pixels) as image:
        try:
            image.verify()
        except Exception as error:
            raise BadImage(UNREADABLE, f"{name}: the image is damaged ({reason(error)})") from error


def _or_without_metadata(
    use: Callable[[Source, int, str | os.PathLike], T], source: Source, max_pixels: int, name: str
) -> T:
    """What `use` makes of the image; where it is unreadable, of the same image without metadata, if it has any."""
    name = name if isinstance(source, bytes) else source
    try:
        return use(source, max_pixels, name)
    except BadImage as error:
        if error.kind != UNREADABLE or (bare := _bare(source)) is None:
            raise
        try:
            return use(bare, max_pixels, name)
        except BadImage:
            raise error from error.__cause__


def _bare(source: Source) -> bytes | None:
    """The encoded image without metadata; None where there is nothing to leave out."""
    if isinstance(source, bytes):
        return png.without_metadata(source)
    try:
        with open(source, "rb") as file:
            if file.read(len(png.SIGNATURE)) != png.SIGNATURE or os.fstat(file.fileno()).st_size > MAX_BYTES:
                return None
            return png.without_metadata(png.SIGNATURE + file.read())
    except OSError:
        return None


@contextlib.contextmanager
def _opened(source: str | os.PathLike | bytes, name: str | os.PathLike, max_pixels: int) -> Iterator[Image.Image]:
    """The image with its header read and its size checked, nothing decoded; closed afterwards whatever happens."""
    if not isinstance(source, bytes):
        _refuse_what_is_no_file(source)
    with contextlib.ExitStack() as stack:
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open(source, "rb"))
            image = stack.enter_context(Image.open(file))
        except Image.DecompressionBombError as error:
            raise BadImage(TOO_LARGE, f"{name}: the image is too large ({error})") from error
        except Image.UnidentifiedImageError as error:
            raise BadImage(UNREADABLE, f"{name}: this is not an image in a known format") from error
        except Exception as error:
            raise BadImage(UNREADABLE, f"{name}: the image cannot be opened ({reason(error)})") from error
        if image.format == "EPS":
            raise BadImage(UNREADABLE, f"{name}: EPS images are programs and are not run; convert it to PNG")
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
            TOO_LARGE, f"{name}: the image has {width} x {height} pixels, more than the {max_pixels} allowed"
        )
    if min(width, height) < 1:
        raise BadImage(UNREADABLE, f"{name}: the image has no pixels ({width} x {height})")


def _upright(image: Image.Image, original: Image.Image) -> Image.Image:
    """The image turned as the metadata of `original`, from which it was made, say."""
    try:
        turn = _UPRIGHT.get(original.getexif().get(_ORIENTATION_TAG))
    except Exception:  # damaged metadata does not make an image unreadable
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """A decoded image of any mode in RGB."""
    if greys.is_deep(image):
        return Image.fromarray(np.repeat(greys.to_8_bits(image)[:, :, None], 3, axis=2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filter = None


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences warnings raised inside Pillow, and only those, while any thread is in here.

    `warnings.catch_warnings` would do, were images not read by many threads: interleaved, it restores the wrong
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
