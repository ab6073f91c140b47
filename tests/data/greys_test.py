"""Grey images of more than 8 bits are as dark as they were meant, or bad examples; not white or black by mistake."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data.images import BadImage, as_seen, read_image
from tests.support.pixels import pixels


def stored(values: np.ndarray, kind: str = "TIFF") -> bytes:
    data = io.BytesIO()
    Image.fromarray(values).save(data, kind)
    return data.getvalue()


def tiff(values: list[int], bits: int, white: int = 1, signed: bool = False) -> bytes:
    """One row of grey in a TIFF as scanners and cameras write them; white: 1, or 0 where white is stored as 0."""
    packed = "".join(f"{value:0{bits}b}" for value in values)
    if bits == 12:  # packed without gaps, the high bits first
        data = int(packed.ljust(-(-len(packed) // 8) * 8, "0"), 2).to_bytes(-(-len(packed) // 8), "big")
    else:
        data = b"".join(value.to_bytes(bits // 8, "little", signed=signed) for value in values)
    start = 8 + 2 + 10 * 12 + 4
    numbers = {256: len(values), 257: 1, 258: bits, 259: 1, 262: white, 273: start, 277: 1, 278: 1, 279: len(data)}
    numbers[339] = 2 if signed else 1
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in numbers.items())
    return b"II*\0" + struct.pack("<IH", 8, 10) + entries + struct.pack("<I", 0) + data


def grey(source: bytes) -> list[int]:
    row = pixels(read_image(source))[0]
    assert (row == row[:, :1]).all()
    return row[:, 0].tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_reach_from_0_to_65535(kind):
    assert grey(stored(np.array([[0, 257, 32896, 65535]], np.uint16), kind)) == [0, 1, 128, 255]
    assert grey(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32896, 65535)) == [0, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bits_or_fewer_in_a_file_of_16_are_a_bad_example_for_they_would_be_black(kind):
    for brightest in (1, 255, 4095):
        with pytest.raises(BadImage, match=rf"its grey reaches only to {brightest} of 65535.*; save it with 8 bits"):
            read_image(stored(np.array([[0, brightest]], np.uint16), kind))
    assert grey(stored(np.array([[0, 4096]], np.uint16), kind)) == [0, 16]
    assert grey(stored(np.array([[0, 0]], np.uint16), kind)) == [0, 0]
    with pytest.raises(ValueError, match="its grey reaches only to 4095 of 65535"):
        as_seen(Image.fromarray(np.array([[0, 4095]], np.int32)))


def test_12_bits_reach_from_0_to_4095():
    assert grey(tiff([0, 2048, 4095, 16], 12)) == [0, 128, 255, 1]
    assert grey(b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)) == [0, 128, 255]


def test_a_tiff_that_stores_white_as_0_is_inverted():
    assert grey(tiff([0, 32896, 65535], 16)) == [0, 128, 255]
    assert grey(tiff([0, 32896, 65535], 16, white=0)) == [255, 127, 0]


def test_floats_reach_from_0_to_1_or_from_0_to_255():
    assert grey(stored(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))) == [0, 128, 255, 0]
    assert grey(stored(np.array([[-0.0005, 0.5, 1.0004]], np.float32))) == [0, 128, 255]  # filters overshoot a little
    assert grey(stored(np.array([[0.0, 100.4, 255.3]], np.float32))) == [0, 100, 255]


@pytest.mark.parametrize("values", [[0, 300.0], [-3.0, 1.0], [0, 65535.0], [0, np.inf], [0, 1e30]])
def test_floats_of_another_range_are_a_bad_example(values):
    with pytest.raises(BadImage, match=r"its grey reaches from .* expected floats from 0 to 1, or from 0 to 255\)$"):
        read_image(stored(np.array([values], np.float32)))


@pytest.mark.parametrize("values", [[0, 1, 255], [0, 70_000], [0, 2**31 - 1]])
def test_32_bits_are_a_bad_example_for_nobody_says_where_white_is(values):
    with pytest.raises(BadImage, match="its 32-bit grey does not say which number is white; save it with 8 or 16 bits"):
        read_image(stored(np.array([values], np.int32)))
    with pytest.raises(BadImage, match="32-bit grey"):
        read_image(tiff([abs(value) for value in values], 32))


@pytest.mark.parametrize("values", [[-5, 100], [0, 100]])
def test_numbers_with_a_sign_are_a_bad_example(values):
    with pytest.raises(BadImage, match=r"its grey reaches from -?\d to 100; expected whole numbers without a sign"):
        read_image(tiff(values, 16, signed=True))


def test_images_made_in_memory_are_held_to_the_same_ranges():
    assert pixels(as_seen(Image.fromarray(np.array([[0, 32896, 65535]], np.int32))))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match="its grey reaches from 0 to 65536"):
        as_seen(Image.fromarray(np.array([[0, 65536]], np.int32)))
