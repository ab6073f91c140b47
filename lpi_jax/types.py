"""The types that every layer speaks of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax import Array

Tree = Any  # a pytree of arrays


class Adapter(NamedTuple):
    """The only ways in which a method enters a frozen network.

    Attributes:
      params: what runs: the frozen tree itself, or one of the same shapes with leaves replaced.
      prompts: by site ("vision", "text", "language"): [L, P, D] for all items of a batch, or [B, L, P, D] for each its
        own; a site that is not named runs plainly.
      present: by site, which of the P prompts are there, [P] or [B, P] bool; None, or a site that is not named: all.
    """

    params: Tree
    prompts: Mapping[str, Array]
    present: Mapping[str, Array] | None = None
