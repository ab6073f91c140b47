"""O-LoRA: every task has low-rank updates of its own, in directions that earlier tasks' updates do not look at.

Wang et al. 2023, Orthogonal Subspace Learning for Language Model Continual Learning (arXiv 2310.14152), with matrices
as in `lpi_jax.methods.lora`: behind task t, W' = W + (scale / rank) sum_{i <= t} A_i B_i. Finished tasks' factors never
change; a new task's loss has weight * sum_{i < t} sum of squares of A_i^T A_t, so that what it reads of a layer's input
is not what an earlier task reads.

A memory holds "stage", the newest task, and "trained": every leaf as LoRA's with T in front.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.methods import base, leaves, lora, routing
from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import TRAINING, option
from lpi_jax.types import Adapter, Tree


@dataclass(frozen=True)
class Options(lora.Options):
    """Which matrices are updated, and how firmly tasks are kept apart."""

    keeps_tasks: ClassVar[bool] = True

    weight: float = option(0.5, "of the loss that keeps a task's A from earlier tasks'", least=0, reader=TRAINING)


def finished(memory: Tree, count: int, one: Tree) -> Tree:
    """The factors of the first `count` tasks side by side, padded with zeros to a capacity of R tasks.

    Args:
      memory: as described above, or {}. one: one task's tree.

    Returns:
      At the path of each matrix {"a": [in, R * rank], "b": [R * rank, out]} float32, host arrays.
    """
    room = memories.capacity(count + 1)

    def side_by_side(path: str, leaf: Array, rows: np.ndarray | None) -> np.ndarray:
        every = np.zeros((room, *leaf.shape), np.float32)
        if count:
            every[:count] = rows[:count]
        return np.concatenate(every, axis=1 if path.endswith("/a") else 0)

    known = leaves.flat(memory["trained"]) if memory else {}
    return leaves.nested({path: side_by_side(path, leaf, known.get(path)) for path, leaf in leaves.flat(one).items()})


def together(trainable: Tree, constants: Tree) -> Tree:
    """A task's factors behind those of the finished ones: {"a": [in, (R + 1) rank], "b": [(R + 1) rank, out]}.

    Their product is the sum of all tasks' A_i B_i.
    """
    own, earlier = leaves.flat(trainable), leaves.flat(constants)
    return leaves.nested(
        {path: jnp.concatenate([earlier[path], own[path]], 1 if path.endswith("/a") else 0) for path in own}
    )


def overlap(trainable: Tree, constants: Tree) -> Array:
    """sum over matrices and i < t of the squared entries of A_i^T A_t, [] float32."""
    own, earlier = leaves.flat(trainable), leaves.flat(constants)
    products = (jnp.matmul(earlier[path].T, own[path], precision="highest") for path in own if path.endswith("/a"))
    return sum((jnp.sum(jnp.square(product)) for product in products), jnp.zeros(()))


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """O-LoRA as the loop sees it."""
    low = lora.build(options, sites, router)
    options = low.options

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        trainable = lora.init(options, frozen, key)
        return trainable, finished(memory, memories.count(memory.get("trained", {})), trainable)

    def adapt(trainable: Tree, constants: Tree, frozen: Tree, queries: Any) -> tuple[Adapter, None]:
        return Adapter(lora.in_place(options, together(trainable, constants), frozen), {}), None

    def finish(memory: Tree, trainable: Tree, task: TaskContext) -> Tree:
        rows = memories.appended(memory.get("trained", {}), base.kept(trainable))
        return {"stage": np.asarray(task.number, np.int32), "trained": rows}

    def view(memory: Tree, number: int) -> tuple[Tree, Tree]:
        one = memories.row(memory["trained"], number)
        return one, finished(memory, number, one)

    def losses(trainable: Tree, constants: Tree, *_: Any) -> dict[str, Array]:
        return {"orthogonal": options.weight * overlap(trainable, constants)}

    return low._replace(name="o_lora", begin=begin, adapt=adapt, finish=finish, view=view, losses=losses)
