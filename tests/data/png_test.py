"""A PNG with sound pixels is read whatever its metadata are like, and a damaged one stays a bad example."""

import struct
import zlib

import numpy as np
import pytest

from lpi_jax.data import png
from lpi_jax.data.images import BadImage, ImageInside, check_image, read_image
from tests.support.pixels import pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
BIG = b"x" * 1_500_000


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def written(before: bytes = b"", after: bytes = b"", cut: int = 0) -> bytes:
    """A PNG of PIXELS with other chunks before and after its pixels, whose last bytes may be missing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 8, 2, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
    return png.SIGNATURE + header + before + chunk(b"IDAT", data[: len(data) - cut]) + after + chunk(b"IEND", b"")


METADATA = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(BIG)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
    "ICC": chunk(b"iCCP", b"profile\0\0" + zlib.compress(BIG)),
    "65 megabytes of text": b"".join(chunk(b"tEXt", b"Comment\0" + b"y" * 1_000_000) for _ in range(65)),
    "text that does not unpack": chunk(b"zTXt", b"Comment\0\0" + b"no zlib stream"),
    "a wrong checksum": chunk(b"tEXt", b"Comment\0short")[:-1] + b"?",
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("where", ["before", "after"])
def test_sound_pixels_are_read_beside_any_metadata(tmp_path, name, where):
    file = written(**{where: METADATA[name]})
    path = tmp_path / "a.png"
    path.write_bytes(b"front" + file + b"back")
    inside = ImageInside(str(path), 5, len(file), "member 'a.png'")
    (tmp_path / "b.png").write_bytes(file)
    for image in (read_image(file), read_image(tmp_path / "b.png"), inside.read(1000)):
        np.testing.assert_array_equal(pixels(image), PIXELS)
    assert check_image(file) == check_image(tmp_path / "b.png") == inside.check(1000) == len(file)


def test_transparency_and_orientation_are_no_metadata_that_may_go(tmp_path):
    clear = struct.pack(">3H", *map(int, PIXELS[0, 0]))
    turned = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: by a quarter
    read = pixels(read_image(written(METADATA["zTXt"] + chunk(b"tRNS", clear) + chunk(b"eXIf", turned))))
    expected = PIXELS.copy()
    expected[(PIXELS[0, 0] == PIXELS).all(-1)] = 255
    np.testing.assert_array_equal(read, np.rot90(expected, -1))


def test_damaged_pixels_are_told_as_before_though_there_is_metadata_too():
    file = written(METADATA["zTXt"], cut=40)
    with pytest.raises(BadImage, match=r"the image cannot be (opened|decoded)"):
        read_image(file)
    cut = written(METADATA["zTXt"])[:-30]
    for look in (read_image, check_image):
        with pytest.raises(BadImage) as raised:
            look(cut)
        assert raised.value.kind == "unreadable image"


def test_chunks_that_make_no_sense_stay_as_they_are():
    assert png.without_metadata(b"no PNG") is None
    assert png.without_metadata(written()) is None
    endless = png.SIGNATURE + struct.pack(">I4s", 2**31, b"tEXt") + b"..."
    assert png.without_metadata(endless) is None
