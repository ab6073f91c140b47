"""What general samples ask without an image."""

from collections.abc import Callable

import numpy as np

from lpi_jax.data.questions.knowledge import BY_SIZE, COLOUR_OF, COMPASS, MIXED, NUMBERS, TURNS, sums, turned
from lpi_jax.data.questions.picture import distinct, one, with_article

Generator = np.random.Generator
Turn = tuple[str, str]
_MAP = dict(zip(COMPASS, ("up", "right", "down", "left"), strict=True))
_AT_WORK = {"pupils": "school", "clerks": "office", "weavers": "mill", "gardeners": "garden", "curators": "museum"}


def added(rng: Generator, most: int) -> tuple[tuple[str, str, str], int]:
    """A sum or a difference in words, and its result, 1 to `most`."""
    number = 1 + int(rng.integers(most))
    return one(rng, sums(number)), number


def coloured(rng: Generator) -> tuple[str, str]:
    """A common thing with its article, and its usual colour."""
    answer = one(rng, tuple(COLOUR_OF))
    return with_article(one(rng, COLOUR_OF[answer])), answer


def reckoning(rng: Generator) -> Turn:
    """A sum or a difference in words, with a digit or a word for an answer."""
    (a, sign, b), number = added(rng, 8)
    if rng.random() < 0.5:
        return f"Write as a digit: {a} {sign} {b}", str(number)
    return one(rng, ("{} {} {} is?", "Calculate {} {} {}.")).format(a, sign, b), NUMBERS[number]


def colour(rng: Generator) -> Turn:
    """What two colours mix to, or what colour a thing usually has."""
    if rng.random() < 0.3:
        answer = one(rng, tuple(MIXED))
        a, b = distinct(rng, MIXED[answer], 2)
        return f"What colour do you get if you mix {a} with {b}?", answer
    thing, answer = coloured(rng)
    return one(rng, ("What is the usual colour of {}?", "{} is usually what colour?")).format(thing), answer


def comparison(rng: Generator) -> Turn:
    """Which of two things is usually larger or smaller."""
    a, b = distinct(rng, BY_SIZE, 2)
    word, pick = one(rng, (("larger", max), ("smaller", min)))
    return f"Which one is {word}: {with_article(a)} or {with_article(b)}?", pick((a, b), key=BY_SIZE.index)


def direction(rng: Generator) -> Turn:
    """A point of the compass on a map, or the way after a turn."""
    way = one(rng, COMPASS)
    kind = int(rng.integers(3))
    if kind == 0:
        return f"Where is {way} on a map?", _MAP[way]
    if kind == 1:
        return f"On a map, which direction is {_MAP[way]}?", way
    turn = one(rng, tuple(TURNS))
    return f"You walk {way}, then you turn {turn}. Where do you walk?", turned(way, turn)


def place(rng: Generator) -> Turn:
    """Where people of a trade are at work."""
    people = one(rng, tuple(_AT_WORK))
    return f"Where are {people}?", _AT_WORK[people]


FACTS: tuple[Callable[[Generator], Turn], ...] = (reckoning, reckoning, colour, comparison, direction, place)
