"""What can be asked about a picture, and what is right; whoever asks finds the words.

A thing is called by its colour or by its place. Both stand in the patch features of CLIP's vision tower, from which a
LLaVA reads; what shape a thing has can hardly be read from the patches of the bundled CLIP.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions.knowledge import NUMBERS
from lpi_jax.data.questions.picture import Box, Picture, Thing, distinct, one, written
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.wording import INVERSE

Generator = np.random.Generator
Asked = tuple[tuple[str, ...], str]  # the words that a question is about, and its answer
SIDES = {"left of": "left", "right of": "right", "above": "above", "below": "below"}
EDGES = {"on the left": (-1, 0), "on the right": (1, 0), "at the top": (0, -1), "at the bottom": (0, 1)}
CLEAR = 8  # 64ths of the side between the outermost thing and the next one


class Scene(NamedTuple):
    """What can be asked about an image.

    boxes: gives the things' boxes. relation: of the first thing to the second; "": they are not beside each other.
    """

    picture: Picture
    boxes: Callable[[], Sequence[Box]]
    relation: str

    @property
    def things(self) -> tuple[Thing, ...]:
        """The picture's."""
        return self.picture.things

    @property
    def colours(self) -> list[str]:
        """One for each thing."""
        return [thing.item.colour for thing in self.things]

    @property
    def crowd(self) -> bool:
        """Whether colours repeat, so that counting is what can be asked."""
        return len(set(self.colours)) < len(self.things)

    @property
    def pair(self) -> tuple[Thing, Thing] | None:
        """A smaller and a larger thing, if not all are as large."""
        in_order = sorted(self.things, key=lambda thing: thing.radius)
        small, large = in_order[0], in_order[-1]
        return (small, large) if small.radius < large.radius else None

    @property
    def outermost(self) -> dict[str, Thing]:
        """The things that are clearly at an edge, by where they are."""
        found: dict[str, Thing] = {}
        for edge, (x, y) in EDGES.items() if len(self.things) > 1 else ():
            along = [x * thing.x + y * thing.y for thing in self.things]
            *_, second, first = sorted(along)
            if first - second >= CLEAR:
                found[edge] = self.things[along.index(first)]
        return found


def number(rng: Generator, scene: Scene) -> Asked:
    """How many things have a colour that one of them has: a number's word."""
    colour = one(rng, sorted(set(scene.colours)))
    return (colour,), NUMBERS[scene.colours.count(colour)]


def at_edge(rng: Generator, scene: Scene) -> Asked:
    """The colour of the thing at an edge; only where `Scene.outermost` has any."""
    edge, thing = one(rng, tuple(scene.outermost.items()))
    return (edge,), thing.item.colour


def texture(rng: Generator, scene: Scene) -> Asked:
    """Whether the thing of a colour is solid, striped or dotted."""
    item = one(rng, scene.things).item
    return (item.colour,), item.texture


def presence(rng: Generator, scene: Scene) -> Asked:
    """Whether there is anything of a colour; one time in two no."""
    if rng.random() < 0.5:
        return (one(rng, scene.colours),), "yes"
    return (distinct(rng, GENERAL.colours, len(scene.things) + 1, *scene.colours)[-1],), "no"


def larger(rng: Generator, scene: Scene) -> Asked:
    """The colour of the larger of two things, named in either order; only where `Scene.pair` is one."""
    small, large = (thing.item.colour for thing in scene.pair or ())
    return ((small, large) if rng.integers(2) else (large, small)), large


def side(rng: Generator, scene: Scene) -> Asked:
    """Where one of two things beside each other is, seen from the other: left, right, above or below."""
    a, b, relation = either(rng, scene)
    return (a.item.colour, b.item.colour), SIDES[relation]


def box(rng: Generator, scene: Scene) -> Asked:
    """Where the thing of a colour is, as `written` writes its box."""
    k = int(rng.integers(len(scene.things)))
    return (scene.colours[k],), written(scene.boxes()[k])


def ground(rng: Generator, scene: Scene) -> Asked:
    """What the things are on."""
    return (), scene.picture.look.ground


def either(rng: Generator, scene: Scene) -> tuple[Thing, Thing, str]:
    """Two things beside each other and the first one's relation to the second; either may be the first."""
    a, b = scene.things
    return (b, a, INVERSE[scene.relation]) if rng.random() < 0.5 else (a, b, scene.relation)
