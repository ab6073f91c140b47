"""CLIP's two towers (any ViT CLIP) with prompts at the input and before deeper blocks.

Row 0 of the prompts enters at the input: in vision between the class token and the patches, behind the positions and
before `pre_layrnorm`; in text in place of the embeddings at positions 1..P, before the positions are added. Row l > 0
is added to (or replaces) the hidden states at positions 1..P just before block l. Or no position is taken: with
injection "attend" every token of block l also attends, apart, to the block's own prompts, P keys and P values; where
the values are zero the tower is the frozen one. Captions are pooled at their highest id. The parameter names are those
of Hugging Face's CLIP, so that converting a checkpoint (`weights.py`) is mostly renaming.

Shapes: B batch, S image size, N text length, E embedding, D a tower's width, L prompt layers, P prompts per layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from lpi_jax.models.remat import Remat, recomputed

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


@dataclass(frozen=True)
class TowerConfig:
    """One transformer: `width` D of the residual stream, `layers` blocks, `heads`, `mlp_dim` hidden units."""

    width: int
    layers: int
    heads: int
    mlp_dim: int

    def __post_init__(self):
        if min(self.width, self.layers, self.heads, self.mlp_dim) < 1 or self.width % self.heads:
            raise ValueError(f"a tower needs positive sizes and a width that its heads divide; got {self}")


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers.

    Attributes:
      activation: "quick_gelu" (OpenAI's models) or "gelu".
      end_of_text: the id that captions are pooled at, the highest that they hold; None: the highest of the vocabulary.
      assumed: where activation and heads were taken from, if the weights do not say it: for the user, in words.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    vision: TowerConfig
    text: TowerConfig
    vocab_size: int
    context_length: int = 77
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    end_of_text: int | None = None
    assumed: str = field(default="", compare=False)

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is unknown; expected one of {sorted(ACTIVATIONS)}")
        if not 1 <= self.patch_size <= self.image_size:
            raise ValueError(f"patch_size {self.patch_size} does not fit in image_size {self.image_size}")

    @property
    def patches(self) -> int:
        """Patches of one image, without the class token."""
        return (self.image_size // self.patch_size) ** 2


def _at(x: jax.Array, position: jax.Array | int) -> jax.Array:
    """[B, N, D] -> [B, 1, D]: the token at `position`, one for all ([]) or one per row ([B])."""
    if isinstance(position, int):
        return x[:, position : position + 1]
    return jnp.take_along_axis(x, position[:, None, None], axis=1, mode="promise_in_bounds")


def _replace(x: jax.Array, prompts: jax.Array) -> jax.Array:
    """[B, N, D] with positions 1..P replaced by prompts [B or 1, P, D] float32."""
    prompts = _for_each(prompts, x)
    return jnp.concatenate([x[:, :1], prompts, x[:, 1 + prompts.shape[1] :]], axis=1)


def _add(x: jax.Array, prompts: jax.Array) -> jax.Array:
    """[B, N, D] with prompts [B or 1, P, D] float32 added to positions 1..P."""
    return x + _for_each(jnp.pad(prompts, ((0, 0), (1, x.shape[1] - 1 - prompts.shape[1]), (0, 0))), x)


def _for_each(prompts: jax.Array, x: jax.Array) -> jax.Array:
    """[B or 1, N, D] float32 -> [B, N, D] in the dtype of x."""
    # Cast last: its transpose casts first, so that gradients are summed over the batch, and its devices, in float32.
    return jnp.broadcast_to(prompts, (x.shape[0], *prompts.shape[1:])).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention: queries [B, Q, D], tokens [B, N, D], mask [B or 1, 1, Q, N] (True = seen) -> [B, Q, D].

    Prompts, None or [B, 2P, D] (normed), are P keys and P values: softmax(q W_k keys / sqrt(d)) W_v values is added
    before the output's projection. A softmax of their own, so that values of zero change nothing.
    """

    tower: TowerConfig
    dtype: Any

    def setup(self):
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Dense(self.tower.width, dtype=self.dtype) for _ in range(4)
        )

    def __call__(
        self, queries: jax.Array, tokens: jax.Array, mask: jax.Array | None, prompts: jax.Array | None = None
    ) -> jax.Array:
        def by_head(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:2], self.tower.heads, -1)

        q, k, v = by_head(self.q_proj(queries)), by_head(self.k_proj(tokens)), by_head(self.v_proj(tokens))
        seen = jax.nn.dot_product_attention(q, k, v, mask=mask)
        if prompts is not None:
            keys, values = jnp.split(prompts, 2, axis=1)
            # Without the bias, which the tokens' values have already: no value, nothing added, exactly.
            values = self.v_proj(values) - self.v_proj(jnp.zeros_like(values[:1, :1]))
            seen += jax.nn.dot_product_attention(q, by_head(self.k_proj(keys)), by_head(values))
        return self.out_proj(seen.reshape(queries.shape))


class MLP(nn.Module):
    """[..., D] -> [..., D] through one hidden layer."""

    tower: TowerConfig
    activation: str
    dtype: Any

    def setup(self):
        self.fc1 = nn.Dense(self.tower.mlp_dim, dtype=self.dtype)
        self.fc2 = nn.Dense(self.tower.width, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


def _layer_norm(config: CLIPConfig, dtype: Any) -> nn.LayerNorm:
    # Flax keeps the statistics in float32 whatever the dtype; the slower variance does not cancel.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False)


class Block(nn.Module):
    """One pre-norm transformer block."""

    config: CLIPConfig
    tower: TowerConfig
    causal: bool
    dtype: Any

    def setup(self):
        self.layer_norm1 = _layer_norm(self.config, self.dtype)
        self.self_attn = Attention(self.tower, self.dtype)
        self.layer_norm2 = _layer_norm(self.config, self.dtype)
        self.mlp = MLP(self.tower, self.config.activation, self.dtype)

    def __call__(
        self, x: jax.Array, only: jax.Array | int | None = None, prompts: jax.Array | None = None
    ) -> jax.Array:
        """[B, N, D] -> [B, N, D]; or, with a position `only` ([] or [B]), that token's output alone: [B, 1, D].

        One token's output needs the keys and values of all, but only its own query and MLP. prompts: None or
        [B, 2P, D], to attend to.
        """
        places = jnp.arange(x.shape[1])
        tokens = self.layer_norm1(x)
        if prompts is not None:  # keys as any token; of values the scale alone, so that zero stays zero
            keys, values = jnp.split(prompts, 2, axis=1)
            scale = self.layer_norm1.variables["params"]["scale"].astype(values.dtype)
            prompts = jnp.concatenate([self.layer_norm1(keys), scale * values], axis=1)
        queries, asked = tokens, places[None]
        if only is not None:
            x, queries, asked = _at(x, only), _at(tokens, only), jnp.reshape(only, (-1, 1))
        mask = (places <= asked[..., None])[:, None] if self.causal else None
        x = x + self.self_attn(queries, tokens, mask, prompts)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """A tower's blocks: row l > 0 of the prompts enters before block l; the last block computes only the pooled one."""

    config: CLIPConfig
    tower: TowerConfig
    causal: bool
    dtype: Any
    injection: str
    remat: Remat = "none"

    def setup(self):
        self.layers = [Block(self.config, self.tower, self.causal, self.dtype) for _ in range(self.tower.layers)]

    def __call__(self, x: jax.Array, prompts: jax.Array | None, pooled: jax.Array | int) -> jax.Array:
        """x [B, N, D], prompts None or [B or 1, L, P, D] float32, pooled position ([] or [B]) -> that token, [B, D]."""
        return self.with_hidden(x, prompts, pooled)[1]

    def with_hidden(
        self, x: jax.Array, prompts: jax.Array | None, pooled: jax.Array | int, layer: int | None = None
    ) -> tuple[jax.Array | None, jax.Array]:
        """As `__call__`, behind the hidden states [B, N, D] of a layer, the input (0) or what that many blocks give."""
        inject, hidden, last = _add if self.injection == "add" else _replace, None, self.tower.layers - 1
        for index, block in enumerate(self.layers):
            hidden = x if index == layer else hidden
            attended = None
            if prompts is not None and index < prompts.shape[1]:
                if self.injection == "attend":
                    attended = _for_each(prompts[:, index], x)
                elif index:
                    x = inject(x, prompts[:, index])
            only = pooled if index == last and layer != self.tower.layers else None
            x = recomputed(partial(_called, only=only), self.remat)(block, x, attended)
        if layer == self.tower.layers:
            hidden, x = x, _at(x, pooled)
        return hidden, x[:, 0]


def _called(block: Block, x: jax.Array, prompts: jax.Array | None, only: jax.Array | int | None) -> jax.Array:
    return block(x, only, prompts)


class VisionEmbeddings(nn.Module):
    """Images [B, S, S, 3] -> class token and patches with positions, [B, 1 + patches, D] float32."""

    config: CLIPConfig
    dtype: Any

    def setup(self):
        width, patch = self.config.vision.width, (self.config.patch_size,) * 2
        self.class_embedding = self.param("class_embedding", nn.initializers.normal(), (width,))
        self.patch_embedding = nn.Conv(width, patch, patch, padding="VALID", use_bias=False, dtype=self.dtype)
        self.position_embedding = nn.Embed(1 + self.config.patches, width)

    def __call__(self, images: jax.Array) -> jax.Array:
        batch, width = images.shape[0], self.config.vision.width
        patches = self.patch_embedding(images).reshape(batch, -1, width)
        first = jnp.broadcast_to(self.class_embedding, (batch, 1, width))
        return jnp.concatenate([first, patches], axis=1) + self.position_embedding.embedding


class TextEmbeddings(nn.Module):
    """Token ids [B, N] -> embeddings (1..P replaced by prompts [B or 1, P, D]) with positions, [B, N, D] float32."""

    config: CLIPConfig

    def setup(self):
        self.token_embedding = nn.Embed(self.config.vocab_size, self.config.text.width)
        self.position_embedding = nn.Embed(self.config.context_length, self.config.text.width)

    def __call__(self, token_ids: jax.Array, prompts: jax.Array | None) -> jax.Array:
        x = self.token_embedding(token_ids)
        if prompts is not None:
            x = _replace(x, prompts)
        return x + self.position_embedding.embedding[: token_ids.shape[1]]


class VisionTower(nn.Module):
    """Images [B, S, S, 3] -> the class token [B, D]; prompts None or [B or 1, L, P, D]."""

    config: CLIPConfig
    dtype: Any
    injection: str
    remat: Remat = "none"

    def setup(self):
        self.embeddings = VisionEmbeddings(self.config, self.dtype)
        self.pre_layrnorm = _layer_norm(self.config, self.dtype)  # Hugging Face's spelling
        self.encoder = Encoder(self.config, self.config.vision, False, self.dtype, self.injection, self.remat)
        self.post_layernorm = _layer_norm(self.config, jnp.float32)

    def __call__(self, images: jax.Array, prompts: jax.Array | None) -> jax.Array:
        """[B, S, S, 3] -> the class token after the last block, [B, D] float32."""
        x = self.embeddings(images)
        if prompts is not None and self.injection != "attend":  # behind the class token, without positions
            first = jnp.broadcast_to(prompts[:, 0], (x.shape[0], *prompts.shape[2:]))
            x = jnp.concatenate([x[:, :1], first, x[:, 1:]], axis=1)
        return self.post_layernorm(self.encoder(self.pre_layrnorm(x), prompts, 0))

    def with_patches(self, images: jax.Array, layer: int) -> tuple[jax.Array, jax.Array]:
        """Patches [B, patches, D] of a layer (see `Encoder.with_hidden`), not normed, and the class token [B, D]."""
        hidden, first = self.encoder.with_hidden(self.pre_layrnorm(self.embeddings(images)), None, 0, layer)
        return hidden[:, 1:], self.post_layernorm(first)

    def with_mean(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The class token [B, D], as `__call__` gives it, and the mean of the patches behind the last block [B, D]."""
        patches, first = self.with_patches(images, self.config.vision.layers)
        return first, jnp.mean(patches, axis=1, dtype=jnp.float32)


class TextTower(nn.Module):
    """Token ids [B, N] -> the EOT token [B, D]; prompts None or [B or 1, L, P, D]."""

    config: CLIPConfig
    dtype: Any
    injection: str
    remat: Remat = "none"

    def setup(self):
        self.embeddings = TextEmbeddings(self.config)
        self.encoder = Encoder(self.config, self.config.text, True, self.dtype, self.injection, self.remat)
        self.final_layer_norm = _layer_norm(self.config, jnp.float32)

    def __call__(self, token_ids: jax.Array, prompts: jax.Array | None) -> jax.Array:
        """[B, N] -> the EOT token (the highest id, the first if repeated) after the last block, [B, D] float32."""
        first = None if prompts is None or self.injection == "attend" else prompts[:, 0]
        x = self.embeddings(token_ids, first).astype(self.dtype)
        return self.final_layer_norm(self.encoder(x, prompts, jnp.argmax(token_ids, axis=-1)))

    def with_mean(self, token_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The EOT token [B, D], as `__call__` gives it, and the mean of all up to it behind the last block [B, D]."""
        x = self.embeddings(token_ids, None).astype(self.dtype)
        end = jnp.argmax(token_ids, axis=-1)
        hidden, last = self.encoder.with_hidden(x, None, end, self.config.text.layers)
        seen = (jnp.arange(token_ids.shape[1]) <= end[:, None])[..., None]
        return self.final_layer_norm(last), jnp.mean(hidden, axis=1, where=seen, dtype=jnp.float32)


class CLIP(nn.Module):
    """Both towers and their projections. `dtype` is what the blocks compute in; features are float32.

    LayerNorm statistics, softmax, sums of gradients over a batch and everything after the last block are float32 too,
    and so are parameters, or, where that changes nothing, in `dtype` (`models.kept`).
    `precision` is that of float32 products, also of their gradients: a TPU or a recent GPU rounds the factors unless it
    is "highest". remat: what of the blocks the backward pass computes again (`models.remat`). `init` only makes the
    leaves; `clip_start.init_params` gives them CLIP's initial values.
    """

    config: CLIPConfig
    dtype: Any = jnp.float32
    injection: Literal["add", "replace", "attend"] = "add"
    precision: Literal["highest", "high", "default"] = "highest"
    remat: Remat = "none"

    def setup(self):
        if self.injection not in ("add", "replace", "attend"):
            raise ValueError(f"injection {self.injection!r} is unknown; expected 'add', 'replace' or 'attend'")
        self.vision_model = VisionTower(self.config, self.dtype, self.injection, self.remat)
        self.text_model = TextTower(self.config, self.dtype, self.injection, self.remat)
        self.visual_projection = nn.Dense(self.config.embed_dim, use_bias=False)
        self.text_projection = nn.Dense(self.config.embed_dim, use_bias=False)
        self.logit_scale = self.param("logit_scale", nn.initializers.zeros, ())

    def encode_image(self, images: jax.Array, prompts: jax.Array | None = None) -> jax.Array:
        """Image features.

        Args:
          images: [B, S, S, 3] float32, already normalised.
          prompts: None, [L, P, D] or [B, L, P, D], L at most the tower's layers. Row 0 is inserted behind the class
            token; row l > 0 is added to (injection "replace": takes the place of) positions 1..P before block l.
            Injection "attend": [L, 2P, D] or [B, L, 2P, D], the keys, then the values that block l attends to.

        Returns: [B, E] float32, L2-normalised.
        Raises: ValueError where a shape does not fit the configuration.
        """
        size = self.config.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise ValueError(f"images must be [B, {size}, {size}, 3] for this model; got {list(images.shape)}")
        prompts = _batched(prompts, self.config.vision, images.shape[0], "image")
        # A product remembers the precision it was traced with, and so do its transposes in the backward pass.
        with jax.default_matmul_precision(self.precision):
            return _normalise(self.visual_projection(self.vision_model(images, prompts)))

    def encode_text(self, token_ids: jax.Array, prompts: jax.Array | None = None) -> jax.Array:
        """Caption features.

        Args:
          token_ids: [B, N] int32, N at most the context length: SOT, P placeholders if there are prompts, caption,
            EOT (the highest id), anything. Injection "attend" needs no placeholders.
          prompts: None, [L, P, D] or [B, L, P, D]. Row 0 replaces the embeddings at positions 1..P; row l > 0 is
            added to (injection "replace": takes the place of) positions 1..P before block l. Injection "attend": as
            for images.

        Returns: [B, E] float32, L2-normalised.
        Raises: ValueError where a shape does not fit the configuration.
        """
        longest = self.config.context_length
        if token_ids.ndim != 2 or not 1 <= token_ids.shape[1] <= longest:
            raise ValueError(f"token ids must be [B, N] with N from 1 to {longest}; got {list(token_ids.shape)}")
        prompts = _batched(prompts, self.config.text, token_ids.shape[0], "text")
        if prompts is not None and self.injection != "attend" and prompts.shape[2] + 2 > token_ids.shape[1]:
            raise ValueError(
                f"{prompts.shape[2]} text prompts, a start and an end token do not fit in {token_ids.shape[1]} tokens"
            )
        with jax.default_matmul_precision(self.precision):
            return _normalise(self.text_projection(self.text_model(token_ids, prompts)))

    def describe_image(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features [B, E] as of `encode_image`, and what the last block makes of an image, [B, 2D] float32.

        That is the class token, normed, and the mean of the patches: what tells images apart is in both, also what
        their captions do not speak of. images: [B, S, S, 3] float32, already normalised.
        """
        with jax.default_matmul_precision(self.precision):
            first, mean = self.vision_model.with_mean(images)
            return _normalise(self.visual_projection(first)), jnp.concatenate([first, mean], axis=1)

    def describe_text(self, token_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features [B, E] as of `encode_text`, and what the last block makes of a caption, [B, 2D] float32.

        That is the EOT token, normed, and the mean of all tokens up to it. token_ids: [B, N] int32.
        """
        with jax.default_matmul_precision(self.precision):
            end, mean = self.text_model.with_mean(token_ids)
            return _normalise(self.text_projection(end)), jnp.concatenate([end, mean], axis=1)

    def __call__(self, images: jax.Array, token_ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Image features [B, E], caption features [B, E] and the logit scale [] (the factor, not its logarithm)."""
        return self.encode_image(images), self.encode_text(token_ids), jnp.exp(self.logit_scale)


def _batched(prompts: jax.Array | None, tower: TowerConfig, batch: int, name: str) -> jax.Array | None:
    """Prompts as [B or 1, L, P, D]; raises ValueError where they do not fit."""
    if prompts is None:
        return None
    if prompts.ndim == 3:
        prompts = prompts[None]
    if prompts.ndim != 4 or prompts.shape[0] not in (1, batch) or prompts.shape[3] != tower.width:
        raise ValueError(
            f"{name} prompts must be [L, P, {tower.width}] or [{batch}, L, P, {tower.width}]; got {list(prompts.shape)}"
        )
    if not 1 <= prompts.shape[1] <= tower.layers:
        raise ValueError(f"{name} prompts have {prompts.shape[1]} layers; this tower takes 1 to {tower.layers}")
    return prompts


def _normalise(x: jax.Array) -> jax.Array:
    """[B, E] rows of length 1; a row of zeros stays zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def param_shapes(config: CLIPConfig) -> dict[str, Any]:
    """The tree of shapes and dtypes; computes nothing."""
    images = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.float32)
    token_ids = jnp.zeros((1, config.context_length), jnp.int32)
    return jax.eval_shape(CLIP(config).init, jax.random.key(0), images, token_ids)["params"]
