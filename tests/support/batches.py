"""Training batches of a split whose captions are token ids already."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lpi_jax.data.batches import Plan, training_batches
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.problems.retrieval.source import Pairs


class Batch(NamedTuple):
    """images: [R, S, S, 3] uint8; token_ids: [R, N] int32."""

    images: np.ndarray
    token_ids: np.ndarray


def batches_of(
    split: Split, ids: Sequence[np.ndarray], transform: Transform, steps: range, *, batch, seed=0, task=0, **host
) -> Iterator[Batch]:
    """The batches of these steps; ids: per image [captions, context] int32."""
    source = Pairs(split, transform, lambda words, placeholders: np.concatenate(ids), 0, False)
    plan = Plan({task: source}, task, batch, seed)
    return (Batch(**tree) for tree in training_batches(plan, steps.start, steps.stop, **host))
