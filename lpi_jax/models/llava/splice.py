"""The sequence that the LLaMA reads: [BOS | prompts | text before the image | visual tokens | text after it].

All shapes are static, so that it is spliced inside jit: every candidate is there with a rank, and a stable sort moves
what takes no position (padding, the image slot, absent prompts, the visual tokens of a sample without an image)
behind the rest. Shapes: B batch, n ids, M prompts, N visual tokens, D width of the LLaMA, L positions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

IMAGE = -200  # the id that stands for the image in a sample's ids
IGNORE = -100  # the label of what is not supervised


class Spliced(NamedTuple):
    """What the LLaMA reads.

    Attributes:
      embeds: [B, L, D]; zeros where there is padding.
      mask: [B, L] bool; where there is none.
      positions: [B, L] int32: 0, 1, ... from the first that is no padding; 0 on padding before it.
      labels: [B, L] int32, moved along; IGNORE on prompts, visual tokens and padding.
    """

    embeds: jax.Array
    mask: jax.Array
    positions: jax.Array
    labels: jax.Array


class Segments(NamedTuple):
    """What is spliced.

    Attributes:
      ids: [B, n] int32, BOS first, at most one IMAGE; length [B]: how many of a row are no padding.
      embeds: [B, n, D], of the ids; whatever at the image slot.
      labels: [B, n] int32, not shifted.
      prompts: [B, M, D]; M may be 0. present: [B, M] bool.
      visual: [B, N, D]; N may be 0. has_image: [B] bool; a row without an IMAGE among its ids has none either.
    """

    ids: jax.Array
    length: jax.Array
    embeds: jax.Array
    labels: jax.Array
    prompts: jax.Array
    present: jax.Array
    visual: jax.Array
    has_image: jax.Array


def splice(segments: Segments, max_length: int, left: bool = False) -> Spliced:
    """Puts the segments in order.

    Args:
      segments: arrays as described there, embeds [B, n, D].
      max_length: what lies behind the first max_length positions is cut off.
      left: padding goes to the left (to generate) instead of the right (to train).

    Returns: Spliced, with L = n - 1 + M + N positions, or n + M if N is 0, at most max_length.
    """
    ids, count, visual = segments.ids, segments.prompts.shape[1], segments.visual.shape[1]
    batch, n = ids.shape
    place = jnp.arange(n)
    slots = ids == IMAGE
    behind = jnp.cumsum(slots, axis=1) > 0
    seen = segments.has_image & slots.any(axis=1)
    nowhere = 5
    ranks = jnp.concatenate(
        [
            jnp.where((place < segments.length[:, None]) & ~slots, jnp.where(behind, 4, 2 * (place > 0)), nowhere),
            jnp.where(segments.present, 1, nowhere),
            jnp.broadcast_to(jnp.where(seen, 3, nowhere)[:, None], (batch, visual)),
        ],
        axis=1,
    )
    longest = min(n + count + visual - bool(visual), max_length)
    order = jnp.argsort(ranks, axis=1, stable=True)[:, :longest]
    total = jnp.minimum(jnp.sum(ranks < nowhere, axis=1), longest)[:, None]
    positions = jnp.arange(longest) - (longest - total if left else 0)
    mask = (positions >= 0) & (positions < total)
    positions = jnp.where(mask, positions, 0)
    order = jnp.take_along_axis(order, positions, axis=1)

    candidates = jnp.concatenate([segments.embeds, segments.prompts, segments.visual], axis=1)
    embeds = jnp.take_along_axis(candidates, order[..., None], axis=1)
    labels = jnp.pad(segments.labels, ((0, 0), (0, count + visual)), constant_values=IGNORE)
    labels = jnp.where(mask, jnp.take_along_axis(labels, order, axis=1), IGNORE)
    return Spliced(jnp.where(mask[..., None], embeds, 0), mask, positions.astype(jnp.int32), labels)
