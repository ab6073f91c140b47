"""Pictures kept in memory: equal, made once, no more of them than allowed, and spoilt by nobody."""

import gc
import threading
import weakref

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data.loader import remembered
from lpi_jax.data.stream import Split
from tests.support.pixels import loading, pixels
from tests.support.splits import captions_of, split_of

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 12, 16, 3), np.uint8)
NAMES = tuple(f"picture {i}" for i in range(len(PICTURES)))
SPLIT = split_of(NAMES, [(name,) for name in NAMES], loading(PICTURES))


def counted():
    """SPLIT with a record of what was loaded."""
    loaded = []
    return Split(SPLIT.records, lambda index: (loaded.append(int(index)), SPLIT.load(index))[1]), loaded


def test_remembered_pictures_are_equal_and_made_once():
    split, loaded = counted()
    kept = remembered(split, PICTURES.nbytes)
    for _ in range(3):
        for index in range(len(SPLIT)):
            np.testing.assert_array_equal(pixels(kept.load(index)), PICTURES[index], strict=True)
    np.testing.assert_array_equal(pixels(kept.load(np.int32(2))), PICTURES[2])  # whatever kind of number asks
    assert loaded == list(range(len(SPLIT)))
    assert (kept.keys, captions_of(kept)) == (SPLIT.keys, captions_of(SPLIT))


@pytest.mark.parametrize("room", [0, 0.999, 1, 2.999, 3, 3.5])
def test_no_more_is_remembered_than_allowed_at_three_bytes_a_pixel(room):
    split, loaded = counted()
    kept = remembered(split, int(room * PICTURES[0].nbytes))
    for _ in range(2):
        for index in range(len(SPLIT)):
            np.testing.assert_array_equal(pixels(kept.load(index)), PICTURES[index], strict=True)
    again = loaded[len(SPLIT) :]
    assert again == list(range(int(room), len(SPLIT)))


def test_a_picture_loaded_by_two_threads_at_once_counts_once():
    barrier, loaded = threading.Barrier(2), []

    def load(index):
        loaded.append(index)
        if len(loaded) <= 2:
            barrier.wait(5)  # both threads are in here before either goes on
        return SPLIT.load(index)

    kept = remembered(Split(SPLIT.records, load), 2 * PICTURES[0].nbytes)
    both = [threading.Thread(target=kept.load, args=(0,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    kept.load(1)
    kept.load(1)
    kept.load(0)
    assert loaded == [0, 0, 1]  # there was room for the second picture


def test_threads_that_load_at_once_remember_no_more_than_allowed():
    shapes = [(12, 16), (30, 20), (7, 9), (25, 25), (12, 16), (40, 10), (3, 3), (18, 18)]
    arrays = [np.full((*shape, 3), number, np.uint8) for number, shape in enumerate(shapes)]
    everywhere, loaded, budget = threading.Barrier(len(arrays)), [], 3000

    class Late(Image.Image):
        @property
        def __array_interface__(self):
            everywhere.wait(5)  # every thread has found room before one takes it
            return super().__array_interface__

    def load(index):
        loaded.append(index)
        image = Image.fromarray(arrays[index])
        if len(loaded) <= len(arrays):
            image.__class__ = Late
        return image

    names = tuple(map(str, shapes))
    kept = remembered(split_of(names, [(name,) for name in names], load), budget)
    workers = [threading.Thread(target=kept.load, args=(index,)) for index in range(len(arrays))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(loaded) == list(range(len(arrays)))
    for index, array in enumerate(arrays):  # what is missing is loaded again, and there is room for none of it
        np.testing.assert_array_equal(pixels(kept.load(index)), array, strict=True)
    again = loaded[len(arrays) :]
    sizes = [array.nbytes for array in arrays]
    used = sum(size for index, size in enumerate(sizes) if index not in again)
    assert 0 < used <= budget < used + min(sizes[index] for index in again)


def test_a_changed_picture_changes_none_that_is_remembered():
    kept = remembered(SPLIT, PICTURES.nbytes)
    handed_out = []
    for _ in range(3):  # the first comes from the split, the others from memory
        handed_out.append(kept.load(2))
        np.testing.assert_array_equal(pixels(handed_out[-1]), PICTURES[2], strict=True)
        handed_out[-1].paste((1, 2, 3), (0, 0, 9, 9))
        assert (pixels(handed_out[-1]) != PICTURES[2]).any()
    assert len(set(map(id, handed_out))) == 3


def test_of_a_picture_nothing_is_remembered_but_its_pixels():
    made = []  # with the pictures of the split, what their files say besides would be kept

    def load(index):
        image = SPLIT.load(index)
        image.info["comment"] = bytes(1000)
        made.append(weakref.ref(image))
        return image

    kept = remembered(Split(SPLIT.records, load), PICTURES.nbytes)
    for index in range(len(SPLIT)):
        kept.load(index)
    gc.collect()
    assert [image() for image in made] == [None] * len(SPLIT)
    assert kept.load(0).info == {}


def test_annotations_are_passed_on():
    boxes = [f"box of {index}" for index in range(len(NAMES))]
    split = split_of(NAMES, captions_of(SPLIT), SPLIT.load, boxes)
    assert remembered(split, 0).records[3].annotation == "box of 3"
