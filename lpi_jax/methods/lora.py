"""LoRA: every chosen matrix of the backbone gets a low-rank update, which goes on learning from task to task.

The equations are those of Hu et al. 2021 (arXiv 2106.09685), with matrices as Flax keeps them, [in, out], so that their
B A is A B here: y = x W', W' = W + (scale / rank) A B. There is one copy of all A and B, whatever the number of tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.errors import UserError
from lpi_jax.methods import base, finetune, leaves, routing
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import option
from lpi_jax.types import LOW, Adapter, Tree

_TOWERS = r"self_attn/[qv]_proj/kernel$"
_LANGUAGE_MODEL = r"^language_model/.*/(q|v|gate|up|down)_proj/kernel$"


@dataclass(frozen=True)
class Options(base.Options):
    """Which matrices are updated, and how."""

    where: str = option("", leaves.WHERE)
    rank: int = option(4, "of the low-rank factors", least=1)
    scale: float = option(4.0, "of the low-rank updates, which are divided by their rank", least=0)

    def __post_init__(self) -> None:
        leaves.check_pattern(self.where)


def usual(sites: Mapping[str, Site]) -> str:
    """Which matrices change where `options.where` names none: of CLIP's towers, or of a language model's blocks."""
    return _LANGUAGE_MODEL if base.LANGUAGE in sites else _TOWERS


def matrices(frozen: Tree, where: str) -> dict[str, tuple[int, int]]:
    """By path the sizes (inputs, outputs) of the chosen matrices.

    A kernel of more axes, such as the patches' [height, width, 3, D], counts as the matrix from all of its inputs
    [height * width * 3] to its outputs, the last axis.

    Raises:
      UserError: nothing is chosen, or something that is no matrix.
    """
    chosen = leaves.chosen(frozen, where)
    for path, leaf in chosen.items():
        if len(leaf.shape) < 2:
            raise UserError(
                f"config.method.where is {where!r}, which is found in {path!r}, a parameter of shape"
                f" {list(leaf.shape)}; expected matrices alone"
            )
    return {path: (int(np.prod(leaf.shape[:-1])), leaf.shape[-1]) for path, leaf in chosen.items()}


def init(options: Options, frozen: Tree, key: Array) -> Tree:
    """At the path of each chosen matrix {"a": [in, rank] from N(0, 1 / in), "b": [rank, out] zeros}, float32.

    A B is 0: the first task begins with the backbone as it is.
    """
    sizes = matrices(frozen, options.where)
    new = {}
    for own, (path, (inputs, outputs)) in zip(jax.random.split(key, len(sizes)), sizes.items(), strict=True):
        new[f"{path}/a"] = jax.random.normal(own, (inputs, options.rank), jnp.float32) / np.float32(np.sqrt(inputs))
        new[f"{path}/b"] = jnp.zeros((options.rank, outputs), jnp.float32)
    return leaves.nested(new)


@jax.jit  # one program also where it is not part of another, for arrays of host and of several processes together
def merged(kernels: dict[str, Array], updates: dict[str, Tree], factor: float) -> dict[str, Array]:
    """W + factor A B by path; kernels: W [..., out]; updates: {"a": [in, rank], "b": [rank, out]}."""

    def update(kernel: Array, low: Tree) -> Array:
        return kernel + factor * jnp.matmul(low["a"], low["b"], precision="highest").reshape(kernel.shape)

    return {path: update(kernel, updates[path]) for path, kernel in kernels.items()}


def language_layer(path: str) -> str | None:
    """The path of the linear layer of a language model's blocks whose kernel this is; None: it is no such kernel."""
    inside = path.startswith("language_model/layers_") and path.endswith("/kernel")
    return path.removesuffix("/kernel") if inside else None


def in_place(options: Options, trained: Tree, frozen: Tree) -> Tree:
    """The backbone with W' in place of its matrices W; in a language model's blocks W stays, and beside it stand
    {"a": [in, rank], "b": [rank, out]}, A and (scale / rank) B.

    Args:
      trained: as `init` makes it.

    Raises:
      UserError: `options.where` chooses nothing.
    """
    own, factor = leaves.flat(trained), options.scale / options.rank
    entered, kernels = {}, {}
    for path, kernel in leaves.chosen(frozen, options.where).items():
        if layer := language_layer(path):
            entered[f"{layer}/{LOW}/a"], entered[f"{layer}/{LOW}/b"] = own[f"{path}/a"], factor * own[f"{path}/b"]
        else:
            kernels[path] = kernel
    if kernels:
        updates = {path: {name: own[f"{path}/{name}"] for name in ("a", "b")} for path in kernels}
        entered |= merged(kernels, updates, factor)
    return leaves.replaced(frozen, leaves.nested(entered))


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """LoRA as the loop sees it."""
    options = replace(options, where=options.where or usual(sites))

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        return finetune.continued(memory, {} if memory else init(options, frozen, key)), {}

    return Method(
        name="lora",
        options=options,
        begin=begin,
        adapt=lambda trainable, constants, frozen, queries: (Adapter(in_place(options, trainable, frozen), {}), None),
        finish=finetune.remembered,
        view=lambda memory, stage: (memory["trained"], {}),
        fits=partial(matrices, where=options.where),
    )
