"""The protocol between the continual loop and a method: at most six pure functions and two facts.

The loop never looks inside a method's trees. To add a method, write one file that builds a `Method` and name it in
`methods.build`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import Array

from lpi_jax.types import Tree


class Prompts(NamedTuple):
    """What enters the frozen towers: [depth, P, D] per modality, or None for the plain tower."""

    visual: Array | None
    textual: Array | None


class Features(NamedTuple):
    """What a batch became: image and text [B, E] float32, L2-normalised, row by row; logit_scale the factor itself."""

    image: Array
    text: Array
    logit_scale: Array


class Finished(NamedTuple):
    """What a method may know of the stream when a task begins.

    Attributes:
      trained: the finished tasks' trees, stacked on a leading axis of T finished tasks; None before the first.
      similarity: [T + 1, T + 1] float32 cosines of the tasks' meanings; the last row is the task that begins.
    """

    trained: Tree | None
    similarity: np.ndarray


class Method(NamedTuple):
    """A continual method as pure functions.

    Attributes:
      name: as in the config.
      placeholders: how many placeholder words stand before each caption for the text prompts to replace.
      init: (key, finished) -> the new task's trainable tree; {} for a method that trains nothing.
      context: (finished, capacity) -> a tree of constants for this task's losses, shaped by `capacity` alone, so that
        one compiled step serves every task.
      prompts: (trainable) -> Prompts for the towers.
      losses: (trainable, context, features) -> weighted terms by name; their sum is minimised.
    """

    name: str
    placeholders: int
    init: Callable[[Array, Finished], Tree]
    context: Callable[[Finished, int], Tree]
    prompts: Callable[[Tree], Prompts]
    losses: Callable[[Tree, Tree, Features], dict[str, Array]]
