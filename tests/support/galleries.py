"""Galleries small enough to work out by hand: features as they stand, nothing encoded."""

from types import SimpleNamespace

import numpy as np

from lpi_jax.methods.base import one_hot
from lpi_jax.problems.retrieval.gallery import Side


def side(tasks, owners, plain, features=None, routed=None):
    """Items of these tasks that are or describe these images, each an item of its own.

    Args:
      plain, features: [N, E], without and with adapters; None: the plain ones. routed: [N], which adapter; None: each
        its task's.
    """
    plain = np.asarray(plain, np.float32)
    made = Side.new(0, np.asarray(owners), np.arange(len(plain)), plain, plain)
    made.task[:] = tasks
    made.features = plain.copy() if features is None else np.asarray(features, np.float32)
    made.routed[:] = tasks if routed is None else routed
    made.posterior = one_hot(made.routed, max(tasks) + 1)
    return made


def gallery_of(images, captions):
    """What is looked at of a gallery, in copies."""
    copies = ({name: part.copy() for name, part in vars(one).items()} for one in (images, captions))
    return SimpleNamespace(**{name: Side(**parts) for name, parts in zip(("images", "captions"), copies, strict=True)})


# Pictures 0 and 1 of task 0, picture 2 of task 1, and a caption of each. Plain products, pictures by captions:
# 2 0 1, 0 2 1, 2 2 2; under the adapters 0 0 1, 1 1 0, 1 1 1. Caption 1 was routed to task 1.
MISLED = (
    side([0, 0, 1], [0, 1, 2], [[1, 0], [0, 1], [1, 1]]),
    side([0, 0, 1], [0, 1, 2], [[2, 0], [0, 2], [1, 1]], [[0, 1], [0, 1], [1, 0]], routed=[0, 1, 1]),
)
