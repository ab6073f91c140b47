"""LPI: low-rank prompts of both modalities from partly shared factors, kept apart task by task.

The equations are those of Low-rank Prompt Interaction (ACM MM 2024, arXiv 2501.14369); one task's trainable tree is
{'factors': {...}} and, with `interaction`, {'factors': {...}, 'interaction': {'to_text': {...}, 'to_vision': {...}}}.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.losses import alignment_loss, retrieval_loss, task_loss
from lpi_jax.methods.base import Features, Finished, Method, Prompts
from lpi_jax.types import Tree

FACTOR_STD = 0.5
INTERACTION_SHARE = 0.1
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class LPI:
    """What distinguishes one LPI from another.

    Attributes:
      vision_width, text_width: widths of the two towers (768 and 512 for CLIP ViT-B/16).
      layers: prompt layers L that exist and take part in the losses.
      depth: how many of them enter the towers (1: the input only, as the release does).
      length: prompt tokens P. rank: r.
      interaction: whether the two modalities' prompts are mixed before they are injected.
      alignment, task: forms of the two losses; their weights; threshold: cosine above which tasks count as similar.
    """

    vision_width: int
    text_width: int
    layers: int = 9
    depth: int = 9
    length: int = 16
    rank: int = 4
    interaction: bool = False
    alignment: Literal["released", "cosine"] = "cosine"
    alignment_weight: float = 0.1
    task: Literal["released", "intended"] = "intended"
    task_weight: float = 0.1
    threshold: float = 0.4


def expand(factors: dict[str, Array]) -> tuple[Array, Array]:
    """Prompts from factors: prompt_m[l, n, j] = (1/r) sum_k layer[l, k] token_m[n, k] width_m[j, k].

    Args:
      factors: layer [L, r], token_visual [P, r], token_textual [P, r], width_visual [Dv, r], width_textual [Dx, r];
        all may carry the same leading task axis.

    Returns:
      visual [L, P, Dv] and textual [L, P, Dx] (behind the leading axis, if there is one).
    """
    rank = factors["layer"].shape[-1]

    def product(modality: str) -> Array:
        token, width = factors[f"token_{modality}"], factors[f"width_{modality}"]
        return jnp.einsum("...lk,...nk,...jk->...lnj", factors["layer"], token, width, precision="highest") / rank

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


def init(options: LPI, key: Array) -> Tree:
    """A new task's trainable tree, every number drawn from N(0, 0.5^2); 5,284 numbers at CLIP ViT-B/16's defaults."""
    o = options
    shapes: Tree = {
        "factors": {
            "layer": (o.layers, o.rank),
            "token_visual": (o.length, o.rank),
            "token_textual": (o.length, o.rank),
            "width_visual": (o.vision_width, o.rank),
            "width_textual": (o.text_width, o.rank),
        }
    }
    if o.interaction:

        def maps(source: int, target: int) -> Tree:
            return {"layer": (o.layers, o.rank), "source": (source + 1, o.rank), "target": (target, o.rank)}

        shapes["interaction"] = {
            "to_text": maps(o.vision_width, o.text_width),
            "to_vision": maps(o.text_width, o.vision_width),
        }
    leaves, treedef = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        [FACTOR_STD * jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, leaves, strict=True)]
    )


def lpi(options: LPI) -> Method:
    """LPI as the loop sees it."""

    def context(finished: Finished, capacity: int) -> Tree:
        """The finished tasks' prompts and similarities, padded to `capacity` tasks; the new task's slot is empty."""
        count = len(finished.similarity) - 1
        one = jax.eval_shape(lambda: init(options, jax.random.key(0)))["factors"]
        # Padded on the host before anything is computed: one shape, one compilation.
        factors = jax.tree.map(lambda leaf: np.zeros((capacity, *leaf.shape), np.float32), one)
        for name, rows in factors.items() if count else ():
            rows[:count] = finished.trained["factors"][name]
        similarity = np.zeros((capacity, capacity), np.float32)
        similarity[: count + 1, : count + 1] = finished.similarity
        visual, textual = _expand(factors)
        return {
            "visual": visual,
            "textual": textual,
            "similarity": jnp.asarray(similarity),
            "current": jnp.int32(count),
        }

    def losses(trainable: Tree, context: Tree, features: Features) -> dict[str, Array]:
        # The losses compare the prompts as they are expanded: an interaction normalises them only for the towers.
        visual, textual = expand(trainable["factors"])
        current = context["current"]
        index = jnp.arange(len(context["similarity"]))

        def distance(finished: Array, own: Array) -> Array:
            stacked = jnp.where((index == current)[:, None, None, None], own, finished)
            return task_loss(stacked, context["similarity"], options.task, options.threshold, seen=index <= current)

        terms = {
            "retrieval": retrieval_loss(features.image, features.text, features.logit_scale),
            "align": options.alignment_weight * alignment_loss(visual, textual, options.alignment),
        }
        apart = (distance(context["visual"], visual) + distance(context["textual"], textual)) / 2
        terms["task"] = options.task_weight * jnp.where(current > 0, apart, 0.0)
        return terms

    def prompts(trainable: Tree) -> Prompts:
        visual, textual = expand(trainable["factors"])
        if "interaction" in trainable:
            visual, textual = interact(trainable["interaction"], visual, textual)
        return Prompts(visual[: options.depth], textual[: options.depth])

    return Method(
        name="lpi",
        placeholders=options.length,
        init=lambda key, finished: init(options, key),
        context=context,
        prompts=prompts,
        losses=losses,
    )


def _layer_norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPS)
