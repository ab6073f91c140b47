"""Turns a split into batches of uint8 pictures and token ids, in an order that is a pure function of the seed.

Nothing here has a state to save: batch b of epoch e of task t is always the same, so a run goes on from three numbers,
on as many hosts as it then has: each host makes its own rows of the same global batches.

Grain reads ahead in threads, not in worker processes. Decoding, cropping and resizing let go of Python's lock, so that
threads use all cores; and they start at once, share the pictures that are kept in memory, hand batches over without a
copy and let an exception through as it is. A process has to be started for every task and to import everything anew.
On two cores threads make 1,685 pictures a second from the cache and processes 1,421; from JPEG 694 and 651
(`benchmarks/loader.py`).
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from lpi_jax.data.stream import Split
from lpi_jax.data.transforms import random_crop_and_flip, resize_and_crop

WORKERS = min(8, os.cpu_count() or 1)
AHEAD = WORKERS + 1  # items in the making: one for each thread, and one that is ready

T = TypeVar("T")
R = TypeVar("R")


class Batch(NamedTuple):
    """images: [R, S, S, 3] uint8; token_ids: [R, N] int32. R: this host's rows of the global batch.

    N is the fixed length that holds the longest caption of the global batch: the same on every host.
    """

    images: np.ndarray
    token_ids: np.ndarray


@dataclass(frozen=True)
class Transform:
    """How a picture becomes the tower's square input.

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


def order(seed: int, task: int, epoch: int, count: int) -> np.ndarray:
    """[count] int permutation of a task's training pairs in one epoch."""
    return np.random.default_rng([seed, task, epoch]).permutation(count)


def steps_per_epoch(pairs: int, batch: int) -> int:
    """Whole batches in an epoch; the uneven rest is left out and comes up in other epochs' orders."""
    return pairs // batch


def dropped_per_epoch(pairs: int, batch: int) -> int:
    """How many training pairs an epoch leaves out because they do not fill a batch."""
    return pairs - batch * steps_per_epoch(pairs, batch)


def host_rows(batch: int, host: int, hosts: int) -> slice:
    """The rows of a global batch that host number `host` (from 0) of `hosts` makes: as many for each, in their order.

    Raises:
      ValueError: there is no such host, or the batch does not split evenly.
    """
    if not 0 <= host < hosts or batch % hosts:
        raise ValueError(f"host {host} of {hosts} has no even share of a batch of {batch} rows")
    rows = batch // hosts
    return slice(host * rows, (host + 1) * rows)


def training_batches(
    split: Split,
    token_ids: Sequence[np.ndarray],
    trim: Callable[[np.ndarray], np.ndarray],
    transform: Transform,
    *,
    batch: int,
    seed: int,
    task: int,
    first_step: int,
    last_step: int,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[Batch]:
    """This host's rows of the batches of steps first_step .. last_step - 1 of a task, prepared ahead.

    The rows of all hosts, one after the other, are the same global batches whatever the number of hosts. The position
    in the data is the step: to go on from there is to begin there.

    Args:
      split: the task's training split.
      token_ids: per picture [captions, context] int32.
      trim: cuts a batch of ids to a fixed length that holds its longest caption; it sees the whole global batch.
      transform: of pictures; its randomness comes from (seed, task, epoch, pair).
      batch: global batch size. seed: of the run. task: the task's number in the stream.
      host: this process's number, from 0. hosts: how many share a batch; `batch` is a multiple of it.

    Raises:
      ValueError: see `host_rows`. Whatever `split.load` raises comes up at its batch.
    """
    pairs, rows = split.pairs, host_rows(batch, host, hosts)
    per_epoch = steps_per_epoch(len(pairs), batch)
    ordered = lru_cache(maxsize=2)(lambda epoch: order(seed, task, epoch, len(pairs)))  # not once more for every batch

    def make(step: int) -> Batch:
        epoch, position = divmod(step, per_epoch)
        chosen = ordered(epoch)[position * batch : (position + 1) * batch]
        ids = trim(np.stack([token_ids[image][caption] for image, caption in pairs[chosen]]))
        own = chosen[rows]
        images = np.empty((len(own), transform.size, transform.size, 3), np.uint8)
        for image, pair in zip(images, own, strict=True):
            image[:] = transform(split.load(pairs[pair, 0]), (seed, task, epoch, pair))
        return Batch(images, ids[rows])

    return ahead(make, range(first_step, last_step))


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
    """The same split, keeping decoded pictures in memory until `max_bytes` are used."""
    kept: dict[int, np.ndarray] = {}
    used = 0
    lock = threading.Lock()  # two threads may load the same picture at once: it counts once

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
