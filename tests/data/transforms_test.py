"""The views are CLIP's, and captions are cleaned as the method says."""

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data import transforms
from lpi_jax.data.loader import Transform
from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD, clean_caption, normalise, random_crop_and_flip, resize_and_crop
from tests.support.pixels import pixels


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def smooth(height, width):
    y, x = np.mgrid[0:height, 0:width]
    bands = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256]
    return Image.fromarray(np.stack(bands, -1).astype(np.uint8))


@pytest.mark.parametrize(
    "height, width", [(224, 224), (300, 500), (501, 300), (65, 64), (64, 67), (30, 41), (1, 7), (9, 1)]
)
def test_resize_and_crop_is_pillow_resize_and_centre_crop(height, width):
    image, size = noise(height, width), 64
    if width <= height:
        new_width, new_height = size, int(size * height / width)
    else:
        new_width, new_height = int(size * width / height), size
    whole = np.asarray(image.resize((new_width, new_height), Image.Resampling.BICUBIC))
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    view = resize_and_crop(image, size)
    assert view.dtype == np.uint8 and view.flags.writeable
    np.testing.assert_array_equal(view, whole[top : top + size, left : left + size])


@pytest.mark.parametrize("surplus, start", [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (7, 4)])
def test_crop_starts_where_torchvision_starts(surplus, start):
    """round((side - size) / 2), halves to even: torchvision's rule."""
    image = noise(8, 8 + surplus)
    np.testing.assert_array_equal(resize_and_crop(image, 8), pixels(image)[:, start : start + 8])


def test_resize_agrees_with_transformers_where_both_crop_alike():
    processor = pytest.importorskip("transformers.models.clip.image_processing_pil_clip").CLIPImageProcessorPil
    image = smooth(90, 130)
    expected = processor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})(image, return_tensors="np")[
        "pixel_values"
    ][0]
    ours = normalise(resize_and_crop(image, 64), CLIP_MEAN, CLIP_STD)
    np.testing.assert_allclose(np.asarray(ours).transpose(2, 0, 1), expected, atol=1e-5)


def test_extremely_long_images_stay_small():
    view = resize_and_crop(Image.new("RGB", (500_000, 1), (7, 7, 7)), 16)
    assert view.shape == (16, 16, 3) and (view == 7).all()


@pytest.mark.parametrize("short, long", [(1, 32), (1, 33), (1, 34), (1, 35), (2, 65), (3, 101), (5, 500)])
def test_extremely_long_images_are_cut_to_their_middle(short, long):
    """32 times the short side is left, from half the surplus on, rounded down; the rest of the view follows."""
    kept = min(long, 32 * short)
    start = (long - kept) // 2
    for image, part in (
        (noise(short, long), np.s_[:, start : start + kept]),
        (noise(long, short), np.s_[start : start + kept]),
    ):
        middle = pixels(image)[part]
        np.testing.assert_array_equal(pixels(transforms._cut_extreme(image)), middle, strict=True)
        np.testing.assert_array_equal(resize_and_crop(image, 8), resize_and_crop(Image.fromarray(middle), 8))


def test_the_views_leave_the_image_as_it_is():
    for image in (noise(9, 500), noise(40, 30), noise(16, 16)):
        before = pixels(image).copy()
        for view in (resize_and_crop(image, 16), random_crop_and_flip(image, 16, np.random.default_rng(0))):
            assert view.shape == (16, 16, 3) and view.dtype == np.uint8 and view.flags.writeable
            view[:] = 0
        np.testing.assert_array_equal(pixels(image), before)


def test_random_crop_is_decided_by_the_generator_alone():
    image = noise(50, 70)
    views = [random_crop_and_flip(image, 16, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert views[0].shape == (16, 16, 3) and (views[0] != views[2]).any()


def test_random_crops_have_the_areas_and_ratios_asked_for():
    rng = np.random.default_rng(0)
    boxes = np.array([transforms.random_box(200, 300, rng, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 200).all() and (left + width <= 300).all()
    area, ratio = height * width / 60_000, width / height
    assert area.min() >= 0.078 and area.max() <= 0.9 and ratio.min() > 0.73 and ratio.max() < 1.36
    small = area < 0.5  # these always fit, so they are uniform in area and log-uniform in ratio
    assert abs(np.mean(area[small]) - 0.29) < 0.01
    assert abs(np.mean(np.log(ratio[small]))) < 0.01


def test_whole_image_when_scale_and_ratio_leave_no_choice():
    image = smooth(40, 40)
    view = random_crop_and_flip(image, 20, np.random.default_rng(0), scale=(1, 1), ratio=(1, 1), flip=False)
    np.testing.assert_array_equal(view, pixels(image.resize((20, 20), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("height, width", [(50, 70), (70, 50), (7, 300), (1, 1)])
def test_a_random_view_is_the_box_that_was_drawn_resized(height, width):
    image = noise(height, width)
    for seed in range(20):
        box = transforms.random_box(height, width, np.random.default_rng(seed), (0.08, 1.0), (3 / 4, 4 / 3))
        top, left, high, wide = box
        cut = Image.fromarray(pixels(image)[top : top + high, left : left + wide])
        view = random_crop_and_flip(image, 16, np.random.default_rng(seed), flip=False)
        np.testing.assert_array_equal(view, pixels(cut.resize((16, 16), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("shape, box", [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), None)])
def test_fallback_is_the_largest_centred_crop_of_an_allowed_ratio(shape, box):
    found = transforms.random_box(*shape, np.random.default_rng(0), (1.0, 1.0), (3 / 4, 4 / 3))
    assert found == (box or (0, 0, 1, 1))


def test_half_of_the_images_are_flipped():
    image = smooth(16, 16)
    plain = random_crop_and_flip(image, 16, np.random.default_rng(0), (1, 1), (1, 1), flip=False)
    flips = 0
    for seed in range(400):
        view = random_crop_and_flip(image, 16, np.random.default_rng(seed), (1, 1), (1, 1))
        flips += (view == plain[:, ::-1]).all()
        assert (view == plain).all() or (view == plain[:, ::-1]).all()
    assert 160 < flips < 240


VIEWS = [
    lambda image: resize_and_crop(image, 8),
    lambda image: random_crop_and_flip(image, 8, np.random.default_rng(0)),
    lambda image: Transform(8, "centre")(image, (0,)),
    lambda image: Transform(8, "random")(image, (0,)),
]


@pytest.mark.parametrize("view", VIEWS)
def test_views_refuse_what_is_no_image(view):
    for wrong in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), [[0]], None, "a.png"):
        with pytest.raises(TypeError, match=f"a Pillow image, not a {type(wrong).__name__}; Image.fromarray makes one"):
            view(wrong)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
def test_views_refuse_images_in_other_modes(view, mode):
    with pytest.raises(ValueError, match=rf"must be in mode RGB and have pixels, not {mode} \(4, 5\)"):
        view(Image.new(mode, (4, 5)))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_views_refuse_images_without_pixels(view, size):
    with pytest.raises(ValueError, match=rf"must be in mode RGB and have pixels, not RGB \({size[0]}, {size[1]}\)"):
        view(Image.new("RGB", size))


def test_normalise():
    images = pixels(noise(5, 4))[None]
    ours = normalise(images, CLIP_MEAN, CLIP_STD)
    expected = (images / 255.0 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    assert ours.dtype == np.float32 and ours.shape == (1, 5, 4, 3)
    np.testing.assert_allclose(np.asarray(ours), expected, atol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        normalise(images.astype(np.float32), CLIP_MEAN, CLIP_STD)
    with pytest.raises(ValueError, match=r"\[\.\.\., 3\]"):
        normalise(images[..., :2], CLIP_MEAN, CLIP_STD)


# captions


@pytest.mark.parametrize(
    "text, clean",
    [
        ("A dog.", "a dog"),
        ("  Two\tDOGS\n run ", "two dogs run"),
        ('it\'s (really) "big": #1; *yes*, no? ~ok!', "its really big 1 yes no ok"),
        ("black-and-white / grey", "black and white grey"),
        ("Über café", "über café"),
        ("a.b", "ab"),
    ],
)
def test_clean_caption(text, clean):
    assert clean_caption(text) == clean + "."
    assert clean_caption(clean_caption(text)) == clean + "."


def test_clean_caption_keeps_thirty_words():
    assert clean_caption("w " * 40) == " ".join(["w"] * 30) + "."
    assert clean_caption("one two three", max_words=2) == "one two."


@pytest.mark.parametrize("text", ["", "  ", "...", "- / -", "?!"])
def test_clean_caption_refuses_nothing(text):
    with pytest.raises(ValueError, match="empty"):
        clean_caption(text)
