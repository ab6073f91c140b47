"""Images with instructions: what a split of them holds."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

# How answers can be judged: `lpi_jax.problems.instruction.scoring.SCORERS` has a scorer for each.
SCORINGS = (
    "exact",
    "choice",
    "science_qa",
    "text_vqa",
    "imagenet",
    "gqa",
    "vizwiz",
    "grounding",
    "vqav2",
    "ocr_vqa",
    "caption",
)
NO_IMAGE_SIDE = 32  # pixels


@dataclass(frozen=True, slots=True)
class Instructed:
    """One conversation, about an image or about none.

    Attributes:
      key: a name of it, unique in its split.
      turns: (question, answer) of each round; questions do not say "<image>".
      answers: what counts as right when it is measured; the first is the reference (VQA has ten).
      has_image: whether it is about an image; a split's `load` gives a black one where not.
      scoring: how answers are judged, one of SCORINGS.
      annotation: what else is known (box, size [w, h], choices); None where nothing is.
      fit: how its benchmark's own script makes its image square when it is measured, `pad` or `crop`.
    """

    key: str
    turns: tuple[tuple[str, str], ...]
    answers: tuple[str, ...]
    has_image: bool = True
    scoring: str = "exact"
    annotation: Any = None
    fit: str = "pad"


@dataclass(frozen=True, slots=True)
class NoImage:
    """The black image of samples that have none, as an `images.StoredImage`."""

    def read(self, max_pixels: int) -> Image.Image:
        """A small black image, mode RGB, whatever `max_pixels`."""
        return Image.new("RGB", (NO_IMAGE_SIDE, NO_IMAGE_SIDE))

    def check(self, max_pixels: int) -> int:
        """0: nothing is stored."""
        return 0

    def sample(self) -> bytes:
        """Nothing."""
        return b""
