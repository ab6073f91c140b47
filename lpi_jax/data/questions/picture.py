"""What a question is about: a few things on a ground, put where the question needs them and drawn as scenes are.

Places and sizes are whole 64ths of the image's side, so that two pictures can be compared.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from lpi_jax.data.scenes.drawing import PAINTS, Look, Placed, draw
from lpi_jax.data.scenes.shapes import SHAPES
from lpi_jax.data.scenes.wording import Item

T = TypeVar("T")
Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the side
STEP = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
RADIUS = {"small": 8, "big": 12}
GRID = 0.05  # of the numbers in a written box
_JITTER = 1.0  # 64ths; below the distance of two places, so that it changes no answer
_BUCKETS = 5


@dataclass(frozen=True)
class Thing:
    """An object around (x, y), 64ths of the side from the left and the top, as large as `radius`, 64ths."""

    item: Item
    x: int
    y: int
    radius: int


@dataclass(frozen=True)
class Picture:
    """things: in no order. look, strength: as in `lpi_jax.data.scenes.domain`."""

    things: tuple[Thing, ...]
    look: Look
    strength: float

    @property
    def held_out(self) -> bool:
        """Whether only validation may show it: one in five by its shapes, colours and places, whatever the look."""
        shown = sorted(f"{t.item.colour} {t.item.shape} {t.x} {t.y}" for t in self.things)
        return hashlib.sha256(";".join(shown).encode()).digest()[0] % _BUCKETS == 0

    def placed(self, rng: np.random.Generator) -> tuple[Placed, ...]:
        """The things with corners and paint; rng: the picture's own for this purpose."""
        return tuple(_placed(thing, self.look.spin, rng) for thing in self.things)

    def boxes(self, rng: np.random.Generator) -> tuple[Box, ...]:
        """The smallest box around each thing and its outline; rng: as for `placed`."""
        edge = self.look.outline * self.strength
        rows = []
        for thing in self.placed(rng):
            points = np.concatenate([points for points, ink in thing.polygons if ink])
            low, high = (points.min(0) - edge) / 64, (points.max(0) + edge) / 64
            left, top, right, bottom = (float(v) for v in np.concatenate([low, high]).clip(0, 1))
            rows.append((left, top, right, bottom))
        return tuple(rows)

    def image(self, places: np.random.Generator, pixels: np.random.Generator, size: int) -> Image.Image:
        """size x size, mode RGB; places: as for `placed`; pixels: for the ground and the finishes."""
        return draw(self.placed(places), self.look, self.strength, pixels, size)


def _placed(thing: Thing, spin: float, rng: np.random.Generator) -> Placed:
    reach = thing.radius * 1.03 + 1
    centre = (np.asarray([thing.x, thing.y]) + rng.uniform(-_JITTER, _JITTER, 2)).clip(reach, 64 - reach)
    turn = np.deg2rad(float(rng.uniform(-1, 1)) * spin)
    own = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * thing.radius
    polygons = tuple((part.points @ own.T + centre, part.ink) for part in SHAPES[thing.item.shape])
    paint = tuple(int(v) for v in (np.asarray(PAINTS[thing.item.colour]) + rng.integers(-14, 15, 3)).clip(0, 255))
    shift, direction = rng.integers(0, 12, 2), int(rng.integers(2))
    return Placed(thing.item, polygons, paint, (int(shift[0]), int(shift[1])), direction)


# ---- where things stand ----------------------------------------------------------------------------------------------


def beside(items: Sequence[Item], relation: str, rng: np.random.Generator) -> tuple[Thing, ...]:
    """Two things across the middle: the first is `relation` the second."""
    step = np.asarray(STEP[relation])
    across = np.abs(step[::-1])
    things = []
    for item, side in zip(items, (15, -15), strict=True):
        x, y = 32 + side * step + 4 * int(rng.integers(-1, 2)) * across
        things.append(Thing(item, int(x), int(y), RADIUS[item.size]))
    return tuple(things)


def scattered(items: Sequence[Item], rng: np.random.Generator, radii: Sequence[int] = ()) -> tuple[Thing, ...]:
    """Things anywhere on a grid of 4 64ths, none touching another; radii: 64ths, or by their sizes."""
    radii = radii or [RADIUS[item.size] for item in items]
    while True:
        things: list[Thing] = []
        for item, radius in zip(items, radii, strict=True):
            low, high = -(-(radius + 2) // 4), (62 - radius) // 4
            for x, y in (4 * rng.integers(low, high + 1, (12, 2))).tolist():
                if all((x - t.x) ** 2 + (y - t.y) ** 2 > (radius + t.radius + 2) ** 2 for t in things):
                    things.append(Thing(item, x, y, radius))
                    break
            else:  # there is hardly any room left
                break
        else:
            return tuple(things)


# ---- words and choices -----------------------------------------------------------------------------------------------


def written(box: Box) -> str:
    """A box as an answer: "[0.10, 0.40, 0.55, 0.80]", each number on a grid of `GRID`."""
    return f"[{', '.join(f'{round(edge / GRID) * GRID:.2f}' for edge in box)}]"


def with_article(words: str) -> str:
    """`a` or `an` before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def one(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Any of the choices."""
    return choices[int(rng.integers(len(choices)))]


def distinct(rng: np.random.Generator, choices: Sequence[str], count: int, *first: str) -> list[str]:
    """`count` different choices: those in `first`, then others in a random order."""
    others = [choice for choice in choices if choice not in first]
    return [*first, *(others[k] for k in rng.permutation(len(others))[: count - len(first)].tolist())]


def made_up(rng: np.random.Generator) -> str:
    """A word of two to five letters."""
    return "".join(one(rng, "abcdefghijklmnopqrstuvwxyz") for _ in range(rng.integers(2, 6)))
