"""Images read ahead: as the towers take them, in threads, and kept in memory where there is room.

Grain reads ahead in threads, not in worker processes. Decoding, cropping and resizing let go of Python's lock, so that
threads use all cores; and they start at once, share the images that are kept in memory, hand batches over without a
copy and let an exception through as it is. A process has to be started for every task and to import everything anew.
On two cores threads make 1,685 images a second from the cache and processes 1,421; from JPEG 694 and 651
(`benchmarks/loader.py`).
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from PIL import Image

from lpi_jax.data.stream import Split
from lpi_jax.data.transforms import random_crop_and_flip, resize_and_crop

WORKERS = min(8, os.cpu_count() or 1)
AHEAD = WORKERS + 1  # items in the making: one for each thread, and one that is ready

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Transform:
    """How an image becomes the tower's square input.

    Attributes:
      size: side of the square, pixels.
      kind: `centre` (CLIP's resize and centre crop) or `random` (random resized crop and flip).
      scale: smallest and largest share of the area a random crop keeps. flip: whether it may be mirrored.
    """

    size: int
    kind: str = "centre"
    scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = True

    def __call__(self, image: Image.Image, seed: Sequence[int]) -> np.ndarray:
        """Pillow image in mode RGB -> uint8 [size, size, 3]; `seed` decides the random kind."""
        if self.kind == "centre":
            return resize_and_crop(image, self.size)
        rng = np.random.default_rng(list(seed))
        return random_crop_and_flip(image, self.size, rng, scale=self.scale, flip=self.flip)


def ahead(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """map(function, items) in order, computed by Grain's threads a few items ahead.

    An exception comes up unchanged at its item and ends the rest. However it ends, no thread is left.
    """
    import grain  # here, because it is slow to import and most of the package does without

    threads: set[threading.Thread] = set()
    ended = threading.Event()

    def attempt(item: T) -> tuple[R | None, Exception | None]:
        threads.add(threading.current_thread())
        try:
            return (None if ended.is_set() else function(item)), None
        except Exception as error:  # returned, because Grain would write a note on it and skip to the next item
            return None, error

    reading = iter(
        grain.MapDataset.source(items)
        .map(attempt)
        .to_iter_dataset(grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=AHEAD))
    )
    try:
        for result, error in reading:
            if error is not None:
                raise error
            yield result
    finally:
        ended.set()
        reading.close()  # does not wait for what is being made
        for thread in threads.copy() - {threading.current_thread()}:  # itself, where a thread collects garbage
            thread.join()


def remembered(split: Split, max_bytes: int) -> Split:
    """The same split, keeping decoded images in memory until `max_bytes` are used."""
    kept: dict[int, np.ndarray] = {}
    used = 0
    lock = threading.Lock()  # two threads may load the same image at once: it counts once

    def load(index: int) -> Image.Image:
        nonlocal used
        pixels = kept.get(int(index))
        if pixels is not None:
            return Image.fromarray(pixels)
        image = split.load(index)
        size = 3 * image.width * image.height
        if used + size <= max_bytes:
            pixels = np.asarray(image)  # smaller than the image, and free of metadata
            with lock:
                if int(index) not in kept and used + size <= max_bytes:
                    kept[int(index)] = pixels
                    used += size
        return image

    return replace(split, load=load)
