"""What general samples ask about an image: each skill in a few wordings."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lpi_jax.data.questions import asked
from lpi_jax.data.questions.asked import Scene
from lpi_jax.data.questions.knowledge import NUMBERS
from lpi_jax.data.questions.picture import Thing, one, with_article
from lpi_jax.data.scenes.wording import INVERSE

Generator = np.random.Generator
Turn = tuple[str, str]
Skill = Callable[[Generator, Scene], Turn]
_SAID = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}


def _a(thing: Thing, full: bool = False) -> str:
    item = thing.item
    words = (item.size, "" if item.texture == "solid" else item.texture) if full else ()
    return with_article(" ".join(word for word in (*words, item.colour, "thing") if word))


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(", ".join(parts).rsplit(", ", 1))


def caption(rng: Generator, scene: Scene) -> Turn:
    """All things, with their relation where they have one."""
    question = one(rng, ("Describe the picture.", "What does the image show?", "Write a short caption.", "Describe."))
    full = rng.random() < 0.3
    if scene.relation:
        a, b, relation = asked.either(rng, scene)
        answer = f"{_a(a, full)} {_SAID[relation]} {_a(b, full)}"
    else:
        answer = _listed([_a(thing, full) for thing in scene.things])
    if rng.random() < 0.4:
        return f"{question} Say what it is on.", f"{answer} on {scene.picture.look.ground}"
    return question, answer


def crowd_caption(rng: Generator, scene: Scene) -> Turn:
    """How many there are of each colour."""
    question = one(rng, ("List what there is, with numbers.", "Which things are there, and how many of each?"))
    counted = Counter(scene.colours)
    return question, _listed([f"{NUMBERS[n]} {colour} thing{'s' * (n > 1)}" for colour, n in counted.items()])


def number(rng: Generator, scene: Scene) -> Turn:
    """How many there are of one colour or in all, as a digit or a word."""
    (colour,), count = asked.number(rng, scene)
    things = f"{colour} things"
    if rng.random() < 0.2:
        things, count = "things", NUMBERS[len(scene.things)]
    if rng.random() < 0.3:
        return f"Give the amount of {things} as a digit.", str(NUMBERS.index(count))
    frames = ("How many {} are there?", "How many {} can you see?", "Tell me how many {} the image has.")
    return one(rng, frames).format(things), count


def colour(rng: Generator, scene: Scene) -> Turn:
    """The colour of the only thing or of the one at an edge."""
    frames = (
        "What colour is the thing{}?",
        "Which colour does the thing{} have?",
        "Tell me the colour of the thing{}.",
    )
    frame = one(rng, frames)
    if len(scene.things) == 1:
        return frame.format(""), scene.colours[0]
    if not scene.outermost:
        return shape(rng, scene)
    (edge,), answer = asked.at_edge(rng, scene)
    return frame.format(f" {edge}"), answer


def shape(rng: Generator, scene: Scene) -> Turn:
    """The shape of a colour, or the colour of a shape."""
    (colour,), answer = asked.shape(rng, scene)
    if rng.random() < 0.5:
        return f"What colour is the {answer}?", colour
    return f"Which shape is {colour}?", answer


def texture(rng: Generator, scene: Scene) -> Turn:
    """Whether a thing is solid, striped or dotted."""
    (colour,), answer = asked.texture(rng, scene)
    frames = ("Is the {} thing solid, striped or dotted?", "What pattern has the {} thing?")
    return one(rng, frames).format(colour), answer


def ground(rng: Generator, scene: Scene) -> Turn:
    """What the things are on."""
    return one(rng, ("What is the background?", "What are the things on?")), asked.ground(rng, scene)[1]


def presence(rng: Generator, scene: Scene) -> Turn:
    """Whether there is a thing of a colour."""
    (colour,), answer = asked.presence(rng, scene)
    frames = ("Is there {}?", "Can you see {}?", "Does the image contain {}?")
    return one(rng, frames).format(with_article(f"{colour} thing")), answer


def size(rng: Generator, scene: Scene) -> Turn:
    """Which of two is larger or smaller; where all are as large, what size one is."""
    if not scene.pair:
        item = one(rng, scene.things).item
        return f"Is the {item.colour} thing small or big?", item.size
    named, large = asked.larger(rng, scene)
    (small,) = {*named} - {large}
    word, answer = one(rng, (("larger", large), ("bigger", large), ("smaller", small)))
    return "Is the {} or the {} thing {}?".format(*named, word), answer


def box(rng: Generator, scene: Scene) -> Turn:
    """Where a thing is."""
    (colour,), answer = asked.box(rng, scene)
    frames = (
        "Find the {} thing and give its box.",
        "What is the bounding box of the {} thing?",
        "Box of the {} thing?",
    )
    return one(rng, frames).format(colour), answer


def position(rng: Generator, scene: Scene) -> Turn:
    """Where one of two is from the other, as a word, as yes or no, or which of them is there."""
    a, b, relation = asked.either(rng, scene)
    subject, other = a.item.colour, b.item.colour
    kind = int(rng.integers(4))
    if kind == 0:
        told = relation if rng.random() < 0.5 else INVERSE[relation]
        return f"Is the {subject} thing {_SAID[told]} the {other} thing?", "yes" if told == relation else "no"
    if kind == 1:
        return f"What is {_SAID[relation]} the {other} thing?", _a(a)
    frames = (
        "Is the {} thing left, right, above or below of the {} one?",
        "What is the position of the {} thing beside the {} one?",
    )
    return one(rng, frames).format(subject, other), asked.SIDES[relation]


_ANYWHERE = (caption, colour, colour, colour, shape, texture, ground, presence, presence, size, size, box, box)
_BESIDE = (*_ANYWHERE, caption, position, position, position, position)
_CROWD = (number, number, number, crowd_caption, presence, ground)


def fitting(scene: Scene) -> tuple[Skill, ...]:
    """What can be asked about a scene, what is asked more often as often as that."""
    return _CROWD if scene.crowd else _BESIDE if scene.relation else _ANYWHERE
