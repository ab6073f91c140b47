"""What instruction following is told: what stands around a question, what is compared, how answers are measured."""

from dataclasses import dataclass
from typing import NamedTuple

from lpi_jax.options import TRAINING, option
from lpi_jax.problems import options

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FITS = ("pad", "crop")


@dataclass(frozen=True)
class Conversation:
    """What is said around the questions, and what of them routes."""

    system: str = option(VICUNA, "the text in front of a conversation; empty: none")
    guidance_text: str = option(
        "intended",
        "what CLIP reads: the question, or what follows the prompt's first newline, which a question without an image"
        " loses its first line to",
        choices=("intended", "released"),
    )


@dataclass(frozen=True)
class Asked(Conversation):
    """Section `problem`, beside its name."""

    clip: str = option(
        "",
        "the CLIP with the text tower, a folder or hub id; '': the bundled backbone's, or the folder clip in the"
        " backbone's",
        kind="place",
        content="clip",
    )
    text_feature: str = option(
        "pooler",
        "of a question: what CLIP's text tower gives before its projection (the release's), or behind it",
        choices=("pooler", "projected"),
    )
    image: str = option(
        "pad",
        "how training images become square: padded with CLIP's mean colour, or cropped",
        choices=FITS,
        reader=TRAINING,
    )


@dataclass(frozen=True)
class Evaluation(options.Evaluation):
    """Section `eval`."""

    max_new: int = option(128, "tokens of an answer, at most", least=1)
    image: str = option(
        "pad",
        "how measured images become square; published: as the benchmark's own script does, task by task",
        choices=(*FITS, "published"),
    )
    shown: int = option(
        4,
        "validation samples of each task that are kept with their answers for people to see; 0: none",
        kind="speed",
        least=0,
        most=64,
    )


class Measured(NamedTuple):
    """How answers are measured.

    Attributes:
      batch: samples answered at once. max_new: tokens of an answer, at most. image: as the option.
      oracle: whether the true task is told. future: whether the samples of all tasks are there from the start.
      shown: how many samples of each task are kept for people to see.
    """

    batch: int = 128
    max_new: int = 128
    image: str = "pad"
    oracle: bool = False
    future: bool = False
    shown: int = 4
