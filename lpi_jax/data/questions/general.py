"""General instruction samples for pretraining: the skills that the tasks need, in other looks and other words.

Images have the looks of general scenes and of the scenes' development domains, and show nothing that a task's
validation may show. A sample is a pure function of (seed, index).
"""

from collections.abc import Sequence

import numpy as np

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.questions.asked import Scene
from lpi_jax.data.questions.drawn import CONTENT, Images, Origin, annotation
from lpi_jax.data.questions.general_facts import FACTS
from lpi_jax.data.questions.general_forms import finished
from lpi_jax.data.questions.general_skills import fitting
from lpi_jax.data.questions.picture import STEP, Picture, beside, distinct, one, scattered
from lpi_jax.data.scenes.domain import GENERAL, Domain
from lpi_jax.data.scenes.domains import DEVELOPMENT_DOMAINS, TABLE
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES
from lpi_jax.data.scenes.wording import Item
from lpi_jax.data.stream import Split

Generator = np.random.Generator
CROWD_SHARE = 0.3  # of the images, which hold several things of a colour
_TEXTURES = ("solid", "solid", "striped", "dotted")


def general(seed: int, count: int, image_size: int = 64) -> Split[Instructed]:
    """`count` samples with one or two rounds about an image, or one round without an image.

    Args:
      seed: chooses the samples; at least 0. image_size: side of the images, pixels.
    """
    origin = Origin("general", "train", seed)
    made = [_sample(origin, index, image_size) for index in range(count)]
    return Split(tuple(record for record, _ in made), Images(origin, [picture for _, picture in made], image_size).load)


def _sample(origin: Origin, index: int, size: int) -> tuple[Instructed, Picture | None]:
    rng = origin.rng(CONTENT, index)
    if rng.random() < 0.12:
        question, answers = finished(rng, one(rng, FACTS)(rng), {})
        return Instructed(origin.key(index), ((question, answers[0]),), answers, has_image=False), None
    crowd = rng.random() < CROWD_SHARE
    while True:
        picture, relation = _crowd(rng) if crowd else _few(rng)
        if not picture.held_out:
            break
    scene = Scene(picture, lambda: origin.boxes(picture, index), relation)
    skills = fitting(scene)
    rounds = 2 if rng.random() < 0.2 else 1
    said = [finished(rng, skills[k](rng, scene), {}) for k in rng.permutation(len(skills))[:rounds].tolist()]
    turns = tuple({question: answers[0] for question, answers in said}.items())
    return Instructed(origin.key(index), turns, said[-1][1], annotation=annotation(picture, size)), picture


# ---- pictures --------------------------------------------------------------------------------------------------------


def _domain(rng: Generator) -> Domain:
    return TABLE[one(rng, DEVELOPMENT_DOMAINS)] if rng.random() < 0.25 else GENERAL


def _items(rng: Generator, shapes: Sequence[str], colours: Sequence[str]) -> list[Item]:
    return [Item(s, c, one(rng, _TEXTURES), one(rng, ("small", "big"))) for s, c in zip(shapes, colours, strict=True)]


def _few(rng: Generator) -> tuple[Picture, str]:
    """Two things beside each other, or one to three anywhere; no two alike in shape or colour."""
    domain = _domain(rng)
    relation = one(rng, tuple(STEP)) if rng.random() < 0.65 else ""
    count = 2 if relation else 1 + int(rng.integers(3))
    items = _items(rng, distinct(rng, GENERAL_SHAPES, count), distinct(rng, GENERAL.colours, count))
    things = beside(items, relation, rng) if relation else scattered(items, rng)
    return Picture(things, one(rng, domain.looks), domain.strength), relation


def _crowd(rng: Generator) -> tuple[Picture, str]:
    """One to five of the same colour, among up to two of others, six in all."""
    domain = _domain(rng)
    colour, *others = distinct(rng, GENERAL.colours, 3)
    colours = ([colour] * (1 + int(rng.integers(5))) + others[: int(rng.integers(3))])[:6]
    shapes = [one(rng, GENERAL_SHAPES) for _ in colours]
    things = scattered(_items(rng, shapes, colours), rng, [8] * len(colours))
    return Picture(things, one(rng, domain.looks), domain.strength), ""
