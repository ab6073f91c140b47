"""What retrieval is told: how its items are measured, and how pixels are normalised."""

from dataclasses import dataclass
from typing import NamedTuple

from lpi_jax.options import TRAINING, option
from lpi_jax.problems import options

SCORES = (
    "prompted",
    "plain",
    "prompted+plain",
    "prompted+prior",
    "plain+prior",
    "prompted+plain+prior",
    "matched",
    "matched+prior",
)


@dataclass(frozen=True)
class Evaluation(options.Evaluation):
    """Section `eval`."""

    transform: str = option("centre", "of the images that are measured", choices=("centre", "random"))
    gallery: str = option(
        "union", "what is searched: all tasks seen so far, or the item's own", choices=("union", "task")
    )
    score: str = option(
        "prompted",
        "what an image and a text score: features under their prompts, plain features, and a prior of their tasks;"
        " matched: plain features where their prompts are of different tasks",
        choices=SCORES,
    )
    equal_texts: str = option(
        "apart", "whether captions of the same tokens are items apart, or one", choices=("apart", "one")
    )


@dataclass(frozen=True)
class Loss:
    """Section `problem`, beside its name."""

    equal_texts: str = option(
        "apart",
        "whether another image's caption of the same tokens is a wrong answer in a training batch, or a right one",
        choices=("apart", "one"),
        reader=TRAINING,
    )


@dataclass(frozen=True)
class Pixels:
    """A key without a section."""

    pixels: str = option("clip", "whose mean and deviation normalise pixels", choices=("clip", "imagenet"))


class Measured(NamedTuple):
    """How items are measured; the defaults are those of the preset `intended`.

    Attributes:
      batch: items encoded at once. seed: for a random transform.
      galleries: `union` or `task`. oracle: whether the true task is told.
      score: one of `SCORES`. apart: whether equal captions are items of their own.
      future: whether the items of all tasks are there from the start.
      rule: of routing. looks_at: `routing.features`.
      asks_with_placeholders: whether captions are routed with the placeholders in front.
    """

    batch: int
    seed: int
    galleries: str = "union"
    oracle: bool = False
    score: str = "prompted"
    apart: bool = True
    future: bool = False
    rule: str = "kmeans_l1"
    looks_at: str = "joint"
    asks_with_placeholders: bool = False
