"""What a domain is: a look and a voice, each with its own strength; and the general domain that pretraining sees.

The two numbers `strength` (the look) and `accent` (the wording), both in [0, 1], tune a domain's distance from general
scenes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lpi_jax.data.scenes.backdrops import PAPERS, PATTERNS
from lpi_jax.data.scenes.drawing import PAINTS, Look
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES
from lpi_jax.data.scenes.wording import Form, Voice

TERSE = "{colour} {shape}"
BARE = "{size} {texture} {colour} {shape}"


@dataclass(frozen=True)
class Domain:
    """One row of the table. shapes, colours: what its scenes are made of, in plain words.

    looks: each image has one of them; a reported domain has only one.
    """

    name: str
    description: str
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    looks: tuple[Look, ...]
    strength: float
    voice: Voice
    accent: float


def _words(relations: str, others: str) -> Mapping[str, tuple[str, ...]]:
    """relations: own words for left of|right of|above|below; others: 'plain=own' or 'plain=own/other', with commas."""
    words = dict(zip(("left of", "right of", "above", "below"), ((r,) for r in relations.split("|")), strict=True))
    for entry in others.replace("\n", ",").split(","):
        if entry.strip():
            plain, spoken = entry.strip().split("=")
            words[plain] = tuple(spoken.split("/"))
    return words


class Written(NamedTuple):
    """One domain, written compactly: lists of words are separated by blanks."""

    name: str
    description: str
    shapes: str
    colours: str
    look: Look
    strength: float
    accent: float
    relations: str
    words: str
    forms: Sequence[Form]

    def domain(self) -> Domain:
        return Domain(
            name=self.name,
            description=self.description,
            shapes=tuple(s.replace("_", " ") for s in self.shapes.split()),
            colours=tuple(self.colours.split()),
            looks=(self.look,),
            strength=self.strength,
            voice=Voice(tuple(self.forms), _words(self.relations, self.words)),
            accent=self.accent,
        )


_MANNERS: Mapping[str, tuple[str, ...]] = {"": (), "dim ": ("dim",), "faded ": ("fade",), "grainy ": ("noise",)}

GENERAL = Domain(
    name="general",
    description="pictures of coloured shapes on papers of many kinds, described simply",
    shapes=GENERAL_SHAPES,
    colours=tuple(PAINTS),
    looks=tuple(
        Look(f"{manner}{pattern} {colour} paper".replace("plain ", ""), f"{pattern} {colour} paper", finishes)
        for manner, finishes in _MANNERS.items()
        for pattern in PATTERNS
        for colour in PAPERS
    ),
    strength=0.35,
    voice=Voice(
        forms=(
            Form("{} on {ground}"),
            Form("a picture of {} on {ground}"),
            Form(flip=True),
            Form("on {ground} there is {}", flip=True),
            Form("{ground}, {}", clause="{a}, {rel} {b}", phrase=BARE, join=", "),
            Form(phrase=TERSE, join=", ", again=TERSE),
            Form("{ground} with {}", phrase="a {colour} {shape}", flip=True),
            Form("{}, on {ground}", "{a} is {rel} {b}", phrase="the {size} {texture} {colour} {shape}"),
        ),
        words=_words(
            "to the left of|to the right of|over|under",
            "big=large, small=little, dotted=spotted",
        ),
    ),
    accent=0.3,
)
