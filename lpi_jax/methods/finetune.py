"""Sequential fine-tuning: the backbone itself goes on learning from task to task. The control that forgets.

Nothing protects what earlier tasks have taught, and there is one copy of what is trained, whatever the number of tasks:
the memory is {"stage": [] int32, number of the newest task, "trained": the backbone's leaves that are trained}.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.methods import base, leaves, routing
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import option
from lpi_jax.types import Adapter, Tree

WHERE = r"^(?!logit_scale$)"
LOGIT_SCALE = "logit_scale"
MOST_LOGIT_SCALE = math.log(100)  # CLIP's own training never lets it grow further


@dataclass(frozen=True)
class Options(base.Options):
    """What is trained."""

    where: str = option("", leaves.WHERE)

    def __post_init__(self) -> None:
        leaves.check_pattern(self.where)


def continued(memory: Tree, start: Tree) -> Tree:
    """Fresh float32 arrays on the device of what the tasks before have trained; of `start` before the first task.

    Fresh, because the step donates them: neither the memory nor the backbone may share their buffers. Float32, whatever
    the backbone is kept in: a step is smaller than what bfloat16 tells apart.
    """
    trained = base.kept(memory["trained"] if memory else start)
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), trained)


def remembered(memory: Tree, trained: Tree, task: TaskContext) -> Tree:
    """The memory behind one more task: only its trained tree, in place of the one before."""
    return {"stage": np.asarray(task.number, np.int32), "trained": base.kept(trained)}


def capped(logit_scale: Array) -> Array:
    """min(logit_scale, log 100), [] float32, with the gradient of logit_scale itself: it can come down again."""
    least = jax.lax.stop_gradient(jnp.minimum(logit_scale, MOST_LOGIT_SCALE))
    return least + (logit_scale - jax.lax.stop_gradient(logit_scale))


def in_place(trained: Tree, frozen: Tree) -> Tree:
    """The backbone with trained leaves in place of its own."""
    if LOGIT_SCALE in trained:
        trained = {**trained, LOGIT_SCALE: capped(trained[LOGIT_SCALE])}
    return leaves.replaced(frozen, trained)


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """Fine-tuning as the loop sees it."""
    options = replace(options, where=options.where or WHERE)

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        return continued(memory, leaves.nested(leaves.chosen(frozen, options.where))), {}

    return Method(
        name="finetune",
        options=options,
        begin=begin,
        adapt=lambda trainable, constants, frozen, queries: (Adapter(in_place(trainable, frozen), {}), None),
        finish=remembered,
        view=lambda memory, stage: (memory["trained"], {}),
        fits=partial(leaves.chosen, where=options.where),
    )
