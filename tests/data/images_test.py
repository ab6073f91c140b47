"""Images of every kind are read as they are meant to be seen, and bad ones are named."""

import io
import os
import pickle
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from lpi_jax.data import images
from lpi_jax.data.images import BadImage, ImageInFile, ImageInside, as_seen, check_image, read_image
from tests.support.pixels import pixels


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height, width):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], -1).astype(np.uint8)


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def seen(source, **options):
    """The pixels of an image as it is read."""
    return pixels(read_image(source, **options))


def png_declaring(width, height):
    """A few bytes that claim to be a huge image."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_rgb_png_comes_back_exactly(tmp_path):
    expected = noise(7, 11)
    read = seen(saved(tmp_path, Image.fromarray(expected), "a.png"))
    np.testing.assert_array_equal(read, expected, strict=True)


def test_transparency_is_laid_on_white(tmp_path):
    rgba = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    rgba.putpixel((1, 2), (200, 0, 0, 255))
    rgba.putpixel((2, 2), (0, 0, 0, 127))
    read = seen(saved(tmp_path, rgba, "a.png"))
    assert tuple(read[0, 0]) == (255, 255, 255)
    assert tuple(read[2, 1]) == (200, 0, 0)
    assert tuple(read[2, 2]) == (128, 128, 128)


@pytest.mark.parametrize("alpha", [0, bytes([0, 255])])
def test_palette_with_transparency_is_laid_on_white(tmp_path, alpha):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 90, 80, 70] + [0] * 762)
    image.putpixel((3, 1), 1)
    read = seen(saved(tmp_path, image, "a.png", transparency=alpha))
    assert tuple(read[0, 0]) == (255, 255, 255)
    assert tuple(read[1, 3]) == (90, 80, 70)


def test_grey_with_alpha_and_bilevel(tmp_path):
    grey = Image.new("LA", (2, 1), (40, 255))
    grey.putpixel((1, 0), (40, 0))
    assert seen(saved(tmp_path, grey, "a.png"))[0].tolist() == [[40] * 3, [255] * 3]
    bilevel = Image.new("1", (2, 1), 0)
    bilevel.putpixel((1, 0), 1)
    assert seen(saved(tmp_path, bilevel, "b.png"))[0].tolist() == [[0] * 3, [255] * 3]


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg", quality=95)
    np.testing.assert_allclose(seen(path)[8, 8], (255, 0, 0), atol=4)


def test_first_frame_of_an_animation(tmp_path):
    red, blue = Image.new("RGB", (5, 3), "red"), Image.new("RGB", (5, 3), "blue")
    path = saved(tmp_path, red, "a.gif", save_all=True, append_images=[blue])
    read = seen(path)
    assert read.shape == (3, 5, 3) and tuple(read[1, 1]) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    stored = Image.fromarray(noise(3, 5))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, stored, "a.png", exif=exif)
    a = np.asarray(stored)
    upright = {
        1: a,
        2: a[:, ::-1],
        3: a[::-1, ::-1],
        4: a[::-1],
        5: a.swapaxes(0, 1),
        6: np.rot90(a, -1),
        7: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(a, 1),
    }
    np.testing.assert_array_equal(seen(path), upright[orientation])


@pytest.mark.parametrize("ending", ["bmp", "gif", "jpg", "png", "ppm", "tga", "tif", "webp", "ico", "jp2"])
def test_formats_pillow_reads(tmp_path, ending):
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    read = seen(saved(tmp_path, image, f"a.{ending}"))
    assert read.shape == (32, 32, 3)
    np.testing.assert_allclose(read[16, 16], (255, 0, 0), atol=4)


PLAIN = [("1", "png"), ("L", "jpg"), ("P", "gif"), ("P", "png"), ("CMYK", "jpg"), ("CMYK", "tif"), ("RGBX", "tif")]


@pytest.mark.parametrize(("mode", "ending"), [*PLAIN, ("YCbCr", "jpg")])
def test_modes_without_alpha_become_rgb_as_pillow_makes_them(tmp_path, mode, ending):
    path = saved(tmp_path, Image.fromarray(noise(5, 7)).convert(mode), f"a.{ending}")
    with Image.open(path) as image:
        np.testing.assert_array_equal(seen(path), np.asarray(image.convert("RGB")), strict=True)


ALPHA_OR_DEPTH = [("LA", "png"), ("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "tif"), ("LAB", "tif"), ("I;16", "png")]
ALPHA_OR_DEPTH += [("I;16", "tif"), ("I;16B", "tif"), ("F", "tif")]


@pytest.mark.parametrize(("mode", "ending"), [*PLAIN, *ALPHA_OR_DEPTH])
def test_whatever_the_mode_the_image_is_rgb_and_seeing_it_once_more_changes_nothing(tmp_path, mode, ending):
    grey = 20_000 if mode.startswith("I;16") else 1  # of 65535: darker ones are refused
    image = read_image(saved(tmp_path, Image.new(mode, (7, 5), grey), f"a.{ending}"))
    assert pixels(image).shape == (5, 7, 3)
    np.testing.assert_array_equal(pixels(as_seen(image)), pixels(image), strict=True)


# what is done with an image later

LATER = {
    "JPEG": {},
    "JPEG, progressive": {"progressive": True},
    "PNG": {},
    "WebP": {},
    "WebP, lossless": {"lossless": True},
    "TIFF": {},
    "TIFF, compressed": {"compression": "tiff_lzw"},
    "TIFF of JPEG": {"compression": "jpeg"},
    "TIFF of two pages": {"save_all": True},
    "GIF": {},
    "GIF, animated": {"save_all": True},
    "BMP": {},
    "PNG, animated": {"save_all": True},
    "WebP, animated": {"save_all": True},
    "MPO": {"save_all": True},
    "JPEG2000": {},
    "ICO": {},
    "TGA": {},
    "PPM": {},
}


CHANGES = [
    lambda image: image.crop((5, 3, 30, 20)),
    lambda image: image.resize((9, 21), Image.Resampling.BICUBIC),
    lambda image: image.resize((9, 21), Image.Resampling.BICUBIC, (5, 3, 30, 20), reducing_gap=2.0),
    lambda image: image.transpose(Image.Transpose.ROTATE_90),
    lambda image: image.convert("L").convert("RGB"),
    lambda image: image.copy(),
    lambda image: pickle.loads(pickle.dumps(image)),
    as_seen,
]


@pytest.mark.parametrize("kind", LATER)
def test_an_image_is_there_whole_after_its_file_is_gone(tmp_path, kind):
    frames = [Image.fromarray(smooth(32, 48)), Image.fromarray(255 - smooth(32, 48))]
    options = LATER[kind] | ({"append_images": frames[1:]} if "save_all" in LATER[kind] else {})
    form = kind.split(",")[0].split(" ")[0]
    path = saved(tmp_path, frames[0], "a.image", format=form, **options)
    with Image.open(path) as image:
        expected = Image.fromarray(np.asarray(image.convert("RGB")))
    found, data = read_image(path), path.read_bytes()
    path.unlink()
    for image in (found, read_image(data)):
        before = pixels(image).copy()
        np.testing.assert_array_equal(before, pixels(expected))
        for change in CHANGES:
            np.testing.assert_array_equal(pixels(change(image)), pixels(change(expected)), strict=True)
        np.testing.assert_array_equal(pixels(image), before)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_was_read_is_not_turned_again(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(noise(3, 5)), "a.image", format=form, exif=exif)
    image = read_image(path)
    assert image.size == ((5, 3) if orientation < 5 else (3, 5))
    np.testing.assert_array_equal(pixels(as_seen(image)), pixels(image), strict=True)


def test_an_orientation_in_other_metadata_is_applied_once_too(tmp_path):
    words = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = saved(tmp_path, Image.fromarray(noise(3, 5)), "a.jpg", xmp=words, quality=95)
    assert read_image(path).size == as_seen(read_image(path)).size == (3, 5)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_what_was_read_carries_no_metadata_along(tmp_path, form):
    path = tmp_path / "image"
    Image.new("RGB", (6, 4)).save(path, form, icc_profile=bytes(100_000))
    image = read_image(path)
    assert image.info == {} == image.resize((3, 3)).info


def test_the_opened_image_itself_is_not_changed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(noise(3, 5)), "a.png", exif=exif)
    with Image.open(path) as image:
        for _ in range(2):
            np.testing.assert_array_equal(pixels(as_seen(image)), np.rot90(noise(3, 5), -1))


# bad images


def bad_kind(path, **options):
    with pytest.raises(BadImage) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return caught.value.kind


def test_missing_file_folder_and_impossible_names(tmp_path):
    assert bad_kind(tmp_path / "no.png") == "missing file"
    assert bad_kind(tmp_path) == "missing file"
    assert bad_kind("a\0b.png") == "missing file"
    assert bad_kind(str(tmp_path / ("x" * 5000))) == "missing file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert bad_kind(tmp_path / "pipe.png") == "missing file"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_unreadable(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert bad_kind(path) == "unreadable image"


def test_eps_is_never_run(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (8, 8)), "a.eps")
    with pytest.raises(BadImage, match="EPS"):
        read_image(path)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_truncated_image_is_unreadable(tmp_path, ending):
    path = saved(tmp_path, Image.fromarray(noise(64, 64)), f"a.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert bad_kind(path) == "unreadable image"


def test_huge_images_are_refused_from_the_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_declaring(10_000, 10_000))
    assert bad_kind(path) == "image too large"
    path.write_bytes(png_declaring(100_000, 100_000))  # beyond Pillow's own limit
    assert bad_kind(path) == "image too large"
    path = saved(tmp_path, Image.new("RGB", (10, 10)), "b.png")
    assert bad_kind(path, max_pixels=99) == "image too large"
    assert seen(path, max_pixels=100).shape == (10, 10, 3)


def test_large_image_within_the_limit_gives_no_warning_and_no_global_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path, Image.new("RGB", (40, 30)), "a.png")  # more than 1,000: Pillow would warn
    filters = list(warnings.filters)
    assert seen(path).shape == (30, 40, 3)
    assert warnings.filters == filters
    assert Image.MAX_IMAGE_PIXELS == 1000 and ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_threads_leave_the_warning_filters_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path, Image.new("RGB", (40, 30)), "a.png")
    filters, failures = list(warnings.filters), []

    def work():
        for _ in range(30):
            try:
                read_image(path)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and warnings.filters == filters and images._quiet_users == 0


def test_check_image_looks_without_decoding(tmp_path):
    path = saved(tmp_path, Image.fromarray(noise(64, 64)), "a.jpg")
    assert check_image(path) == path.stat().st_size
    path.write_bytes(path.read_bytes()[:1500])
    assert check_image(path) == 1500  # a damaged body shows only when it is decoded
    path = saved(tmp_path, Image.fromarray(noise(64, 64)), "a.png")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadImage, match="damaged"):
        check_image(path)


def test_bad_image_crosses_process_borders():
    error = pickle.loads(pickle.dumps(BadImage("missing file", "x: gone")))
    assert (error.kind, str(error)) == ("missing file", "x: gone")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["png", "jpeg", "gif", "tiff", "webp"]), st.data())
def test_damaged_files_give_an_image_or_bad_image_and_nothing_else(tmp_path_factory, form, data):
    buffer = io.BytesIO()
    Image.fromarray(smooth(9, 9)).save(buffer, form)
    content = bytearray(buffer.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"fuzz.{form}"
    path.write_bytes(content)
    try:
        image = read_image(path, max_pixels=1_000_000)
    except BadImage as error:
        assert error.kind in ("unreadable image", "image too large")
    else:
        assert 0 < image.width * image.height <= 1_000_000
        assert pixels(image.resize((3, 3))).shape == (3, 3, 3)  # nothing is left to be decoded that could yet fail


def test_an_image_inside_a_file_is_read_like_one_of_its_own(tmp_path):
    own = saved(tmp_path, Image.fromarray(noise(7, 9)), "a.png")
    data = own.read_bytes()
    (tmp_path / "all.bin").write_bytes(b"x" * 100 + data + b"y" * 10)
    inside = ImageInside(str(tmp_path / "all.bin"), 100, len(data), "member a.png")
    np.testing.assert_array_equal(pixels(inside.read(1000)), noise(7, 9))
    np.testing.assert_array_equal(pixels(ImageInFile(str(own)).read(1000)), noise(7, 9))
    assert inside.check(1000) == ImageInFile(str(own)).check(1000) == len(data)
    with pytest.raises(BadImage, match=r"all.bin, member a.png: the image has 9 x 7 pixels, more than the 62"):
        inside.read(62)


@pytest.mark.parametrize(
    ("offset", "size", "kind", "message"),
    [
        (100, 10_000, "unreadable image", "ends after"),
        (99, 50, "unreadable image", "not an image in a known format"),
        (0, 1 << 40, "image too large", "more than the"),
    ],
)
def test_a_cut_or_misplaced_image_inside_a_file_is_named(tmp_path, offset, size, kind, message):
    (tmp_path / "all.bin").write_bytes(b"x" * 300)
    with pytest.raises(BadImage, match=f"all.bin, member b: .*{message}") as caught:
        ImageInside(str(tmp_path / "all.bin"), offset, size, "member b").check(1000)
    assert caught.value.kind == kind


def test_an_image_inside_a_file_that_is_gone_is_missing(tmp_path):
    with pytest.raises(BadImage, match="member b: the file cannot be read") as caught:
        ImageInside(str(tmp_path / "gone.bin"), 0, 5, "member b").read(1000)
    assert caught.value.kind == "missing file"
