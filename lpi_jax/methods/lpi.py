"""LPI: low-rank prompts of both modalities from partly shared factors, kept apart task by task.

The equations are those of Low-rank Prompt Interaction (ACM MM 2024, arXiv 2501.14369); one task's trainable tree is
{'factors': {...}} and, with `interaction`, also 'interaction': {'to_text': {...}, 'to_vision': {...}}. With injection
"attend" every layer has a gate, 'gates': {'visual': [L], 'textual': [L]}: prompts are keys, and values times the gate,
so that at a gate of zero training begins at the frozen model itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.errors import UserError
from lpi_jax.losses import alignment_loss, task_loss
from lpi_jax.methods import base, routing, similarity
from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import TRAINING, both, option, with_
from lpi_jax.parallel import processes
from lpi_jax.types import Adapter, Tree

CONTEXT_ENDS = 3  # positions of a context that are no prompt's: start, end, one word
FACTOR_STD = 0.5
INTERACTION_SHARE = 0.1
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Options(base.Options):
    """What distinguishes one LPI from another; the numbers are the method's own for CLIP ViT-B/16."""

    trains: ClassVar[bool] = True
    routes: ClassVar[bool] = True
    keeps_tasks: ClassVar[bool] = True

    length: int = option(16, "prompts a layer; 0: what the backbone has room for, up to 16", least=0)
    rank: int = option(4, "of the low-rank factors", least=1)
    layers: int = option(9, "layers that have prompts; 0: as many as the backbone has, up to 9", least=0)
    depth: int = option(9, "how many of these enter the towers; 0: all", least=0)
    injection: str = option(
        "add",
        "how prompts meet what is there: at positions of their own, to which deeper ones are added or whose place they"
        " take, or as keys and values that every token attends to",
        choices=("add", "replace", "attend"),
    )
    gate: float = option(
        0.0,
        "of the values, before training; at 0 training begins at the frozen model",
        reader=both(with_("method.injection", "attend"), TRAINING),
    )
    shared: bool = option(True, "whether the two modalities share the factor of layers")
    interaction: bool = option(False, "whether the two modalities' factors interact")
    alignment: str = option(
        "cosine", "form of the loss between the modalities", choices=("released", "cosine"), reader=TRAINING
    )
    alignment_weight: float = option(0.1, "its weight", least=0, reader=TRAINING)
    task: str = option("intended", "form of the loss between tasks", choices=("released", "intended"), reader=TRAINING)
    task_weight: float = option(0.1, "its weight", least=0, reader=TRAINING)
    threshold: float = option(0.4, "cosine above which two tasks count as similar", reader=TRAINING)
    similarity: str = option(
        "text",
        "of tasks: text (by the frozen text tower), or a CSV table",
        reader=TRAINING,
        content="similarity",
    )

    def __post_init__(self) -> None:
        if self.layers and self.depth > self.layers:
            raise UserError(
                f"config.method.depth is {self.depth}, expected at most config.method.layers, {self.layers}; use"
                f" --config.method.depth={self.layers} or --config.method.layers={self.depth}"
            )


# The authors' release, as changes of dotted keys; without the defects that make it crash.
PRESETS = {
    "released": {
        "pixels": "imagenet",
        "method.depth": 1,
        "method.alignment": "released",
        "method.task": "released",
        "routing.caption": "placeholders",
        "eval.transform": "random",
    }
}


def fitted(options: Options, sites: Mapping[str, Site]) -> Options:
    """The options with a value for every size that is 0 because it follows from the backbone.

    Length: the largest power of two up to the method's 16 that takes at most a third of the patches' number and a
    quarter of the context. Layers: the method's 9, or what the smaller tower has. Depth: all of them. ViT-B/16 gets the
    method's own numbers, the bundled backbone those of `config.for_tiny_backbone`.

    Raises:
      UserError: prompts that do not fit into the backbone.
    """
    vision, text = sites["vision"], sites["text"]
    blocks = min(vision.layers, text.layers)
    room = max(1, min(16, vision.room // 3, (text.room + CONTEXT_ENDS) // 4))
    layers = options.layers or max(min(9, blocks), options.depth)
    fit = replace(
        options,
        length=options.length or 1 << (room.bit_length() - 1),
        layers=layers,
        depth=options.depth or min(layers, blocks),
    )
    for name, site in (("vision", vision), ("text", text)):
        if fit.depth > site.layers:
            raise UserError(
                f"config.method.depth is {fit.depth}, but the {name} tower has {site.layers} layers; use"
                f" --config.method.depth={blocks}, or --config.method.depth=0 for as many as there are"
            )
    if fit.length > min(vision.room, text.room):
        raise UserError(
            f"config.method.length is {fit.length}, too long for a context of {text.room + CONTEXT_ENDS} tokens"
            f" and {vision.room} patches; use --config.method.length={min(text.room, vision.room)} or"
            " less, or --config.method.length=0 to have it chosen"
        )
    return fit


def expand(factors: dict[str, Array]) -> tuple[Array, Array]:
    """Prompts from factors: prompt_m[l, n, j] = (1/r) sum_k layer[l, k] token_m[n, k] width_m[j, k].

    Args:
      factors: layer [L, r], token_visual [P, r], token_textual [P, r], width_visual [Dv, r], width_textual [Dx, r];
        all may carry the same leading task axis. In place of `layer`: layer_visual and layer_textual, not shared.

    Returns:
      visual [L, P, Dv] and textual [L, P, Dx] (behind the leading axis, if there is one).
    """
    rank = factors["token_visual"].shape[-1]

    def product(modality: str) -> Array:
        layer = factors["layer"] if "layer" in factors else factors[f"layer_{modality}"]
        token, width = factors[f"token_{modality}"], factors[f"width_{modality}"]
        return jnp.einsum("...lk,...nk,...jk->...lnj", layer, token, width, precision="highest") / rank

    return product("visual"), product("textual")


_expand = jax.jit(expand)


def interact(maps: dict[str, dict[str, Array]], visual: Array, textual: Array) -> tuple[Array, Array]:
    """Mixes the two modalities' prompts, independent of any input, so that features can still be cached.

    Per layer l and direction, M[i, j] = (1/r) sum_k layer[l, k] source[i, k] target[j, k], the last row of `source`
    being the bias: X' = LN((1-a) X + a (V M_vx + b)), V' = LN((1-a) V + a (X M_xv + c)), a = 0.1, LN without affine.

    Args:
      maps: to_text {layer [L, r], source [Dv + 1, r], target [Dx, r]} and to_vision likewise with the widths swapped.
      visual: [L, P, Dv]. textual: [L, P, Dx].

    Returns:
      The mixed prompts, in the same shapes.
    """

    def mapped(source: Array, m: dict[str, Array]) -> Array:
        with_one = jnp.concatenate([source, jnp.ones_like(source[..., :1])], -1)
        low = jnp.einsum("...lni,...ik->...lnk", with_one, m["source"], precision="highest")
        rank = m["layer"].shape[-1]
        layer, target = m["layer"], m["target"]
        return jnp.einsum("...lnk,...lk,...jk->...lnj", low, layer, target, precision="highest") / rank

    def mixed(own: Array, other: Array, m: dict[str, Array]) -> Array:
        return _layer_norm((1 - INTERACTION_SHARE) * own + INTERACTION_SHARE * mapped(other, m))

    return mixed(visual, textual, maps["to_vision"]), mixed(textual, visual, maps["to_text"])


def init(options: Options, sites: Mapping[str, Site], key: Array) -> Tree:
    """A new task's trainable tree, every number drawn from N(0, 0.5^2); 5,284 numbers at CLIP ViT-B/16's defaults.

    But for the gates, which begin at `options.gate`; with them 5,302.

    Args:
      options: with every size (`fitted`). key: a scalar random key.
    """
    o, vision_width, text_width = options, sites["vision"].width, sites["text"].width
    shapes: Tree = {
        "factors": {
            **dict.fromkeys(("layer",) if o.shared else ("layer_visual", "layer_textual"), (o.layers, o.rank)),
            "token_visual": (o.length, o.rank),
            "token_textual": (o.length, o.rank),
            "width_visual": (vision_width, o.rank),
            "width_textual": (text_width, o.rank),
        }
    }
    if o.interaction:

        def maps(source: int, target: int) -> Tree:
            return {"layer": (o.layers, o.rank), "source": (source + 1, o.rank), "target": (target, o.rank)}

        shapes["interaction"] = {
            "to_text": maps(vision_width, text_width),
            "to_vision": maps(text_width, vision_width),
        }
    leaves, treedef = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(key, len(leaves))
    drawn = [FACTOR_STD * jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, leaves, strict=True)]
    tree = treedef.unflatten(drawn)
    if o.injection == "attend":
        tree["gates"] = {name: jnp.full(o.layers, o.gate, jnp.float32) for name in ("visual", "textual")}
    return tree


def context(options: Options, one: Tree, finished: Tree, similarity: np.ndarray) -> Tree:
    """What a new task's losses compare it with: the finished tasks' prompts and similarities, padded to a capacity.

    Args:
      one: the shapes of one task's factors. finished: the factors of T finished tasks, leaves [T, ...], or {}.
      similarity: [T + 1, T + 1] float32 cosines of the tasks' meanings, the new one last.

    Returns:
      visual [C, L, P, Dv], textual [C, L, P, Dx], similarity [C, C] float32; current: T, the new task's empty row.
    """
    count = len(similarity) - 1
    capacity = memories.capacity(count + 1)
    # Padded on the host before anything is computed: one shape, one compilation.
    factors = jax.tree.map(lambda leaf: np.zeros((capacity, *leaf.shape), np.float32), one)
    for name, rows in factors.items() if count else ():
        rows[:count] = finished[name]
    padded = np.zeros((capacity, capacity), np.float32)
    padded[: count + 1, : count + 1] = similarity
    visual, textual = _expand(factors)
    return {"visual": visual, "textual": textual, "similarity": jnp.asarray(padded), "current": jnp.int32(count)}


def prompts(options: Options, trainable: Tree) -> dict[str, Array]:
    """By site the prompts that enter the towers, [depth, P, D]; with injection "attend" [depth, 2P, D]."""
    visual, textual = expand(trainable["factors"])
    if "interaction" in trainable:
        visual, textual = interact(trainable["interaction"], visual, textual)
    if "gates" in trainable:
        gates = trainable["gates"]
        visual, textual = attended(visual, gates["visual"]), attended(textual, gates["textual"])
    return {"vision": visual[: options.depth], "text": textual[: options.depth]}


def attended(prompts: Array, gates: Array) -> Array:
    """Keys and values of prompts [L, P, D] with gates [L]: the prompts themselves, then gates x prompts, [L, 2P, D]."""
    return jnp.concatenate([prompts, gates[:, None, None] * prompts], axis=1)


def losses(options: Options, trainable: Tree, constants: Tree) -> dict[str, Array]:
    """The weighted alignment loss, and the task loss from the second task on, scalars in nats.

    Args:
      trainable: the task's tree. constants: from `context`.
    """
    # The losses compare the prompts as they are expanded: an interaction normalises them only for the towers.
    visual, textual = expand(trainable["factors"])
    current = constants["current"]
    index = jnp.arange(len(constants["similarity"]))

    def distance(finished: Array, own: Array) -> Array:
        stacked = jnp.where((index == current)[:, None, None, None], own, finished)
        return task_loss(stacked, constants["similarity"], options.task, options.threshold, seen=index <= current)

    align = options.alignment_weight * alignment_loss(visual, textual, options.alignment)
    apart = (distance(constants["visual"], visual) + distance(constants["textual"], textual)) / 2
    return {"align": align, "task": options.task_weight * jnp.where(current > 0, apart, 0.0)}


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """LPI as the loop sees it. Raises UserError for prompts that do not fit into the backbone."""
    options = fitted(options, sites)

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        meanings = np.concatenate([*([memory["descriptions"]] if memory else []), task.meaning[None]])
        similar = processes.copied(similarity.of_tasks(meanings, task.names, options.similarity))
        one = jax.eval_shape(lambda: init(options, sites, jax.random.key(0)))["factors"]
        finished = memory["trained"]["factors"] if memory else {}
        return init(options, sites, key), context(options, one, finished, similar)

    return Method(
        name="lpi",
        options=options,
        begin=begin,
        adapt=lambda trainable, constants, frozen, queries: (Adapter(frozen, prompts(options, trainable)), None),
        finish=lambda memory, trainable, task: routing.remembered(memory, trainable, task, router),
        view=lambda memory, task: (memories.row(memory["trained"], task), {}),
        losses=lambda trainable, constants, *_: losses(options, trainable, constants),
        assign=routing.nearest,
        reserve=base.NOTHING if options.injection == "attend" else {"vision": options.length, "text": options.length},
        injection=options.injection,
        check=partial(similarity.check, source=options.similarity),
        facts=partial(similarity.facts, source=options.similarity),
    )


def _layer_norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPS)
