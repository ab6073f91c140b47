"""Generating answers: prefill and decoding in one compiled computation, with a cache of static size.

Rows are padded on the left, so that all of them write their next token at the same place of the cache; each has its own
positions and its own end. Prompts and visual tokens are read once, by the prefill. Shapes: B batch, V vocabulary.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lpi_jax.models.llava.llama import Cache, empty_cache
from lpi_jax.models.llava.llava import Inputs, LLaVA


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Attributes:
      temperature: 0 takes the likeliest; otherwise logits are divided by it and a token is drawn.
      top_p: a token is drawn among the likeliest, as few as have this probability together; 1: among all.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self):
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"sampling needs a temperature of 0 or more and 0 < top_p <= 1; got {self}")

    def choose(self, logits: jax.Array, key: jax.Array | None) -> jax.Array:
        """Logits [B, V] float32 -> ids [B] int32; key: None for temperature 0."""
        if not self.temperature:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        logits = logits / self.temperature
        if self.top_p < 1:
            ordered = -jnp.sort(-logits, axis=-1)
            chances = jax.nn.softmax(ordered, axis=-1)
            kept = jnp.cumsum(chances, axis=-1) - chances < self.top_p  # what the likelier ones have together
            least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
            logits = jnp.where(logits >= least, logits, -jnp.inf)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


class Generated(NamedTuple):
    """Ids [B, max_new] int32, pad ids behind a row's end; length [B] int32, how many were generated, EOS included."""

    ids: jax.Array
    length: jax.Array


class _State(NamedTuple):
    """Between two tokens: ids [B, max_new], length [B], done [B] bool, how many steps were taken, and the cache."""

    ids: jax.Array
    length: jax.Array
    done: jax.Array
    step: jax.Array
    cache: Cache


@partial(jax.jit, static_argnames=("model", "max_new", "sampling"))
def generate(
    model: LLaVA,
    params: Any,
    inputs: Inputs,
    max_new: int,
    sampling: Sampling = Sampling(),
    key: jax.Array | None = None,
) -> Generated:
    """Generates until every row has ended or has max_new tokens.

    Args:
      model, params: the module (static) and its tree.
      inputs: ids [B, n] and whatever belongs to them; the sequence ends where the answer begins. Rows with and without
        an image, and of any lengths, may stand in one batch.
      max_new: most tokens of an answer, 1 or more.
      sampling: how tokens are chosen (static). key: a key, needed with a temperature.

    Returns: ids [B, max_new] and lengths [B].
    Raises: ValueError for a max_new below 1, a temperature without a key, and where a shape does not fit the model.
    """
    if max_new < 1:
        raise ValueError(f"max_new must be 1 or more, not {max_new}")
    if sampling.temperature and key is None:
        raise ValueError(f"a temperature of {sampling.temperature} needs a key")
    run, config = partial(model.apply, {"params": params}), model.config

    def taken(state: _State, logits: jax.Array) -> _State:
        """The state with the next token, [B, V] logits."""
        step_key = None if key is None else jax.random.fold_in(key, state.step)
        chosen = jnp.where(state.done, config.pad, sampling.choose(logits, step_key))
        return state._replace(
            ids=jax.lax.dynamic_update_slice_in_dim(state.ids, chosen[:, None], state.step, axis=1),
            length=state.length + ~state.done,
            done=state.done | (chosen == config.eos),
            step=state.step + 1,
        )

    spliced = run(inputs, left=True, method="splice")
    batch, longest = spliced.mask.shape
    cache = empty_cache(config.llama, batch, longest + max_new - 1, model.dtype)
    logits, cache = run(spliced.embeds, spliced.positions, spliced.mask, cache, method="read")
    first = spliced.mask.sum(axis=1)  # the position of a row's first new token
    nothing = jnp.full((batch, max_new), config.pad, jnp.int32)
    start = _State(nothing, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool), jnp.int32(0), cache)

    def more(state: _State) -> jax.Array:
        return (state.step < max_new) & ~state.done.all()

    def advance(state: _State) -> _State:
        newest = jax.lax.dynamic_slice_in_dim(state.ids, state.step - 1, 1, axis=1)
        positions = (first + state.step - 1)[:, None]
        embeds = run(newest, method="embed")
        logits, cache = run(embeds, positions, jnp.ones_like(newest, bool), state.cache, method="read")
        return taken(state._replace(cache=cache), logits)

    end = jax.lax.while_loop(more, advance, taken(start, logits))
    return Generated(end.ids, end.length)
