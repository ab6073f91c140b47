"""What a domain is: a look and a voice, each with its own strength; and the general domain that pretraining sees.

The two numbers `strength` (the look) and `accent` (the wording), both in [0, 1], tune a domain's distance from general
scenes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lpi_jax.data.scene_drawing import PAINTS, Look
from lpi_jax.data.scene_shapes import GENERAL_SHAPES
from lpi_jax.data.scene_wording import Form, Voice

TERSE = "{colour} {shape}"
BARE = "{size} {texture} {colour} {shape}"


@dataclass(frozen=True)
class Domain:
    """One row of the table. shapes, colours, textures, sizes: what its scenes are made of, in plain words.

    axis: whether its first two objects always stand side by side (`across`) or one above the other (`down`).
    """

    name: str
    description: str
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    textures: tuple[str, ...]
    look: Look
    strength: float
    voice: Voice
    accent: float
    sizes: tuple[str, ...] = ("small", "big")
    axis: Literal["across", "down"] | None = None


def _words(relations: str, others: str) -> Mapping[str, tuple[str, ...]]:
    """relations: own words for left of|right of|above|below; others: 'plain=own' or 'plain=own/other', with commas."""
    words = dict(zip(("left of", "right of", "above", "below"), ((r,) for r in relations.split("|")), strict=True))
    for entry in others.replace("\n", ",").split(","):
        if entry.strip():
            plain, own = entry.strip().split("=")
            words[plain] = tuple(own.split("/"))
    return words


def domain(
    name: str,
    description: str,
    shapes: str,
    *,
    colours: str,
    textures: str = "solid striped dotted",
    sizes: str = "small big",
    axis: Literal["across", "down"] | None = None,
    look: Look,
    strength: float,
    accent: float,
    relations: str,
    words: str,
    forms: Sequence[Form],
) -> Domain:
    """One domain, written compactly: lists of words are separated by blanks."""
    return Domain(
        name=name,
        description=description,
        shapes=tuple(s.replace("_", " ") for s in shapes.split()),
        colours=tuple(colours.split()),
        textures=tuple(textures.split()),
        look=look,
        strength=strength,
        voice=Voice(tuple(forms), _words(relations, words)),
        accent=accent,
        sizes=tuple(sizes.split()),
        axis=axis,
    )


GENERAL = Domain(
    name="general",
    description="plain pictures of coloured shapes on pale paper, described simply",
    shapes=GENERAL_SHAPES,
    colours=tuple(PAINTS),
    textures=("solid", "striped", "dotted"),
    look=Look(),
    strength=0.0,
    voice=Voice(
        forms=(
            Form(),
            Form("a picture of {}"),
            Form(flip=True),
            Form("there is {}", flip=True),
            Form(clause="{a}, {rel} {b}", phrase=BARE, join=", "),
            Form(phrase=TERSE, join=", ", again=TERSE),
            Form(phrase="a {colour} {shape}", flip=True),
            Form("{}", "{a} is {rel} {b}", phrase="the {size} {texture} {colour} {shape}"),
        ),
        words=_words(
            "to the left of|to the right of|over|under",
            "big=large, small=little, dotted=spotted",
        ),
    ),
    accent=0.3,
)
