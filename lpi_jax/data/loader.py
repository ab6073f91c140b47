"""Turns a split into batches of uint8 pictures and token ids, in an order that is a pure function of the seed.

Nothing here has a state to save: batch b of epoch e of task t is always the same, so a run resumes from three numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np

from lpi_jax.data.preprocess import random_crop_and_flip, resize_and_crop
from lpi_jax.data.stream import Split

AHEAD = 3  # batches prepared while the device works on one
WORKERS = 2

T = TypeVar("T")
R = TypeVar("R")


class Batch(NamedTuple):
    """images: [B, S, S, 3] uint8; token_ids: [B, N] int32, trimmed to the longest caption's fixed length."""

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

    def __call__(self, image: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [size, size, 3]; `seed` decides the random kind."""
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
) -> Iterator[Batch]:
    """Batches of steps first_step .. last_step - 1 of a task, prepared ahead by threads.

    Args:
      split: the task's training split.
      token_ids: per picture [captions, context] int32.
      trim: cuts a batch of ids to a fixed length that holds its longest caption.
      transform: of pictures; its randomness comes from (seed, task, epoch, pair).
      batch: global batch size. seed: of the run. task: the task's number in the stream.
    """
    pairs = split.pairs
    per_epoch = steps_per_epoch(len(pairs), batch)

    def make(step: int) -> Batch:
        epoch, position = divmod(step, per_epoch)
        chosen = order(seed, task, epoch, len(pairs))[position * batch : (position + 1) * batch]
        images = np.stack([transform(split.load(pairs[i, 0]), (seed, task, epoch, i)) for i in chosen])
        return Batch(images, trim(np.stack([token_ids[image][caption] for image, caption in pairs[chosen]])))

    return ahead(make, range(first_step, last_step))


def ahead(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """map(function, items) in order, computed by threads a few items ahead; an exception surfaces at its item."""
    with ThreadPoolExecutor(WORKERS) as pool:
        upcoming = iter(items)
        pending = [pool.submit(function, item) for item in islice(upcoming, AHEAD)]
        try:
            while pending:
                result = pending.pop(0).result()
                pending += [pool.submit(function, item) for item in islice(upcoming, 1)]
                yield result
        finally:
            for future in pending:
                future.cancel()


def remembered(split: Split, max_bytes: int) -> Split:
    """The same split, keeping decoded pictures in memory until `max_bytes` are used."""
    kept: dict[int, np.ndarray] = {}
    used = 0
    lock = Lock()  # two threads may load the same picture at once: it counts once

    def load(index: int) -> np.ndarray:
        nonlocal used
        image = kept.get(int(index))
        if image is None:
            image = split.load(index)
            with lock:
                if int(index) not in kept and used + image.nbytes <= max_bytes:
                    kept[int(index)] = image
                    used += image.nbytes
        return image

    return Split(split.keys, split.captions, load, split.annotate)
