"""The types that every layer speaks of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax import Array

Tree = Any  # a pytree of arrays

# What may stand beside "kernel" in a linear layer of a language model's blocks (`lpi_jax.models.llava.linear`).
LOW, EXPERTS = "low", "experts"


class Adapter(NamedTuple):
    """The only ways in which a method enters a frozen network.

    Attributes:
      params: what runs: the frozen tree itself, or one of the same shapes with leaves replaced; a language model's may
        have low-rank updates beside its kernels, too.
      prompts: by site ("vision", "text", "language"): [L, P, D] for all items of a batch, or [B, L, P, D] for each its
        own; a site that is not named runs plainly.
      present: by site, which of the P prompts are there, [P] or [B, P] bool; None, or a site that is not named: all.
    """

    params: Tree
    prompts: Mapping[str, Array]
    present: Mapping[str, Array] | None = None
