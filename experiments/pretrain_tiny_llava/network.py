"""The LLaVA as rows of several conversations are trained with it: the model's own layers under the rows' mask."""

from typing import Any

import jax
import jax.numpy as jnp
from rows import AHEAD, MOST, PATCHES
from variants import COUNT, LENGTH

from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD, normalise
from lpi_jax.models.llava.llama import empty_cache
from lpi_jax.models.llava.llava import LLaVA
from lpi_jax.models.llava.splice import IGNORE

TRAINED = ("projector", "language_model")
PREFIXES = "prefixes"  # [N, D], trained beside them and left behind


def loss(trained: dict[str, Any], frozen: dict[str, Any], model: LLaVA, rows: Any) -> jax.Array:
    """The mean cross entropy of the answers, a scalar in nats a token; rows: arrays as in `rows.Rows`.

    The mean over conversations of each one's mean, weighted by the root of its length: if all tokens counted alike, a
    box would count for ten words; if all conversations did, a figure in a box for a tenth of a word.
    """
    params = {name: part for name, part in {**frozen, **trained}.items() if name != PREFIXES}
    said = model.apply({"params": params}, rows, trained.get(PREFIXES), method=logits)[:, :-1]
    targets, group = rows.labels[:, 1:], rows.group[:, 1:]
    numbers = jnp.arange(1, MOST + 1)[:, None, None]  # of a row's conversations
    own = (group == numbers) & (targets != IGNORE)
    root = jnp.sqrt(own.sum(-1))
    likely = jax.nn.log_softmax(said)
    of_target = jnp.take_along_axis(likely, jnp.maximum(targets, 0)[..., None], axis=2)[..., 0]
    return -jnp.sum(jnp.where(own, of_target, 0.0).sum(-1) / jnp.maximum(root, 1)) / root.sum()


def pixels(images: Any) -> jax.Array:
    """[B, S, S, 3] uint8 -> float32 as CLIP takes them."""
    return normalise(images, CLIP_MEAN, CLIP_STD)


def logits(model: LLaVA, rows: Any, prefixes: jax.Array | None = None) -> jax.Array:
    """[B, L, V] float32; a method of the model. prefixes: [N, D], what ids from V on stand for.

    The last of them are misleading ones: their gradient is turned round, so that a step makes the loss larger by them.
    """
    language, words = model.language_model, model.config.llama.vocab_size
    embeds = model.embed(jnp.minimum(rows.ids, words - 1))
    if prefixes is not None:
        misleading = jnp.arange(len(prefixes))[:, None] >= COUNT * LENGTH
        prefixes = jnp.where(misleading, 2 * jax.lax.stop_gradient(prefixes) - prefixes, prefixes)
        embeds = jnp.where((rows.ids < words)[..., None], embeds, prefixes[jnp.maximum(rows.ids - words, 0)])
    visual, _ = model.encode_image(pixels(rows.images))
    place = jnp.arange(rows.ids.shape[1]) - rows.start[:, None]
    patch = jnp.clip(place, 0, visual.shape[1] - 1)[..., None]
    x = jnp.where((place == patch[..., 0])[..., None], jnp.take_along_axis(visual, patch, 1), embeds)
    seen = mask(rows)
    empty = empty_cache(model.config.llama, *rows.ids.shape, model.dtype)
    for block, past in zip(language.layers, zip(empty.keys, empty.values, strict=True), strict=True):
        x, _ = block(x, rows.positions, seen, past, empty.filled)
    return language.logits(language.norm(x))


def mask(rows: Any) -> jax.Array:
    """[B, L, L] bool: which tokens each sees."""
    place = jnp.arange(rows.group.shape[1])
    own = rows.group[:, :, None] == rows.group[:, None, :]
    sees, ahead = rows.sees[:, :, None], place < rows.start[:, None, None]
    common = (rows.group[:, None, :] == 0) & ((sees == PATCHES) | (sees == AHEAD) & ahead | (place == 0))
    return (own | common) & (place <= place[:, None])
