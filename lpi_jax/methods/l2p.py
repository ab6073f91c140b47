"""Learning to Prompt: a pool of prompts from which every item takes those whose keys are nearest to it.

Wang et al. 2022, Learning to Prompt for Continual Learning, arXiv 2112.08654, for two towers: each has a pool of its
own, and its queries are the frozen tower's features of the item. The tree is
{'vision': {'keys': [M, E], 'prompts': [M, P, D]}, 'text': ...}, float32, and goes on from task to task; neither in
training nor in serving is anybody told a task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.errors import UserError
from lpi_jax.methods import base, routing
from lpi_jax.methods.base import Method, Queries, Site, TaskContext
from lpi_jax.options import TRAINING, option
from lpi_jax.types import Adapter, Tree

SITES = {"image": "vision", "text": "text"}  # where a side's prompts enter
PROMPT_STD = 0.02  # that of CLIP's own token embeddings


@dataclass(frozen=True)
class Options(base.Options):
    """The pool of a tower; the numbers are the paper's for ten tasks of CIFAR-100."""

    needs: ClassVar[tuple[str, ...]] = tuple(SITES.values())

    pool: int = option(10, "prompts in the pool of a tower", least=1)
    prompt_length: int = option(5, "tokens of one of them", least=1)
    chosen: int = option(5, "prompts of the pool that an item gets", least=1)
    key_weight: float = option(0.5, "of the loss that draws chosen keys to the item", least=0, reader=TRAINING)

    def __post_init__(self) -> None:
        if self.chosen > self.pool:
            raise UserError(f"config.method.chosen is {self.chosen}, expected at most config.method.pool, {self.pool}")


def init(options: Options, sites: Mapping[str, Site], width: int, key: Array) -> Tree:
    """New pools by site: `keys` [M, E], `prompts` [M, P, D]; 74,240 numbers at CLIP ViT-B/16's widths.

    Prompts are drawn from N(0, 0.02^2); keys from N(0, 1/E), so that they are about as long as a query.

    Args:
      width: E, of queries.
    """

    def pool(key: Array, site: Site) -> Tree:
        of_keys, of_prompts = jax.random.split(key)
        shape = (options.pool, options.prompt_length, site.width)
        return {
            "keys": width**-0.5 * jax.random.normal(of_keys, (options.pool, width), jnp.float32),
            "prompts": PROMPT_STD * jax.random.normal(of_prompts, shape, jnp.float32),
        }

    keys = jax.random.split(key, len(SITES))
    return {site: pool(own, sites[site]) for own, site in zip(keys, SITES.values(), strict=True)}


def select(pool: Tree, queries: Array, count: int) -> tuple[Array, Array]:
    """The prompts of each item, K = argmax of sum_{i in K} cos(query, key_i) over sets of `count` (equation 3).

    They stand in the order of the pool: one keeps its place beside the others however near the item is to each.
    Gradients reach the chosen prompts and, through the cosines, their keys; the choice itself has none.

    Args:
      pool: keys [M, E], prompts [M, P, D]. queries: [B, E].

    Returns:
      [B, 1, count * P, D] prompts of the input, and [B, count] cosines of the query with the chosen keys.
    """
    cosines = jnp.matmul(_unit(queries), _unit(pool["keys"]).T, precision="highest")
    nearest = jnp.sort(jax.lax.top_k(jax.lax.stop_gradient(cosines), count)[1], -1)
    prompts = pool["prompts"][nearest]
    joined = prompts.reshape(len(queries), 1, -1, prompts.shape[-1])
    return joined, jnp.take_along_axis(cosines, nearest, -1)


def key_loss(cosines: Mapping[str, Array]) -> Array:
    """mean over sides and items of sum_{i in K} (1 - cos(query, key_i)) (equation 5); cosines: by side [B, count]."""
    return jnp.stack([(1 - near).sum(-1).mean() for near in cosines.values()]).mean()


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """L2P as the loop sees it. Raises UserError for prompts that do not fit into the backbone."""
    tokens = options.chosen * options.prompt_length
    for name in SITES.values():
        if tokens > sites[name].room:
            raise UserError(
                f"config.method.chosen is {options.chosen} and config.method.prompt_length {options.prompt_length}, but"
                f" the {name} tower has room for {sites[name].room} prompt tokens; expected a product of at most that"
            )

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        return base.apart(memory["trained"]) if memory else init(options, sites, len(task.meaning), key), {}

    def adapt(trainable: Tree, constants: Tree, frozen: Tree, queries: Queries) -> tuple[Adapter, dict[str, Array]]:
        found = {side: select(trainable[SITES[side]], own, options.chosen) for side, own in queries.items()}
        prompts = {SITES[side]: prompts for side, (prompts, _) in found.items()}
        return Adapter(frozen, prompts), {side: cosines for side, (_, cosines) in found.items()}

    return Method(
        name="l2p",
        options=options,
        begin=begin,
        adapt=adapt,
        finish=lambda memory, trainable, task: {"stage": np.int32(task.number), "trained": base.kept(trainable)},
        view=lambda memory, number: (memory["trained"], {}),
        losses=lambda trainable, constants, aux, *_: {"keys": options.key_weight * key_loss(aux)},
        reserve=dict.fromkeys(SITES.values(), tokens),
        wants_queries=True,
    )


def _unit(rows: Array) -> Array:
    # The floor is under the root so that the gradient of a row of zeros is 0, not NaN.
    return rows * jax.lax.rsqrt(jnp.maximum((rows * rows).sum(-1, keepdims=True), 1e-24))
