"""A task's prompts of both modalities from its low-rank factors, and what tokens attend to of them."""

import jax.numpy as jnp
from jax import Array

from lpi_jax.losses import layer_norm


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


def attended(prompts: Array, gates: Array) -> Array:
    """Keys and values of prompts [L, P, D] with gates [L]: the prompts, then gates x LayerNorm(prompts), [L, 2P, D].

    The tower brings keys to its own scale by a LayerNorm; so are values here, that a gate of 1 is the size of a token.
    """
    return jnp.concatenate([prompts, gates[:, None, None] * layer_norm(prompts)], axis=1)
