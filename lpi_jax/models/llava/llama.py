"""A LLaMA decoder: embeddings in, hidden states out, with an explicit cache of keys and values of static size.

Pre-norm blocks of causal attention with rotary positions (half-rotation layout), keys and values shared by groups of
heads, and a gated MLP. Parameter names are those of Hugging Face's LlamaForCausalLM. Shapes: B batch, Q tokens given,
S places of the cache, D width, H heads, K key heads, d width of a head, V vocabulary.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lpi_jax.models.llava.config import LlamaConfig
from lpi_jax.models.llava.linear import Linear
from lpi_jax.models.remat import Remat, recomputed


class Cache(NamedTuple):
    """What a sequence has been read so far.

    Attributes:
      keys, values: for each block [B, K, S, d], keys already turned; as attention reads them, so that decoding turns
        nothing round but the new token.
      valid: [B, S] bool: the places that hold a token that is no padding.
      filled: [] int32: the places written so far.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    valid: jax.Array
    filled: jax.Array


def empty_cache(config: LlamaConfig, batch: int, places: int, dtype: Any) -> Cache:
    """A cache for `places` S tokens of `batch` rows, keys and values [B, K, S, d] of `dtype`."""
    zeros = tuple(jnp.zeros((batch, config.kv_heads, places, config.head_dim), dtype) for _ in range(config.layers))
    return Cache(zeros, zeros, jnp.zeros((batch, places), bool), jnp.int32(0))


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Turns the pair (x_i, x_{i + d/2}) of every head by t theta^(-2i/d).

    Args:
      x: [B, Q, heads, d]. positions: [B, Q] int32, the t. theta: the base.

    Returns: [B, Q, heads, d] in the dtype of x; the angles are float32.
    """
    half = x.shape[-1] // 2
    angles = positions[..., None, None] * theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _norm(config: LlamaConfig, dtype: Any) -> nn.RMSNorm:
    # x / sqrt(mean(x^2) + eps) * scale; Flax keeps the mean in float32 whatever the dtype.
    return nn.RMSNorm(epsilon=config.rms_norm_eps, dtype=dtype)


class Attention(nn.Module):
    """Tokens [B, Q, D] that attend to those in the cache and, causally, to themselves."""

    config: LlamaConfig
    dtype: Any

    def setup(self):
        width, narrow = self.config.width, self.config.kv_heads * self.config.head_dim
        self.q_proj, self.o_proj = Linear(width, self.dtype), Linear(width, self.dtype)
        self.k_proj, self.v_proj = Linear(narrow, self.dtype), Linear(narrow, self.dtype)

    def __call__(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, past: tuple[jax.Array, jax.Array], filled: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Reads Q tokens behind the `filled` places.

        Args:
          x: [B, Q, D]. positions: [B, Q] int32. mask: [B, Q, S] bool, which places a token sees.
          past: keys and values [B, K, S, d]. filled: [] int32.

        Returns: [B, Q, D], and keys and values with those of the Q tokens written.
        """

        def by_head(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], -1, self.config.head_dim)

        queries = rotate(by_head(self.q_proj(x)), positions, self.config.rope_theta)
        keys = rotate(by_head(self.k_proj(x)), positions, self.config.rope_theta)
        written = (keys, by_head(self.v_proj(x)))
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, jnp.swapaxes(new, 1, 2).astype(old.dtype), filled, axis=2)
            for old, new in zip(past, written, strict=True)
        )
        by_place = (jnp.swapaxes(cached, 1, 2) for cached in (keys, values))
        seen = jax.nn.dot_product_attention(queries, *by_place, mask=mask[:, None])
        return self.o_proj(seen.reshape(x.shape)), (keys, values)


class MLP(nn.Module):
    """[B, Q, D] -> [B, Q, D]: W_down (silu(W_gate x) * W_up x)."""

    config: LlamaConfig
    dtype: Any

    def setup(self):
        self.gate_proj, self.up_proj = (Linear(self.config.mlp_dim, self.dtype) for _ in range(2))
        self.down_proj = Linear(self.config.width, self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One pre-norm block; arguments and results as those of `Attention`."""

    config: LlamaConfig
    dtype: Any

    def setup(self):
        self.input_layernorm = _norm(self.config, self.dtype)
        self.self_attn = Attention(self.config, self.dtype)
        self.post_attention_layernorm = _norm(self.config, self.dtype)
        self.mlp = MLP(self.config, self.dtype)

    def __call__(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, past: tuple[jax.Array, jax.Array], filled: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        attended, past = self.self_attn(self.input_layernorm(x), positions, mask, past, filled)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), past


class Llama(nn.Module):
    """The decoder. `dtype` is what the blocks compute in; statistics, softmax and logits are float32.

    remat: what of a block the backward pass computes again (`models.remat.recomputed`).
    """

    config: LlamaConfig
    dtype: Any
    remat: Remat = "none"

    def setup(self):
        block = recomputed(Block, self.remat)
        self.embed_tokens = nn.Embed(self.config.vocab_size, self.config.width)
        self.layers = [block(self.config, self.dtype) for _ in range(self.config.layers)]
        self.norm = _norm(self.config, self.dtype)
        if not self.config.tied:
            # Products in dtype, sums in float32: a rounded logit moves the loss, and the argmax among like ones.
            sums = partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
            self.lm_head = nn.Dense(self.config.vocab_size, use_bias=False, dtype=self.dtype, dot_general=sums)

    def embed(self, ids: jax.Array) -> jax.Array:
        """[B, Q] int32, each an id of the vocabulary -> [B, Q, D] in the model's dtype."""
        return self.embed_tokens(ids).astype(self.dtype)

    def __call__(
        self, x: jax.Array, positions: jax.Array, valid: jax.Array, cache: Cache | None = None
    ) -> tuple[jax.Array, Cache]:
        """Reads tokens.

        Args:
          x: [B, Q, D]. positions: [B, Q] int32. valid: [B, Q] bool, False where there is padding.
          cache: what was read before, with Q places free; None: nothing.

        Returns: hidden states [B, Q, D] behind the last norm, and the cache with the tokens; of padding, anything.
        """
        cache = empty_cache(self.config, *x.shape[:2], self.dtype) if cache is None else cache
        known = jax.lax.dynamic_update_slice_in_dim(cache.valid, valid, cache.filled, axis=1)
        own = cache.filled + jnp.arange(x.shape[1])
        mask = known[:, None] & (jnp.arange(known.shape[1]) <= own[:, None])
        written = []
        for block, past in zip(self.layers, zip(cache.keys, cache.values, strict=True), strict=True):
            x, past = block(x, positions, mask, past, cache.filled)
            written.append(past)
        keys, values = zip(*written, strict=True)
        return self.norm(x), Cache(keys, values, known, cache.filled + x.shape[1])

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[B, Q, D] -> [B, Q, V] float32."""
        if not self.config.tied:
            return self.lm_head(hidden)
        table = self.embed_tokens.embedding.astype(hidden.dtype)
        return jnp.einsum("bqd,vd->bqv", hidden, table, preferred_element_type=jnp.float32)
