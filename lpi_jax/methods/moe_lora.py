"""MoE-LoRA: matrices of the language model get several low-rank updates, and every token decides how it mixes them.

CoIN's baseline (Chen et al. 2024, arXiv 2403.08350): y = x W + (scale / rank) sum_n g_n(x) x A_n B_n over N experts,
g(x) = softmax(x G). Gate and experts go on learning from task to task; there is one copy, whatever the number of tasks.
The layer computes it (`lpi_jax.models.llava.linear`); here are the parameters that it finds beside its kernel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.errors import UserError
from lpi_jax.methods import base, finetune, leaves, lora, routing
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import option
from lpi_jax.types import EXPERTS, Adapter, Tree


@dataclass(frozen=True)
class Options(lora.Options):
    """Which matrices, and the experts of each."""

    needs: ClassVar[tuple[str, ...]] = (base.LANGUAGE,)

    experts: int = option(4, "low-rank updates of a matrix", least=1)


def layers(frozen: Tree, where: str) -> dict[str, tuple[int, int]]:
    """By path, without "/kernel", the sizes (inputs, outputs) of the chosen layers.

    Raises:
      UserError: nothing is chosen, or something that is no linear layer of the language model's blocks.
    """
    sizes = lora.matrices(frozen, where)
    for path in sizes:
        if not lora.language_layer(path):
            raise UserError(
                f"config.method.where is {where!r}, which is found in {path!r}; expected linear layers of the language"
                " model's blocks alone"
            )
    return {lora.language_layer(path): size for path, size in sizes.items()}


def init(options: Options, frozen: Tree, key: Array) -> Tree:
    """At the path of each chosen layer, "/experts": {"gate": [in, N] zeros, "a": [N, in, rank] from N(0, 1 / in),
    "b": [N, rank, out] zeros}, float32.

    The first task begins with the backbone as it is, and with equal shares.
    """
    sizes = layers(frozen, options.where)
    new = {}
    for own, (path, (inputs, outputs)) in zip(jax.random.split(key, len(sizes)), sizes.items(), strict=True):
        drawn = jax.random.normal(own, (options.experts, inputs, options.rank), jnp.float32)
        new[f"{path}/{EXPERTS}/gate"] = jnp.zeros((inputs, options.experts), jnp.float32)
        new[f"{path}/{EXPERTS}/a"] = drawn / np.float32(np.sqrt(inputs))
        new[f"{path}/{EXPERTS}/b"] = jnp.zeros((options.experts, options.rank, outputs), jnp.float32)
    return leaves.nested(new)


def beside(options: Options, trained: Tree, frozen: Tree) -> Tree:
    """The backbone with the experts, their B times scale / rank, beside the kernels."""
    factor = options.scale / options.rank
    scaled = {path: factor * leaf if path.endswith("/b") else leaf for path, leaf in leaves.flat(trained).items()}
    return leaves.replaced(frozen, leaves.nested(scaled))


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """MoE-LoRA as the loop sees it: LoRA with other parameters, which enter otherwise."""
    low = lora.build(options, sites, router)

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        return finetune.continued(memory, {} if memory else init(low.options, frozen, key)), {}

    return low._replace(
        name="moe_lora",
        begin=begin,
        adapt=lambda trainable, constants, frozen, queries: (Adapter(beside(low.options, trainable, frozen), {}), None),
        fits=partial(layers, where=low.options.where),
    )
