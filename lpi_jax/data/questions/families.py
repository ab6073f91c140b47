"""The eight kinds of questions: what each shows, what it asks for and what is right.

Shapes and colours are those of the domain, as far as general samples show them too: a task is new by its look, its
wording and the form of its answers.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions.picture import (
    RADIUS,
    STEP,
    Thing,
    beside,
    distinct,
    plural,
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


def _item(rng: Generator, shape: str, colour: str) -> Item:
    return Item(shape, colour, "solid", ("small", "big")[int(rng.integers(2))])


def _items(rng: Generator, domain: Domain, count: int, shape: str = "", colour: str = "") -> list[Item]:
    """Things of different shapes and colours, the first with this shape and colour if there is one."""
    shapes = distinct(rng, known(domain), count, *([shape] if shape else []))
    colours = distinct(rng, domain.colours, count, *([colour] if colour else []))
    return [_item(rng, *pair) for pair in zip(shapes, colours, strict=True)]


def count(rng: Generator, domain: Domain, figure: str) -> Asked:
    """As many of one shape as the figure says, among up to two others."""
    shape, *others = distinct(rng, known(domain), 3)
    shapes = [shape] * int(figure) + others[: int(rng.integers(3))]
    items = [Item(one, domain.colours[int(rng.integers(len(domain.colours)))], "solid", "small") for one in shapes]
    return Asked(scattered(items, rng), {"shapes": plural(shape)}, (figure,))


def colour(rng: Generator, domain: Domain, answer: str) -> Asked:
    """Two things, one of which has the colour."""
    items = _items(rng, domain, 2, colour=answer)
    return Asked(scattered(items, rng), {"shape": items[0].shape}, (answer,))


def relation(rng: Generator, domain: Domain, direction: str) -> Asked:
    """Two things beside each other, seen as on a map."""
    a, b = _items(rng, domain, 2)
    side = {"north": "above", "east": "right of", "south": "below", "west": "left of"}[direction]
    return Asked(beside((a, b), side, rng), {"a": a.shape, "b": b.shape}, (direction,))


def presence(rng: Generator, domain: Domain, answer: str) -> Asked:
    """Two things; where the answer is no, one differs from what is asked for in its shape or in its colour."""
    wanted, other = _items(rng, domain, 2)
    words = {"thing": with_article(f"{wanted.colour} {wanted.shape}")}
    if answer == "no" and rng.random() < 0.5:
        wanted = _item(rng, distinct(rng, known(domain), 3, wanted.shape, other.shape)[2], wanted.colour)
    elif answer == "no":
        wanted = _item(rng, wanted.shape, distinct(rng, domain.colours, 3, wanted.colour, other.colour)[2])
    return Asked(scattered((wanted, other), rng), words, (answer,))


def larger(rng: Generator, domain: Domain, shape: str) -> Asked:
    """A big and a small thing, named in either order."""
    big, small = _items(rng, domain, 2, shape)
    big, small = Item(big.shape, big.colour, "solid", "big"), Item(small.shape, small.colour, "solid", "small")
    named = [big.shape, small.shape][:: 1 if rng.integers(2) else -1]
    return Asked(scattered((big, small), rng, (13, 7)), {"a": named[0], "b": named[1]}, (big.shape,))


def grounding(rng: Generator, domain: Domain, shape: str) -> Asked:
    """Two things of different shapes and sizes; the box of the first is wanted."""
    items = _items(rng, domain, 2, shape)
    radii = [RADIUS[item.size] + 2 * int(rng.integers(2)) for item in items]
    return Asked(scattered(items, rng, radii), {"shape": shape}, ())


def place(rng: Generator, domain: Domain, name: str) -> Asked:
    """Two or three things; only the look tells where they are."""
    return Asked(scattered(_items(rng, domain, 2 + int(rng.integers(2))), rng), {}, (name,))


def caption(rng: Generator, domain: Domain, shape: str) -> Asked:
    """Two things beside each other; either may be named first."""
    a, b = _items(rng, domain, 2, shape)
    relation = tuple(STEP)[int(rng.integers(len(STEP)))]
    told = {"left of": "left of", "right of": "right of", "above": "zooming over", "below": "crashing under"}
    first, second = f"{a.colour} {a.shape}", f"{b.colour} {b.shape}"
    straight = f"{with_article(first)} {told[relation]} {with_article(second)}!"
    inverse = f"{with_article(second)} {told[INVERSE[relation]]} {with_article(first)}!"
    return Asked(beside((a, b), relation, rng), {}, (straight, inverse))
