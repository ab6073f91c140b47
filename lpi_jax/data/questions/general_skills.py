"""What general samples ask about an image: each skill in many wordings, some with a noun that nobody knows."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lpi_jax.data.questions import asked
from lpi_jax.data.questions.asked import Scene
from lpi_jax.data.questions.general_forms import Said
from lpi_jax.data.questions.knowledge import NUMBERS
from lpi_jax.data.questions.picture import made_up, one, with_article, written
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.wording import INVERSE

Generator = np.random.Generator
Skill = Callable[[Generator, Scene], Said]
UNKNOWN_SHARE = 0.2  # of the nouns, which are made up
_NOUNS = ("thing", "thing", "object", "item", "figure", "shape", "piece")
_COLOUR = ("colour", "colour", "colour", "shade", "hue", "tint")
_SAID = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
_GROUNDS = tuple(sorted({look.ground for look in GENERAL.looks}))


def _noun(rng: Generator, nouns: Sequence[str] = _NOUNS) -> str:
    return made_up(rng) if rng.random() < UNKNOWN_SHARE else one(rng, nouns)


def _a(colour: str) -> str:
    return with_article(f"{colour} thing")


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(", ".join(parts).rsplit(", ", 1))


def caption(rng: Generator, scene: Scene) -> Said:
    """All things, from the left to the right if they are not beside each other."""
    frames = (
        "Describe the picture.", "What does the image show?", "Write a short caption.", "Describe.", "What is shown?",
        "What do you see?", "Say what is there.", "Tell me about this image.", "What happens in this picture?",
        "A line about this, please.", "Put it into words.",
    )  # fmt: skip
    question = one(rng, frames)
    if scene.relation:
        a, b, relation = asked.either(rng, scene)
        answers = [
            f"{_a(x.item.colour)} {_SAID[word]} {_a(y.item.colour)}"
            for x, word, y in ((a, relation, b), (b, INVERSE[relation], a))
        ]
    else:
        in_order = sorted(scene.things, key=lambda thing: (thing.x, thing.y))
        answers = [_listed([_a(thing.item.colour) for thing in in_order])]
    if rng.random() < 0.25:
        question, answers = f"{question} Say what it is on.", [f"{a} on {scene.picture.look.ground}" for a in answers]
    return Said(question, tuple(answers), "caption")


def crowd_caption(rng: Generator, scene: Scene) -> Said:
    """How many there are of each colour, the most first."""
    frames = ("List what there is, with numbers.", "Which things are there, and how many of each?", "Count by colour.")
    counted = sorted(Counter(scene.colours).items(), key=lambda pair: (-pair[1], pair[0]))
    told = _listed([f"{NUMBERS[n]} {colour} thing{'s' * (n > 1)}" for colour, n in counted])
    return Said(one(rng, frames), (told,))


def number(rng: Generator, scene: Scene) -> Said:
    """How many there are of one colour, or in all."""
    (colour,), count = asked.number(rng, scene)
    of, noun = f"{colour} ", _noun(rng)
    if rng.random() < 0.15:
        of, count = "", NUMBERS[len(scene.things)]
    frames = (
        "How many {of}{n}s are there?", "How many {of}{n}s can you see?", "Tell me how many {of}{n}s the image has.",
        "Count the {of}{n}s.", "What is the number of {of}{n}s?", "The {of}{n}s: how many?", "{of}{n}s, how many?",
        "Give the amount of {of}{n}s.", "Please count all {of}{n}s.", "How many {of}{n}s does it show?",
    )  # fmt: skip
    return Said(_capital(one(rng, frames).format(of=of, n=noun)), (count,), "number")


def colour(rng: Generator, scene: Scene) -> Said:
    """The colour of the only thing or of the one at an edge."""
    edge, answer = "", scene.colours[0]
    if len(scene.things) > 1:
        if not scene.outermost:
            return presence(rng, scene)
        (edge,), answer = asked.at_edge(rng, scene)
        edge = f" {edge}"
    frames = (
        "What {h} is the {n}{e}?", "Which {h} does the {n}{e} have?", "Tell me the {h} of the {n}{e}.",
        "What is the {h} of the {n}{e}?", "The {n}{e} is of which {h}?", "The {n}{e}: what {h}?",
        "The {h} of the {n}{e}?", "Of what {h} is the {n}{e}?", "Name the {h} of the {n}{e}.",
        "Look at the {n}{e}. Which {h} is it?", "The {n}{e} has which {h}?", "The {n}{e}: name its {h}.",
    )  # fmt: skip
    if edge and rng.random() < 0.25:
        frames = ("Which {h} is{e}?", "What{e}? Name its {h}.", "What {h} do you see{e}?", "{h}{e}?")
    said = one(rng, frames).format(h=_noun(rng, _COLOUR), n=_noun(rng), e=edge)
    return Said(_capital(said), (answer,), "colour")


def texture(rng: Generator, scene: Scene) -> Said:
    """Whether a thing is solid, striped or dotted."""
    (colour,), answer = asked.texture(rng, scene)
    frames = ("Is the {} {} solid, striped or dotted?", "What pattern has the {} {}?", "The pattern of the {} {}?")
    return Said(one(rng, frames).format(colour, _noun(rng)), (answer,))


def ground(rng: Generator, scene: Scene) -> Said:
    """What the things are on, freely or as one of a few choices."""
    answer = asked.ground(rng, scene)[1]
    frames = (
        "What is the background?", "What are the things on?", "On what is this?", "Name the background.",
        "What kind of background is it?", "On what kind of paper is this?", "What lies behind the things?",
    )  # fmt: skip
    question = one(rng, frames)
    if rng.random() < 0.5:
        wrong = [name for name in (_GROUNDS[k] for k in rng.permutation(len(_GROUNDS))[:4]) if name != answer]
        choices = [answer, *wrong][: 2 + int(rng.integers(3))]
        named = [choices[k] for k in rng.permutation(len(choices))]
        start, end = one(rng, (("Choose from", "."), ("One of:", "."), ("Options:", "."), ("Is it", "?")))
        question = f"{question}\n{start} {', '.join(named)}{end}"
    return Said(question, (answer,))


def presence(rng: Generator, scene: Scene) -> Said:
    """Whether there is a thing of a colour, or which of two colours is there."""
    (colour,), answer = asked.presence(rng, scene)
    if rng.random() < 0.25:
        there = one(rng, scene.colours)
        missing = [other for other in GENERAL.colours if other not in scene.colours]
        a, b = (there, one(rng, missing))[:: 1 if rng.integers(2) else -1]
        frames = ("Which is there, {} or {}?", "Is it {} or {} that you see?", "{} or {}: which is in the picture?")
        return Said(_capital(one(rng, frames).format(a, b)), (there,), "colour")
    noun = _noun(rng)
    frames = (
        "Is there {a}?", "Can you see {a}?", "Does the image contain {a}?", "Is there anything {c}?", "Is any {n} {c}?",
        "Is anything {c}?", "Anything {c} here?", "Does it show {a}?", "Are there {c} {n}s?", "Any {c} {n}s here?",
        "Is one of the {n}s {c}?", "Is there {c} in the picture?",
    )  # fmt: skip
    said = one(rng, frames).format(a=with_article(f"{colour} {noun}"), c=colour, n=noun)
    return Said(_capital(said), (answer,), "yes")


def size(rng: Generator, scene: Scene) -> Said:
    """Which of two is larger or smaller; where all are as large, what size one is."""
    noun = _noun(rng)
    if not scene.pair:
        item = one(rng, scene.things).item
        return Said(f"Is the {item.colour} {noun} small or big?", (item.size,))
    named, large = asked.larger(rng, scene)
    (small,) = {*named} - {large}
    word, answer = one(rng, (("larger", large), ("bigger", large), ("greater", large), ("smaller", small)))
    frames = (
        "Is the {a} or the {b} {n} {w}?", "Which is {w}, the {a} or the {b} {n}?", "Which {n} is {w}: {a} or {b}?",
        "Compare the {a} and the {b} {n}: which is {w}?", "Name the {w} of the {a} and the {b} {n}.",
        "{a} or {b}: which is the {w} {n}?", "Of {a} and {b}, which {n} is {w}?", "{w}: {a} or {b}?",
        "The {w} {n}, {a} or {b}?", "Is {a} {w}, or is {b}?",
    )  # fmt: skip
    said = one(rng, frames).format(a=named[0], b=named[1], n=noun, w=word)
    return Said(_capital(said), (answer,), "colour")


def box(rng: Generator, scene: Scene) -> Said:
    """Where a thing is."""
    (colour,), answer = asked.box(rng, scene)
    frames = (
        "Find the {} {} and give its box.", "What is the bounding box of the {} {}?", "Box of the {} {}?",
        "Where is the {} {}? Give its box.", "The coordinates of the {} {}, please.", "Draw a box around the {} {}.",
        "Detect the {} {}.", "Locate the {} {}.", "Where is the {} {}?", "Find: {} {}.", "The place of the {} {}?",
    )  # fmt: skip
    return Said(one(rng, frames).format(colour, _noun(rng)), (answer,), "box")


def region(rng: Generator, scene: Scene) -> Said:
    """The colour of the thing in a box."""
    k = int(rng.integers(len(scene.things)))
    frames = ("What {h} is the {n} in {b}?", "Look at {b}. Which {h} is there?", "{b}: what {h}?")
    said = one(rng, frames).format(h=_noun(rng, _COLOUR), n=_noun(rng), b=written(scene.boxes()[k]))
    return Said(said, (scene.colours[k],), "colour")


def relation(rng: Generator, scene: Scene) -> Said:
    """Whether one of two is where it is said to be from the other, or which of them is there."""
    a, b, relation = asked.either(rng, scene)
    subject, other, noun = a.item.colour, b.item.colour, _noun(rng)
    if rng.random() < 0.5:
        frames = ("What is {} the {} {}?", "Which colour is {} the {} {}?", "Name what is {} the {} {}.")
        return Said(one(rng, frames).format(_SAID[relation], other, noun), (subject,), "colour")
    told = relation if rng.random() < 0.5 else INVERSE[relation]
    frames = ("Is the {} {n} {} the {} {n}?", "Is {} {} {}?", "Do you see the {} {n} {} the {} one?")
    said = one(rng, frames).format(subject, _SAID[told], other, n=noun)
    return Said(said, ("yes" if told == relation else "no",), "yes")


def side(rng: Generator, scene: Scene) -> Said:
    """Where one of two is, seen from the other."""
    (a, b), answer = asked.side(rng, scene)
    frames = (
        "Is the {a} {n} left, right, above or below of the {b} one?", "Where is the {a} {n}, seen from the {b} one?",
        "What is the position of the {a} {n} beside the {b} one?", "From the {b} {n} to the {a} one: which way?",
        "In which direction from the {b} {n} is the {a} one?", "Which way from the {b} to the {a} {n}?",
        "You are at the {b} {n}. Which way to the {a} one?", "Relative to the {b} {n}, where is the {a} one?",
        "Where does the {a} {n} stand, seen from the {b} {n}?", "Go from the {b} {n} to the {a} {n}. Which way?",
        "Which direction leads from the {b} {n} to the {a} {n}?", "Where from {b} is {a}?", "Where is {a} from {b}?",
        "Starting at the {b} {n}, what is the way to the {a} {n}?", "The {a} {n} lies where, seen from the {b}?",
    )  # fmt: skip
    return Said(one(rng, frames).format(a=a, b=b, n=_noun(rng)), (answer,), "side")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_ANYWHERE = (caption, colour, colour, colour, texture, ground, ground, presence, presence, presence, size, size, size,
             box, box, region)  # fmt: skip
_BESIDE = (*_ANYWHERE, caption, relation, relation, side, side, side, side)
_CROWD = (number, number, number, number, number, crowd_caption, presence, presence, ground)


def fitting(scene: Scene) -> tuple[Skill, ...]:
    """What can be asked about a scene, what is asked more often as often as that."""
    return _CROWD if scene.crowd else _BESIDE if scene.relation else _ANYWHERE
