"""Training images that train nothing, so that a run can tell by itself whether a task's training helped."""

from dataclasses import replace

import numpy as np

from lpi_jax.data.stream import Split, Stream
from lpi_jax.errors import UserError


def apart(stream: Stream, share: float, seed: int) -> Stream:
    """The stream with a share of every task's training images held out, at least one; as it is for a share of 0.

    Which, is a function of the seed and of the number of images alone.

    Raises:
      UserError: a task has a single training image.
    """
    if not share:
        return stream
    tasks = []
    for number, task in enumerate(stream.tasks):
        count = len(task.train)
        if count < 2:
            raise UserError(
                f"config.train.held_out is {share}, but task {task.name!r} has {count} training image; expected two"
            )
        order = np.random.default_rng([seed, number]).permutation(count)
        held = min(max(1, round(share * count)), count - 1)
        parts = {"held_out": _some(task.train, order[:held]), "train": _some(task.train, order[held:])}
        tasks.append(replace(task, **parts))
    return replace(stream, tasks=tuple(tasks))


def _some(split: Split, chosen: np.ndarray) -> Split:
    """The images of a split at the places `chosen` [N], in their old order."""
    places = np.sort(chosen)
    return Split(tuple(split.records[place] for place in places), lambda index: split.load(int(places[index])))
