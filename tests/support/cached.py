"""Streams of noise whose images are cached, and what was asked of them."""

import numpy as np
from PIL import Image

from lpi_jax.data.cache import shrunk
from lpi_jax.data.captioned import Captioned
from lpi_jax.data.stream import Split, Stream, Task
from tests.support.pixels import pixels

SIDE = 16
SIZES = ((24, 40), (40, 24), (33, 33), (16, 20), (9, 50), (5, 3), (17, 16), (300, 18), (64, 48), (21, 22))


def noise(height, width, *seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


TRAIN = [noise(*size, 0, i) for i, size in enumerate(SIZES)]
VAL = [noise(30, 20, 1, i) for i in range(3)]


class Source:
    """index -> image, keeping a record of what was asked for."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __call__(self, index):
        self.asked.append(int(index))
        if isinstance(self.images[index], Exception):
            raise self.images[index]
        return self.images[index]


def split_of(images):
    records = tuple(Captioned(f"image {i}", (f"caption {i}",), str(i)) for i in range(len(images)))
    return Split(records, Source(images))


def stream_of(train=TRAIN, val=VAL, fingerprint="f00d", name="toys"):
    return Stream("shop", (Task(name, "things", split_of(train), split_of(val)),), fingerprint, {"bad": 1}, {"n": 2})


def asked(stream):
    """What was read from the source, by split."""
    return [split.load.asked for split in (stream.tasks[0].train, stream.tasks[0].val)]


def shards(folder, split="train"):
    return sorted(folder.glob(f"*-{split}-*/*.array_record"))


def read(stream):
    train = stream.tasks[0].train
    return [train.load(i) for i in range(len(train))]


def assert_right(found):
    for ours, image in zip(found, TRAIN, strict=True):
        np.testing.assert_array_equal(pixels(ours), pixels(shrunk(image, SIDE)), strict=True)


def overwritten(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
