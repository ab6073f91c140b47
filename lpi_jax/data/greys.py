"""Grey images of more than 8 bits: which of their numbers is white, and what is refused because nobody says."""

import numpy as np
from PIL import Image

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
_SIGNED = 2
_DARKEST = 1 << 12  # below it are the 12 bits that cameras and microscopes write into 16, which would look black
_UNIT, _BYTE = (1.0, 1e-3), (255.0, 0.5)  # the two ranges of floats, and how far filters may have gone beyond


def is_deep(image: Image.Image) -> bool:
    """Whether the image is grey with more than 8 bits: Pillow's modes I, I;16 and their like, and F."""
    return image.mode.startswith("I") or image.mode == "F"


def to_8_bits(image: Image.Image) -> np.ndarray:
    """A deep grey image on the scale 0 (black) to 255 (white), rounded.

    16-bit integers reach from 0 to 65535, TIFF's 12-bit ones from 0 to 4095; floats from 0 to 1 or, if any is larger,
    from 0 to 255. A TIFF that stores white as 0 is inverted. A fully transparent value becomes white.

    Returns:
      [H, W] uint8.

    Raises:
      ValueError: integers of 32 bits or with a sign, 16-bit ones that hold 12 or fewer, and floats of another range:
        where they are white is not told.
    """
    values = np.asarray(image)
    # What a file said of itself; turned and hand-made images have no tags.
    tags = getattr(image, "tag_v2", None) or {}
    white = _white_of_floats(values) if image.mode == "F" else _white_of_integers(image, values, tags)
    if image.mode == "F":
        grey = np.rint(np.clip(np.nan_to_num(values), 0, white) * (255.0 / white)).astype(np.uint8)
    else:
        grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
    if isinstance(transparent := image.info.get("transparency"), int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return grey


def _white_of_integers(image: Image.Image, values: np.ndarray, tags: dict) -> int:
    bits = max(tags.get(_BITS, (16,)))
    if bits > 16 or (image.format == "FITS" and image.mode == "I"):
        raise ValueError("its 32-bit grey does not say which number is white; save it with 8 or 16 bits")
    white = 4095 if bits == 12 else 65535
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()) or values.min(initial=0) < 0 or values.max(initial=0) > white:
        raise ValueError(
            f"its grey reaches from {values.min(initial=0)} to {values.max(initial=0)}; expected whole numbers without"
            f" a sign, up to {white}"
        )
    if white == 65535 and 0 < values.max(initial=0) < _DARKEST:
        raise ValueError(
            f"its grey reaches only to {values.max()} of 65535, as fewer bits in a file of 16 do; save it with 8 bits"
        )
    return white


def _white_of_floats(values: np.ndarray) -> float:
    finite = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    low, high = finite.min(initial=0.0), finite.max(initial=0.0)
    for white, beyond in (_UNIT, _BYTE):
        if low >= -beyond and high <= white + beyond:
            return white
    raise ValueError(f"its grey reaches from {low:g} to {high:g}; expected floats from 0 to 1, or from 0 to 255")
