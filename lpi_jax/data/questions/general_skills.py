"""What general samples ask about an image: each skill in a few wordings."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions.knowledge import NUMBERS
from lpi_jax.data.questions.picture import Box, Picture, Thing, distinct, one, plural, with_article, written
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES
from lpi_jax.data.scenes.wording import INVERSE

Generator = np.random.Generator
Turn = tuple[str, str]
_SAID = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
_SIDE = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


class Scene(NamedTuple):
    """What can be asked about an image.

    boxes: gives the things' boxes. relation: of the first thing to the second; "": they are not beside each other.
    """

    picture: Picture
    boxes: Callable[[], Sequence[Box]]
    relation: str


def _said(thing: Thing, full: bool = False) -> str:
    item = thing.item
    words = (item.size, "" if item.texture == "solid" else item.texture) if full else ()
    return " ".join(word for word in (*words, item.colour, item.shape) if word)


def _a(thing: Thing, full: bool = False) -> str:
    return with_article(_said(thing, full))


def caption(rng: Generator, scene: Scene) -> Turn:
    """All things, with their relation where they have one."""
    question = one(rng, ("Describe the picture.", "What does the image show?", "Write a short caption.", "Describe."))
    full = rng.random() < 0.3
    if scene.relation:
        a, b = scene.picture.things
        relation = scene.relation
        if rng.random() < 0.5:
            a, b, relation = b, a, INVERSE[relation]
        answer = f"{_a(a, full)} {_SAID[relation]} {_a(b, full)}"
    else:
        answer = _listed([_a(thing, full) for thing in scene.picture.things])
    if rng.random() < 0.4:
        return f"{question} Say what it is on.", f"{answer} on {scene.picture.look.ground}"
    return question, answer


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(", ".join(parts).rsplit(", ", 1))


def crowd_caption(rng: Generator, scene: Scene) -> Turn:
    """How many there are of each shape."""
    counted: dict[str, int] = {}
    for thing in scene.picture.things:
        counted[thing.item.shape] = counted.get(thing.item.shape, 0) + 1
    question = one(rng, ("List what there is, with numbers.", "Which things are there, and how many of each?"))
    return question, _listed([f"{NUMBERS[n]} {shape if n == 1 else plural(shape)}" for shape, n in counted.items()])


def number(rng: Generator, scene: Scene) -> Turn:
    """How many there are of one shape, as a digit or a word."""
    shape = scene.picture.things[0].item.shape
    count = sum(thing.item.shape == shape for thing in scene.picture.things)
    if rng.random() < 0.3:
        return f"Give the amount of {plural(shape)} as a digit.", str(count)
    frames = ("How many {} are there?", "How many {} can you see?", "Tell me how many {} the image has.")
    return one(rng, frames).format(plural(shape)), NUMBERS[count]


def colour(rng: Generator, scene: Scene) -> Turn:
    """The colour of a shape, or the shape of a colour."""
    item = one(rng, scene.picture.things).item
    if rng.random() < 0.25:
        return f"Which shape is {item.colour}?", item.shape
    frames = ("What colour is the {}?", "Which colour does the {} have?", "Tell me the colour of the {}.")
    return one(rng, frames).format(item.shape), item.colour


def texture(rng: Generator, scene: Scene) -> Turn:
    """Whether a shape is solid, striped or dotted."""
    item = one(rng, scene.picture.things).item
    return one(rng, ("Is the {} solid, striped or dotted?", "What pattern has the {}?")).format(
        item.shape
    ), item.texture


def ground(rng: Generator, scene: Scene) -> Turn:
    """What the things are on."""
    return one(rng, ("What is the background?", "What are the things on?")), scene.picture.look.ground


def presence(rng: Generator, scene: Scene) -> Turn:
    """One time in two no, because of the shape or of the colour."""
    shown = [thing.item for thing in scene.picture.things]
    item, answer = one(rng, shown), "yes"
    shape, colour = item.shape, item.colour
    if rng.random() < 0.5:
        answer = "no"
        if rng.random() < 0.5:
            shape = distinct(rng, GENERAL_SHAPES, len(shown) + 1, *(i.shape for i in shown))[-1]
        else:
            colour = distinct(rng, GENERAL.colours, len(shown) + 1, *(i.colour for i in shown))[-1]
    frames = ("Is there {}?", "Can you see {}?", "Does the image contain {}?")
    return one(rng, frames).format(with_article(f"{colour} {shape}")), answer


def size(rng: Generator, scene: Scene) -> Turn:
    """Which of the first two is larger or smaller; of one thing, or of two as large, what size it is."""
    first, second = scene.picture.things[0], scene.picture.things[-1]
    if first.radius == second.radius:
        return f"Is the {first.item.shape} small or big?", first.item.size
    large, little = (first, second) if first.radius > second.radius else (second, first)
    named = [first.item.shape, second.item.shape][:: 1 if rng.integers(2) else -1]
    word, answer = one(rng, (("larger", large), ("bigger", large), ("smaller", little)))
    return "Is the {} or the {} {}?".format(*named, word), answer.item.shape


def box(rng: Generator, scene: Scene) -> Turn:
    """Where a thing is, as `written` writes its box."""
    k = int(rng.integers(len(scene.picture.things)))
    name = _said(scene.picture.things[k]) if rng.random() < 0.5 else scene.picture.things[k].item.shape
    frames = ("Find the {} and give its box.", "What is the bounding box of the {}?", "Box of the {}?")
    return one(rng, frames).format(name), written(scene.boxes()[k])


def position(rng: Generator, scene: Scene) -> Turn:
    """Where one of two is from the other, as a word, as yes or no, or which of them is there."""
    a, b = scene.picture.things
    relation = scene.relation
    if rng.random() < 0.5:
        a, b, relation = b, a, INVERSE[relation]
    subject, other = a.item.shape, b.item.shape
    kind = int(rng.integers(4))
    if kind == 0:
        told = relation if rng.random() < 0.5 else INVERSE[relation]
        return f"Is the {subject} {_SAID[told]} the {other}?", "yes" if told == relation else "no"
    if kind == 1:
        return f"What is {_SAID[relation]} the {other}?", _a(a)
    frames = ("Is the {} left, right, above or below of the {}?", "What is the position of the {} beside the {}?")
    return one(rng, frames).format(subject, other), _SIDE[relation]


ANYWHERE = (caption, colour, colour, texture, ground, presence, presence, size, box, box)
BESIDE = (*ANYWHERE, caption, position, position, position, position)
CROWD = (number, number, crowd_caption)
