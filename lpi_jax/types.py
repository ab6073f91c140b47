"""The types that every layer speaks of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax import Array

Tree = Any  # a pytree of arrays


class Adapter(NamedTuple):
    """The only ways in which a method enters a frozen network.

    Attributes:
      params: what runs: the frozen tree itself, or one of the same shapes with leaves replaced.
      prompts: by site ("vision", "text"): [L, P, D] for all items of a batch, or [B, L, P, D] for each its own; a site
        that is not named runs plainly.
    """

    params: Tree
    prompts: Mapping[str, Array]
