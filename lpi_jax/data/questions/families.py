"""The eight kinds of questions: what each shows, what it asks for and what is right.

Shapes and colours are those of the domain, as far as general samples show them too: a task is new by its look, its
wording and the form of its answers. Things are called by colours and places, for the reason that `asked` tells.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions.asked import EDGES
from lpi_jax.data.questions.picture import (
    RADIUS,
    STEP,
    Thing,
    beside,
    distinct,
    one,
    scattered,
    with_article,
)
from lpi_jax.data.scenes.domain import Domain
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES
from lpi_jax.data.scenes.wording import INVERSE, Item

Generator = np.random.Generator


class Asked(NamedTuple):
    """words: what fills the template. answers: none where the answer is the box of things[0]."""

    things: tuple[Thing, ...]
    words: Mapping[str, str]
    answers: tuple[str, ...]


def known(domain: Domain) -> tuple[str, ...]:
    """A domain's shapes that general samples show."""
    return tuple(shape for shape in domain.shapes if shape in GENERAL_SHAPES)


def _items(rng: Generator, domain: Domain, count: int, colour: str = "") -> list[Item]:
    """Things of different shapes and colours, the first with this colour if there is one."""
    shapes = distinct(rng, known(domain), count)
    colours = distinct(rng, domain.colours, count, *([colour] if colour else []))
    sizes = [("small", "big")[int(rng.integers(2))] for _ in colours]
    return [Item(s, c, "solid", size) for s, c, size in zip(shapes, colours, sizes, strict=True)]


def count(rng: Generator, domain: Domain, figure: str) -> Asked:
    """As many of one colour as the figure says, among up to two of others."""
    colour, *others = distinct(rng, domain.colours, 3)
    colours = [colour] * int(figure) + others[: int(rng.integers(3))]
    items = [Item(one(rng, known(domain)), shown, "solid", "small") for shown in colours]
    return Asked(scattered(items, rng), {"colour": colour}, (figure,))


def colour(rng: Generator, domain: Domain, answer: str) -> Asked:
    """Two things beside each other, one of which has the colour; which one, its place tells."""
    items = _items(rng, domain, 2, answer)
    relation, edge = one(rng, tuple(zip(STEP, EDGES, strict=True)))
    return Asked(beside(items, relation, rng), {"edge": edge}, (answer,))


def relation(rng: Generator, domain: Domain, direction: str) -> Asked:
    """Two things beside each other, seen as on a map."""
    a, b = _items(rng, domain, 2)
    side = {"north": "above", "east": "right of", "south": "below", "west": "left of"}[direction]
    return Asked(beside((a, b), side, rng), {"a": a.colour, "b": b.colour}, (direction,))


def presence(rng: Generator, domain: Domain, answer: str) -> Asked:
    """Two things; where the answer is no, neither has the colour that is asked for."""
    items = _items(rng, domain, 2)
    colours = distinct(rng, domain.colours, 3, *(item.colour for item in items))
    return Asked(scattered(items, rng), {"colour": colours[0 if answer == "yes" else 2]}, (answer,))


def larger(rng: Generator, domain: Domain, colour: str) -> Asked:
    """A big and a small thing, named in either order."""
    big, small = _items(rng, domain, 2, colour)
    big, small = replace(big, size="big"), replace(small, size="small")
    named = [big.colour, small.colour][:: 1 if rng.integers(2) else -1]
    return Asked(scattered((big, small), rng, (13, 7)), {"a": named[0], "b": named[1]}, (colour,))


def grounding(rng: Generator, domain: Domain, colour: str) -> Asked:
    """Two things of different colours and sizes; the box of the first is wanted."""
    items = _items(rng, domain, 2, colour)
    radii = [RADIUS[item.size] + 2 * int(rng.integers(2)) for item in items]
    return Asked(scattered(items, rng, radii), {"colour": colour}, ())


def place(rng: Generator, domain: Domain, name: str) -> Asked:
    """Two or three things; only the look tells where they are."""
    return Asked(scattered(_items(rng, domain, 2 + int(rng.integers(2))), rng), {}, (name,))


def caption(rng: Generator, domain: Domain, colour: str) -> Asked:
    """Two things beside each other; either may be named first."""
    a, b = _items(rng, domain, 2, colour)
    relation = one(rng, tuple(STEP))
    told = {"left of": "left of", "right of": "right of", "above": "over", "below": "under"}
    first, second = (with_article(f"{item.colour} one") for item in (a, b))
    straight = f"{first} {told[relation]} {second}!"
    inverse = f"{second} {told[INVERSE[relation]]} {first}!"
    return Asked(beside((a, b), relation, rng), {}, (straight, inverse))
