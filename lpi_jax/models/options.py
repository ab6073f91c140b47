"""What a run is told of a backbone that the weights' files do not say."""

from dataclasses import dataclass

from lpi_jax.options import OTHER_BACKBONE, option


@dataclass(frozen=True)
class Towers:
    """Section `towers`: what the weights' files do not say."""

    activation: str = option(
        "", "'': as the weights' files say, or OpenAI's", choices=("", "quick_gelu", "gelu"), reader=OTHER_BACKBONE
    )
    vision_heads: int = option(
        0,
        "attention heads; 0: as the weights' files say, or OpenAI's 64 numbers a head",
        least=0,
        reader=OTHER_BACKBONE,
    )
    text_heads: int = option(0, "the same for the text tower", least=0, reader=OTHER_BACKBONE)
