"""LLaVA with soft prompts: CLIP's towers, a projector and a LLaMA; one pass of the image tower serves both.

The patches of one layer become the LLaMA's visual tokens; the class token of the last block is the image's guidance
feature, CLIP's end-of-text token the question's. The towers have the names that they have in `models/clip.py`.
Shapes: B batch, S image size, n ids, N visual tokens, M prompts, D width of the LLaMA, W of CLIP's text tower,
C CLIP's embedding, L positions (see `splice.py`), V vocabulary.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from lpi_jax.models import drawn
from lpi_jax.models.clip import ACTIVATIONS, TextTower, VisionTower
from lpi_jax.models.llava.config import LlavaConfig
from lpi_jax.models.llava.llama import Cache, Llama
from lpi_jax.models.llava.splice import IGNORE, IMAGE, Segments, Spliced, splice
from lpi_jax.models.remat import Remat


class Inputs(NamedTuple):
    """A batch as `LLaVA.logits` and `generate` take it.

    Attributes:
      ids: [B, n] int32: BOS first, at most one IMAGE, pad ids on the right.
      images: [B, S, S, 3] float32, CLIP-normalised; or the visual tokens [B, N, D] that `encode_image` makes of them;
        None: no row has one.
      prompts: [1, M, D] for all rows or [B, 1, M, D], float32; None: none.
      present: [M] or [B, M] bool, which of the prompts are there; an absent one takes no position. None: all.
      has_image: [B] bool; a row without an image has no visual tokens. None: the rows with IMAGE among their ids.
      length: [B] int32: how many ids of a row are no padding. None: all up to the last that is not the pad id.
    """

    ids: jax.Array
    images: jax.Array | None = None
    prompts: jax.Array | None = None
    present: jax.Array | None = None
    has_image: jax.Array | None = None
    length: jax.Array | None = None


class Outputs(NamedTuple):
    """What a loss needs: logits [B, L, V] float32, labels [B, L] int32 (not shifted), mask [B, L] bool (no padding)."""

    logits: jax.Array
    labels: jax.Array
    mask: jax.Array


class Supervised(NamedTuple):
    """The predictions that are asked for: logits [B, n - 1, V] float32 and targets [B, n - 1] int32.

    A row's come first; behind them the targets are IGNORE.
    """

    logits: jax.Array
    targets: jax.Array


class Projector(nn.Module):
    """Patches [B, N, Dv] -> visual tokens [B, N, D], linear or through one hidden layer with an exact GELU."""

    config: LlavaConfig
    dtype: Any

    def setup(self):
        self.linear_1 = nn.Dense(self.config.llama.width, dtype=self.dtype)
        if self.config.projector == "mlp2x_gelu":
            self.linear_2 = nn.Dense(self.config.llama.width, dtype=self.dtype)

    def __call__(self, patches: jax.Array) -> jax.Array:
        x = self.linear_1(patches)
        return self.linear_2(ACTIVATIONS["gelu"](x)) if self.config.projector == "mlp2x_gelu" else x


class LLaVA(nn.Module):
    """The model. `dtype` is what blocks and projector compute in; features and logits are float32.

    precision: of float32 products, as in `models.clip.CLIP`. remat: what of the LLaMA's blocks the
    backward pass computes again. `init` only makes the leaves; `init_params` gives them initial values.
    """

    config: LlavaConfig
    dtype: Any = jnp.float32
    precision: Literal["highest", "high", "default"] = "highest"
    remat: Remat = "none"

    def setup(self):
        clip = self.config.clip
        self.vision_model = VisionTower(clip, self.dtype, "add")
        self.text_model = TextTower(clip, self.dtype, "add")
        self.visual_projection = nn.Dense(clip.embed_dim, use_bias=False)
        if self.config.text_projection:
            self.text_projection = nn.Dense(clip.embed_dim, use_bias=False)
        self.projector = Projector(self.config, self.dtype)
        self.language_model = Llama(self.config.llama, self.dtype, self.remat)

    def encode_image(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Visual tokens and guidance feature.

        Args:
          images: [B, S, S, 3] float32, CLIP-normalised.

        Returns:
          Tokens [B, N, D] float32: projector(patches of `feature_layer`), without norm and class token. Feature [B, C]
          float32: W_visual LayerNorm(class token of the last block), not normalised.
        Raises: ValueError where the shape does not fit the configuration.
        """
        size = self.config.clip.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise ValueError(f"images must be [B, {size}, {size}, 3] for this model; got {list(images.shape)}")
        with jax.default_matmul_precision(self.precision):
            patches, first = self.vision_model.with_patches(images, self.config.hidden_layer)
            return self.projector(patches).astype(jnp.float32), self.visual_projection(first)

    def encode_question(self, question_ids: jax.Array, projected: bool = False) -> jax.Array:
        """Guidance features of questions.

        Args:
          question_ids: [B, N] int32, CLIP's tokens, N at most the context length: SOT, question, EOT (the highest id),
            anything.
          projected: into CLIP's joint space, W_text LayerNorm(EOT) [B, C].

        Returns: [B, W] float32, LayerNorm(EOT of the last block), not normalised; with `projected` [B, C].
        Raises: ValueError where the shape does not fit the configuration, and for `projected` without a projection.
        """
        longest = self.config.clip.context_length
        if question_ids.ndim != 2 or not 1 <= question_ids.shape[1] <= longest:
            raise ValueError(f"question ids must be [B, N], N from 1 to {longest}; got {list(question_ids.shape)}")
        if projected and not self.config.text_projection:
            raise ValueError("projected question features need a text_projection, which these weights do not have")
        with jax.default_matmul_precision(self.precision):
            features = self.text_model(question_ids, None)
            return self.text_projection(features) if projected else features

    def splice(self, inputs: Inputs, labels: jax.Array | None = None, left: bool = False) -> Spliced:
        """The sequence [B, L, D] that the LLaMA reads (`splice.splice`); labels [B, n] int32, None: all IGNORE.

        Raises: ValueError where a shape does not fit the configuration.
        """
        ids, (batch, n) = inputs.ids, inputs.ids.shape
        width = self.config.llama.width
        visual = inputs.images
        if visual is not None and visual.ndim == 4:
            visual = self.encode_image(visual)[0]
        visual = jnp.zeros((batch, 0, width)) if visual is None else visual
        prompts, present = self._prompts(inputs)
        written = (ids != self.config.pad) * (1 + jnp.arange(n))
        length = jnp.max(written, axis=1) if inputs.length is None else inputs.length
        has_image = jnp.ones(batch, bool) if inputs.has_image is None else inputs.has_image.astype(bool)
        labels = jnp.full(ids.shape, IGNORE, jnp.int32) if labels is None else labels
        embeds = self.embed(jnp.where(ids == IMAGE, self.config.pad, ids))
        segments = Segments(ids, length, embeds, labels, prompts, present, visual.astype(self.dtype), has_image)
        return splice(segments, self.config.max_length, left)

    def _prompts(self, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
        """The prompts [B, M, D] in the model's dtype and which are there [B, M]."""
        batch, width, prompts = inputs.ids.shape[0], self.config.llama.width, inputs.prompts
        if prompts is None:
            return jnp.zeros((batch, 0, width), self.dtype), jnp.zeros((batch, 0), bool)
        prompts = prompts[None] if prompts.ndim == 3 else prompts
        if (
            prompts.ndim != 4
            or prompts.shape[0] not in (1, batch)
            or (prompts.shape[1], prompts.shape[3]) != (1, width)
        ):
            raise ValueError(
                f"language prompts must be [1, M, {width}] or [{batch}, 1, M, {width}]; got {list(prompts.shape)}"
            )
        count = prompts.shape[2]
        # Cast last: its transpose casts first, so that gradients are summed over the batch in float32.
        prompts = jnp.broadcast_to(prompts[:, 0], (batch, count, width)).astype(self.dtype)
        present = jnp.ones(count, bool) if inputs.present is None else inputs.present.astype(bool)
        return prompts, jnp.broadcast_to(present, (batch, count))

    def embed(self, ids: jax.Array) -> jax.Array:
        """[B, n] int32, ids of the LLaMA's vocabulary -> [B, n, D]."""
        return self.language_model.embed(ids)

    def read(self, embeds: jax.Array, positions: jax.Array, mask: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads tokens [B, Q, D] at positions [B, Q] behind the cache -> logits of the last [B, V], and the cache."""
        with jax.default_matmul_precision(self.precision):
            hidden, cache = self.language_model(embeds, positions, mask, cache)
            return self.language_model.logits(hidden[:, -1:])[:, 0], cache

    def logits(
        self,
        ids: jax.Array,
        images: jax.Array | None = None,
        prompts: jax.Array | None = None,
        present: jax.Array | None = None,
        has_image: jax.Array | None = None,
        length: jax.Array | None = None,
        labels: jax.Array | None = None,
    ) -> Outputs:
        """Logits of the next token at every position, padding on the right.

        Args:
          ids, images, prompts, present, has_image, length: the fields of `Inputs`.
          labels: [B, n] int32 beside the ids, not shifted, IGNORE where not supervised; None: all IGNORE.

        Returns: logits [B, L, V] float32, and labels and mask [B, L] moved along.
        Raises: ValueError where a shape does not fit the configuration.
        """
        inputs = Inputs(ids, images, prompts, present, has_image, length)
        with jax.default_matmul_precision(self.precision):
            spliced = self.splice(inputs, labels)
            hidden, _ = self.language_model(spliced.embeds, spliced.positions, spliced.mask)
            return Outputs(self.language_model.logits(hidden), spliced.labels, spliced.mask)

    def supervised(self, inputs: Inputs, labels: jax.Array) -> Supervised:
        """Logits where a label is asked for alone: ahead of words, never of images and prompts, most of a sequence.

        Args:
          labels: [B, n] int32 beside the ids, not shifted, IGNORE where not supervised.

        Raises: ValueError where a shape does not fit the configuration.
        """
        with jax.default_matmul_precision(self.precision):
            spliced = self.splice(inputs, labels)
            hidden, _ = self.language_model(spliced.embeds, spliced.positions, spliced.mask)
            targets = spliced.labels[:, 1:]  # each is predicted from the position before it
            order = jnp.argsort(targets == IGNORE, axis=1, stable=True)[:, : labels.shape[1] - 1]
            hidden = jnp.take_along_axis(hidden, order[..., None], axis=1)
            return Supervised(self.language_model.logits(hidden), jnp.take_along_axis(targets, order, axis=1))

    def __call__(self, images: jax.Array, question_ids: jax.Array, ids: jax.Array) -> tuple[jax.Array, ...]:
        """Image feature [B, C], question feature [B, C or W], logits [B, L, V]: every leaf is used."""
        tokens, feature = self.encode_image(images)
        question = self.encode_question(question_ids, self.config.text_projection)
        return feature, question, self.logits(ids, tokens).logits


def param_shapes(config: LlavaConfig) -> dict[str, Any]:
    """The tree of shapes and dtypes; computes nothing."""
    size, context = config.clip.image_size, config.clip.context_length
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    question_ids, ids = (jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (context, 2))
    return jax.eval_shape(LLaVA(config).init, jax.random.key(0), images, question_ids, ids)["params"]


def init_params(config: LlavaConfig, key: jax.Array) -> dict[str, Any]:
    """A float32 tree of random parameters [...], good to pretrain from.

    Normal with standard deviation (inputs)^-1/2 for matrices, divided by (2 layers)^1/2 for those that write into a
    residual stream; 0.02 for embeddings and the class token. Biases 0, norms 1.
    """

    def std(path: tuple[str, ...], shape: tuple[int, ...]) -> float:
        if path[-1] != "kernel":
            return 0.02
        towers = {"vision_model": config.clip.vision, "text_model": config.clip.text, "language_model": config.llama}
        writes = path[-2] in ("out_proj", "fc2", "o_proj", "down_proj")
        return math.sqrt(1 / math.prod(shape[:-1]) / (2 * towers[path[0]].layers if writes else 1))

    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(param_shapes(config)).items()}
    random = {path: shape for path, shape in sorted(shapes.items()) if path[-1] not in ("bias", "scale")}
    stds = {path: std(path, shape) for path, shape in random.items()}

    leaves = drawn.normal(key, random, stds)
    for path in shapes.keys() - random.keys():
        leaves[path] = jnp.full(shapes[path], path[-1] == "scale", jnp.float32)
    return traverse_util.unflatten_dict(leaves)
