"""What retrieval is told: how its items are measured, and how pixels are normalised."""

from dataclasses import dataclass

from lpi_jax.options import option


@dataclass(frozen=True)
class Evaluation:
    """Section `eval`."""

    batch: int = option(128, "items encoded at once, over all devices", least=1)
    transform: str = option("centre", "of the pictures that are measured", choices=("centre", "random"))
    gallery: str = option(
        "union", "what is searched: all tasks seen so far, or the item's own", choices=("union", "task")
    )


@dataclass(frozen=True)
class Pixels:
    """A key without a section."""

    pixels: str = option("clip", "whose mean and deviation normalise pixels", choices=("clip", "imagenet"))
