"""The survey of a stream: its numbers are right, repeats are found, and it goes on past bad images."""

import io
from collections import Counter
from threading import Lock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from lpi_jax.check.survey import LISTED, TILES, Repeats, Sizes, Words, _first_alike, _Look, survey
from lpi_jax.data.contact_sheet import SIDE, Tile
from lpi_jax.data.images import read_image
from tests.support.pixels import pixels
from tests.support.sources import jsonl
from tests.support.survey_streams import damaged, gone, half_gone, loaded, manifest, photo, split, stream


def alike(train, val=None):
    """(exact, alike) in train, and (exact, alike) in val, of one task."""
    found = survey(stream(("toys", split(train), split(val or [photo(999)]))), 30).tasks[0].repeats
    return (found.train_same, found.train_alike), (found.val_same, found.val_alike)


def recompressed(image):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return read_image(data.getvalue())


def scaled(image):
    return image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_a_row_counts_images_captions_words_and_sizes():
    images = [photo(0, 10, 10), photo(1, 50, 20), photo(2, 30, 40), photo(3, 20, 30)]
    captions = [["A cat!"], ["a big-eyed red cat", "one two three four five six"], ["a dog"]]
    found = survey(stream(("pets", split(images[:3], captions), split(images[3:], [["a cat, asleep", "x"]]))), 4)
    row = found.tasks[0]
    assert row.name == "pets"
    assert row.images == {"train": 3, "val": 1}
    assert row.captions == {"train": 4, "val": 2}
    assert row.words == Words(median=2.5, longest=6, too_long=2)  # 2, 5, 6, 2, 3, 1 words
    assert row.sizes == Sizes(smallest=(10, 10), median=(30, 20), largest=(40, 30))
    assert row.repeats == Repeats(0, 0, 0, 0, 0)
    assert row.cut is None
    assert row.bad == {}
    assert found.max_words == 4 and found.stream == "toys" and found.fingerprint == "f" * 64


def test_the_total_adds_the_tasks_up_and_takes_medians_of_all():
    one = ("one", split([photo(0, 8, 8)] * 1, [["a"]]), split([photo(1, 8, 9)], [["a b c"]]))
    two = ("two", split([photo(2, 9, 9), photo(3, 8, 10)], [["a b"], ["a b c d"]]), split([photo(4, 5, 5)], [["x"]]))
    found = survey(stream(one, two), 2, count_cut=len)
    assert found.total.name == "all"
    assert found.total.images == {"train": 3, "val": 2}
    assert found.total.captions == {"train": 3, "val": 2}
    assert found.total.words == Words(median=2, longest=4, too_long=2)
    assert found.total.sizes == Sizes((5, 5), (9, 8), (9, 9))
    assert [row.cut for row in (*found.tasks, found.total)] == [2, 3, 5]


def test_every_image_is_read_once():
    loads, lock = Counter(), Lock()

    def load(index):
        with lock:
            loads[index] += 1
        return photo(index)

    survey(stream(("pets", loaded(load, [["a cat"]] * 40), split([photo(99)]))), 30)
    assert loads == dict.fromkeys(range(40), 1)


# ---- repeats ---------------------------------------------------------------------------------------------------------


def test_equal_pixels_are_found_whatever_the_file(tmp_path):
    parts = ["train", "train", "val"]
    path = manifest(tmp_path, [(photo(i), [f"image {i}"], "toys", part) for i, part in enumerate(parts)])
    photo(0).save(tmp_path / "1.png", compress_level=1)
    photo(0).save(tmp_path / "2.png", "BMP")
    repeats = survey(jsonl(path), 30).tasks[0].repeats
    assert (repeats.train_same, repeats.val_same) == (1, 1)
    assert (repeats.train_alike, repeats.val_alike) == (0, 0)


@pytest.mark.parametrize("change", [recompressed, scaled])
def test_a_recompressed_or_scaled_image_looks_alike(change):
    images = [photo(i) for i in range(10)]
    assert alike([*images, change(images[3])]) == ((0, 1), (0, 0))
    assert alike(images, [change(images[3]), photo(50), images[4]]) == ((0, 0), (1, 1))


def test_images_of_the_same_shape_in_other_colours_do_not_look_alike():
    colours = ((200, 0, 0), (0, 0, 200), (20, 20, 20), (235, 235, 235))
    assert alike([Image.new("RGB", (20, 20), colour) for colour in colours]) == ((0, 0), (0, 0))
    images = [photo(i) for i in range(60)]
    wide, tall = (Image.new("RGB", size, (90, 90, 90)) for size in ((40, 10), (10, 40)))
    assert alike([wide, tall]) == ((0, 1), (0, 0))  # the same bytes in another shape
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    blurred = [image.rotate(90, expand=True).filter(ImageFilter.BLUR) for image in images]
    assert alike(images, [*mirrored, *blurred]) == ((0, 0), (0, 0))


def test_repeats_across_tasks_count_in_the_total_only():
    one = ("one", split([photo(0), photo(1)], [["a cat"], ["a dog"]]), split([photo(2)], [["a bird"]]))
    images = [photo(0), recompressed(photo(1)), photo(5)]
    two = ("two", split(images, [["x"], ["y"], ["A bird."]]), split([photo(1)], [["z"]]))
    found = survey(stream(one, two), 30)
    assert [row.repeats for row in found.tasks] == [Repeats(0, 0, 0, 0, 0), Repeats(0, 0, 0, 1, 0)]
    assert found.total.repeats == Repeats(train_same=1, train_alike=1, val_same=1, val_alike=0, captions=1)


def test_captions_are_compared_as_they_are_read():
    train = split([photo(0), photo(1)], [["A red kite!", "same start here"], ["a blue kite"]])
    val = split([photo(2)], [["a red  kite", "a red kite?", "same start, there", "a green kite"]])
    assert survey(stream(("toys", train, val)), 30).tasks[0].repeats.captions == 2
    assert survey(stream(("toys", train, val)), 2).tasks[0].repeats.captions == 3  # "a red" twice and "same start"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_look_alikes_are_those_that_a_comparison_of_all_pairs_finds(seed, count):
    rng = np.random.default_rng(seed)
    signs, colours = [], []
    for _ in range(count):  # some are made from earlier ones by a few changes
        base = int(rng.integers(0, 2**63)) * 2 if not signs or rng.random() < 0.3 else signs[rng.integers(len(signs))]
        for bit in rng.integers(0, 64, rng.integers(0, 4)):
            base ^= 1 << int(bit)
        own = rng.integers(0, 256, 48) if not colours or rng.random() < 0.2 else colours[rng.integers(len(colours))]
        signs.append(base)
        colours.append(np.clip(own + rng.integers(-7, 8, 48), 0, 255))
    both = zip(signs, colours, strict=True)
    looks = [_Look((1, 1), b"", sign, bytes(own.astype(np.uint8))) for sign, own in both]

    def near(i, j):
        return (signs[i] ^ signs[j]).bit_count() <= 2 and np.abs(colours[i] - colours[j]).max() <= 8

    expected = [min(j for j in range(count) if near(i, j)) for i in range(count)]
    assert _first_alike(looks).tolist() == expected


# ---- bad images ----------------------------------------------------------------------------------------------------


def test_a_bad_image_is_counted_and_named_and_the_survey_goes_on(tmp_path):
    rows = [(photo(i), [f"image {i}"], "toys", "train") for i in range(4)]
    rows += [(damaged(), ["no image"], "toys", "train"), (photo(9), ["image 9"], "toys", "val")]
    path = manifest(tmp_path, rows)
    found = survey(jsonl(path), 30)
    row = found.tasks[0]
    assert row.bad == found.total.bad == {"unreadable image": 1}
    assert row.images == {"train": 5, "val": 1} and row.captions == {"train": 5, "val": 1}
    (message,) = found.bad
    assert message.startswith(f"{path}, line 5: ") and "4.png" in message
    assert found.tiles[0]["train"][4] == Tile(None, "no image")
    assert row.sizes.largest == (60, 40)


def test_all_bad_images_are_counted_and_the_first_are_named():
    found = survey(half_gone(), 30)
    assert found.total.bad == {"missing file": 10, "unreadable image": 25}
    assert found.bad == tuple(f"stream, line {index}: not there" for index in range(1, 2 * LISTED, 2))


def test_a_task_without_one_good_image_has_a_row_too():
    nothing = loaded(gone, [["a cat"]])
    found = survey(stream(("pets", nothing, nothing)), 30)
    assert found.tasks[0].sizes is None and found.total.repeats == Repeats(0, 0, 0, 0, 1)


def test_what_the_stream_left_out_is_found_too(tmp_path):
    rows = [(photo(0), ["a"], "toys", "train"), (photo(1), ["b"], "toys", "val"), (b"", ["c"], "toys", "train")]
    found = survey(jsonl(manifest(tmp_path, rows), on_bad_example="skip"), 30)
    assert found.tasks[0].bad == found.total.bad == {"unreadable image": 1} and found.unplaced == {}
    assert len(found.bad) == 1 and "stream.jsonl, line 3: " in found.bad[0]


def test_bad_examples_of_no_known_task_are_found_too(tmp_path):
    path = manifest(tmp_path, [(photo(0), ["a"], "toys", "train"), (photo(1), ["b"], "toys", "val")])
    path.write_text(path.read_text() + "\nnonsense\n")
    found = survey(jsonl(path, on_bad_example="skip"), 30)
    assert found.unplaced == found.total.bad == {"not JSON": 1} and found.tasks[0].bad == {}


# ---- while it reads --------------------------------------------------------------------------------------------------


def test_a_progress_bar_for_many_images_only(capfd):
    survey(stream(("pets", split([photo(0)]), split([photo(1)]))), 30)
    assert capfd.readouterr().err == ""
    survey(stream(("pets", split([photo(0, 4, 4)] * 501), split([photo(1)]))), 30)
    assert "checking images" in capfd.readouterr().err


def test_images_for_the_sheet_are_chosen_evenly_and_kept_small():
    images = [Image.new("RGB", (200, 300), (i, i, i)) for i in range(121)]
    found = survey(stream(("pets", split(images), split(images[:3]))), 30)
    tiles = found.tiles[0]
    assert len(tiles["train"]) == TILES and len(tiles["val"]) == 3
    chosen = [int(pixels(tile.image)[0, 0, 0]) for tile in tiles["train"]]
    assert chosen[0] == 0 and set(np.diff(chosen)) <= {10, 11}
    assert [tile.caption for tile in tiles["train"]] == [f"image {i}" for i in chosen]
    assert all(pixels(tile.image).shape == (SIDE, SIDE * 2 // 3, 3) for tile in tiles["train"])
