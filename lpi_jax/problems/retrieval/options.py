"""What retrieval is told: how its items are measured, and how pixels are normalised."""

from dataclasses import dataclass
from typing import NamedTuple

from lpi_jax.options import option


@dataclass(frozen=True)
class Evaluation:
    """Section `eval`."""

    batch: int = option(128, "items encoded at once, over all devices", least=1)
    transform: str = option("centre", "of the images that are measured", choices=("centre", "random"))
    gallery: str = option(
        "union", "what is searched: all tasks seen so far, or the item's own", choices=("union", "task")
    )


@dataclass(frozen=True)
class Pixels:
    """A key without a section."""

    pixels: str = option("clip", "whose mean and deviation normalise pixels", choices=("clip", "imagenet"))


class Measured(NamedTuple):
    """How items are measured.

    Attributes:
      batch: items encoded at once. galleries: `union` or `task`. oracle: whether the true task is told.
      asks_with_placeholders: whether captions are routed with the placeholders in front.
      seed: for a random transform.
    """

    batch: int
    galleries: str
    oracle: bool
    asks_with_placeholders: bool
    seed: int
