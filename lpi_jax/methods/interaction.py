"""The two modalities' prompts speak to each other before they enter the towers (LPI's optional interaction).

It depends on no input, so that features of images and of captions are still computed, and cached, apart.
"""

import jax.numpy as jnp
from jax import Array

from lpi_jax.losses import layer_norm
from lpi_jax.types import Tree

SHARE = 0.1  # of the other modality
_LEAST_SQUARE = 1e-12  # of a row; its square is still a float32, and so are gradients at a row of zeros
_LEAST_RATIO = 1e-6  # of two squares, where the other modality takes a row away


def shapes(layers: int, rank: int, vision_width: int, text_width: int) -> Tree:
    """Shapes of the two maps: to_text and to_vision, each layer [L, r], source [D + 1, r] and target [D', r]."""

    def maps(source: int, target: int) -> Tree:
        return {"layer": (layers, rank), "source": (source + 1, rank), "target": (target, rank)}

    return {"to_text": maps(vision_width, text_width), "to_vision": maps(text_width, vision_width)}


def begun(maps: Tree, form: str) -> Tree:
    """The maps that training begins with, from drawn ones: "residual" begins as the identity, with targets of zero."""
    if form == "norm":
        return maps
    return {way: {**m, "target": jnp.zeros_like(m["target"])} for way, m in maps.items()}


def interact(maps: Tree, visual: Array, textual: Array, form: str = "norm") -> tuple[Array, Array]:
    """Mixes the two modalities' prompts; both directions read the prompts as they came.

    Per layer l and direction, M[i, j] = (1/r) sum_k layer[l, k] source[i, k] target[j, k], the last row of `source`
    being the bias; a = 0.1.
    `norm`: X' = LN((1-a) X + a (V M_vx + b)), V' = LN((1-a) V + a (X M_xv + c)), LN without affine: rows of RMS 1.
    `residual`: X' = rescale(X + a (V M_vx + b)) and V' likewise, each row rescaled to the RMS that it had in X (below
    1e-6 it may grow to that), layer 0, which enters where embeddings do, as it is. With targets of zero the identity,
    exactly.

    Args:
      maps: to_text {layer [L, r], source [Dv + 1, r], target [Dx, r]} and to_vision likewise with the widths swapped.
      visual: [L, P, Dv]. textual: [L, P, Dx]. All may carry the same leading axes.
      form: norm | residual.

    Returns:
      The mixed prompts, in the same shapes.
    """
    if form not in ("norm", "residual"):
        raise ValueError(f"interaction form is {form!r}, expected 'norm' or 'residual'")
    mix = _normalised if form == "norm" else _rescaled
    return mix(visual, textual, maps["to_vision"]), mix(textual, visual, maps["to_text"])


def _mapped(source: Array, m: dict[str, Array]) -> Array:
    """source [..., L, P, D] -> source M + b [..., L, P, D']."""
    with_one = jnp.concatenate([source, jnp.ones_like(source[..., :1])], -1)
    low = jnp.einsum("...lni,...ik->...lnk", with_one, m["source"], precision="highest")
    rank = m["layer"].shape[-1]
    layer, target = m["layer"], m["target"]
    return jnp.einsum("...lnk,...lk,...jk->...lnj", low, layer, target, precision="highest") / rank


def _normalised(own: Array, other: Array, m: dict[str, Array]) -> Array:
    return layer_norm((1 - SHARE) * own + SHARE * _mapped(other, m))


def _rescaled(own: Array, other: Array, m: dict[str, Array]) -> Array:
    step = SHARE * _mapped(other, m)
    # mean((x + s)^2) / mean(x^2), so written that it is 1 to the last bit where the step is 0.
    square = jnp.maximum((own * own).mean(-1, keepdims=True), _LEAST_SQUARE)
    ratio = 1 + (step * (2 * own + step)).mean(-1, keepdims=True) / square
    moved = (own + step) / jnp.sqrt(jnp.maximum(ratio, _LEAST_RATIO))
    return jnp.concatenate([own[..., :1, :, :], moved[..., 1:, :, :]], axis=-3)
