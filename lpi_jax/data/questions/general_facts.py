"""What general samples ask without an image."""

from collections.abc import Callable

import numpy as np

from lpi_jax.data.questions.general_forms import Said
from lpi_jax.data.questions.knowledge import BY_SIZE, COLOUR_OF, MAP, MIXED, NUMBERS, TURNS, sums, turned
from lpi_jax.data.questions.picture import distinct, one, with_article

Generator = np.random.Generator
_AT_WORK = {"pupils": "school", "clerks": "office", "weavers": "mill", "gardeners": "garden", "curators": "museum"}


def added(rng: Generator, most: int) -> tuple[tuple[str, str, str], int]:
    """A sum or a difference in words, and its result, 1 to `most`."""
    number = 1 + int(rng.integers(most))
    return one(rng, sums(number)), number


def coloured(rng: Generator) -> tuple[str, str]:
    """A common thing with its article, and its usual colour."""
    answer = one(rng, tuple(COLOUR_OF))
    return with_article(one(rng, COLOUR_OF[answer])), answer


def reckoning(rng: Generator) -> Said:
    """A sum or a difference in words."""
    words, number = added(rng, 8)
    frames = ("{} {} {} is?", "Calculate {} {} {}.", "How much is {} {} {}?", "{} {} {} makes?", "Work out {} {} {}.")
    return Said(one(rng, frames).format(*words), (NUMBERS[number],), "number")


def colour(rng: Generator) -> Said:
    """What two colours mix to, or what colour a thing usually has."""
    if rng.random() < 0.3:
        answer = one(rng, tuple(MIXED))
        a, b = distinct(rng, MIXED[answer], 2)
        frames = ("What colour do you get if you mix {} with {}?", "Mix {} and {}: which colour?", "{} and {} make?")
        return Said(one(rng, frames).format(a, b), (answer,), "colour")
    thing, answer = coloured(rng)
    frames = ("What is the usual colour of {}?", "{} is usually what colour?", "Which colour has {}?", "{}: colour?")
    return Said(one(rng, frames).format(thing), (answer,), "colour")


def comparison(rng: Generator) -> Said:
    """Which of two things is usually larger or smaller."""
    a, b = distinct(rng, BY_SIZE, 2)
    word, pick = one(rng, (("larger", max), ("bigger", max), ("smaller", min)))
    frames = ("Which one is {w}: {a} or {b}?", "Is {a} or {b} {w}?", "{a}, {b}: the {w} one?", "The {w}, {a} or {b}?")
    asked = one(rng, frames).format(w=word, a=with_article(a), b=with_article(b))
    return Said(asked, (pick((a, b), key=BY_SIZE.index),))


def direction(rng: Generator) -> Said:
    """A point of the compass on a map, or the way after a turn."""
    on_map = one(rng, tuple(MAP))
    way, kind = MAP[on_map], int(rng.integers(4))
    if kind == 0:
        return Said(f"Where is {way} on a map?", (on_map,))
    if kind == 1:
        return Said(f"On a map, which direction is {on_map}?", (way,))
    turn = one(rng, tuple(TURNS))
    frames = ("You walk {}, then you turn {}. Where do you walk?", "From {} turn {}. The new direction?",
              "Going {}, then turning {}: which direction?")  # fmt: skip
    return Said(one(rng, frames).format(way, turn), (turned(way, turn),))


def place(rng: Generator) -> Said:
    """Where people of a trade are at work."""
    people = one(rng, tuple(_AT_WORK))
    return Said(one(rng, ("Where are {}?", "Where do you meet {}?")).format(people), (_AT_WORK[people],))


FACTS: tuple[Callable[[Generator], Said], ...] = (reckoning, reckoning, colour, comparison, direction, place)
