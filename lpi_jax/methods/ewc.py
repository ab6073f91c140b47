"""Elastic weight consolidation: fine-tuning in which weights that earlier tasks need are held where they are.

Kirkpatrick et al. 2017 (arXiv 1612.00796), equation 3: a task adds (strength / 2) sum_i F_i (theta_i - theta*_i)^2 to
its losses, with the diagonal F of the Fisher information. F is summed over the finished tasks and theta* are the
weights behind the newest of them, as the posterior of all tasks has it (Huszar 2017, arXiv 1712.03847): the memory is
fine-tuning's, whose trained tree is theta*, and "fisher" of the same shapes, however many the tasks are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.methods import base, finetune, routing
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import TRAINING, option
from lpi_jax.types import Tree


@dataclass(frozen=True)
class Options(finetune.Options):
    """What is trained, and how firmly it is held."""

    strength: float = option(1e4, "weight of the penalty for leaving earlier tasks' weights", least=0, reader=TRAINING)
    fisher_batches: int = option(
        16, "training batches that the Fisher information is the mean over", least=1, reader=TRAINING
    )


def fisher(trained: Tree, task: TaskContext, count: int) -> Tree:
    """F_i = mean over the task's first `count` batches of (d loss / d theta_i)^2, host arrays like `trained`.

    Of batches, not of single examples: a contrastive loss has no meaning for one alone.
    """
    total = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), trained)
    for batch in task.batches(count):
        gradient = base.kept(task.gradient(trained, {}, batch))
        total = jax.tree.map(lambda sofar, g: sofar + np.square(g), total, gradient)
    return jax.tree.map(lambda leaf: leaf / np.float32(count), total)


def penalty(strength: float, trainable: Tree, constants: Tree) -> Array:
    """(strength / 2) sum_i F_i (theta_i - theta*_i)^2, [] float32; constants: fisher, anchor, like `trainable`."""
    each = jax.tree.map(
        lambda f, old, new: jnp.sum(f * jnp.square(new - old)), constants["fisher"], constants["anchor"], trainable
    )
    return strength / 2 * sum(jax.tree.leaves(each), jnp.zeros(()))


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """Elastic weight consolidation as the loop sees it."""
    plain = finetune.build(options, sites, router)

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        trainable, _ = plain.begin(key, memory, frozen, task)
        # Zeros before the first task: one shape, one compilation.
        held = memory["fisher"] if memory else jax.tree.map(jnp.zeros_like, trainable)
        return trainable, {"fisher": base.apart(held), "anchor": base.apart(trainable)}

    def finish(memory: Tree, trainable: Tree, task: TaskContext) -> Tree:
        own = fisher(trainable, task, options.fisher_batches)
        total = jax.tree.map(np.add, memory["fisher"], own) if memory else own
        return {**plain.finish(memory, trainable, task), "fisher": total}

    def losses(trainable: Tree, constants: Tree, *_: Any) -> dict[str, Array]:
        # A penalty of 0 is left out, not computed: its program would round otherwise than that of fine-tuning.
        return {"ewc": penalty(options.strength, trainable, constants)} if options.strength else {}

    return plain._replace(name="ewc", begin=begin, finish=finish, losses=losses)
