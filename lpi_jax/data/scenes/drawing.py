"""Where a scene's objects stand and how they are painted.

Geometry first (`place`, which also gives the boxes), pixels second (`draw`); both are pure, so boxes need no drawing.
Everything is measured in 64ths of the image's side and drawn three times too large, on whole canvas pixels, then
averaged down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from lpi_jax.data.scenes.backdrops import BACKDROPS, FINISHES, Colour, mix
from lpi_jax.data.scenes.shapes import SHAPES
from lpi_jax.data.scenes.wording import Item

OVERSAMPLING = 3
PAINTS: dict[str, Colour] = {
    "red": (212, 40, 40),
    "orange": (245, 138, 30),
    "yellow": (244, 214, 40),
    "green": (52, 156, 66),
    "blue": (42, 82, 206),
    "purple": (128, 60, 168),
    "pink": (246, 140, 190),
    "brown": (126, 78, 44),
    "black": (38, 38, 42),
    "turquoise": (56, 196, 190),
}
_INK = (30, 28, 34)


@dataclass(frozen=True)
class Look:
    """How images look. The same `strength` goes to the backdrop, the outline, the fill and the finishes.

    Attributes:
      ground: what captions call the place where the objects are ("squared blue paper").
      backdrop, finishes: names in scene_backdrops.
      outline: width of the objects' outline, 64ths of the side, at strength 1.
      fill: share of an object's paint that is lost to white at strength 1.
      tilt: largest turn of the whole arrangement, degrees, at strength 1 (below 20, so that relations stay clear).
      spin: largest turn of each object, degrees.
      shadow: whether objects cast one.
      across: number of thin dark strokes in front of everything, at strength 1.
    """

    ground: str
    backdrop: str
    finishes: tuple[str, ...] = ()
    outline: float = 0.0
    fill: float = 0.0
    tilt: float = 0.0
    spin: float = 8.0
    shadow: bool = False
    across: int = 0


@dataclass(frozen=True, eq=False)
class Placed:
    """An object with its place: polygons in 64ths of the side, its paint, its texture's shift and direction."""

    item: Item
    polygons: tuple[tuple[np.ndarray, bool], ...]
    paint: Colour
    shift: tuple[int, int]
    direction: int

    def box(self, outline: float, image_size: int) -> tuple[int, int, int, int]:
        """The smallest whole-pixel box (x0, y0, x1, y1) around the object and its outline, x1 and y1 exclusive."""
        points = np.concatenate([points for points, ink in self.polygons if ink])
        low = np.floor((points.min(0) - outline) * image_size / 64).clip(0, image_size - 1)
        high = np.ceil((points.max(0) + outline) * image_size / 64).clip(1, image_size)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def place(
    items: Sequence[Item],
    relations: Sequence[tuple[int, str, int]],
    look: Look,
    strength: float,
    rng: np.random.Generator,
) -> tuple[Placed, ...]:
    """Puts the objects where the relations want them: two across the middle, three on the corners of a square."""
    # Centres relative to the image's middle; the first pair sets object 0 and 1, a second pair places object 2.
    half = 15.5 if len(items) == 2 else 15.0
    step = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    (_, first, _), *rest = relations
    at = np.zeros((len(items), 2))
    at[0], at[1] = np.multiply(step[first], half), np.multiply(step[first], -half)
    for i, relation, j in rest:
        side = np.multiply(step[relation], half)
        at[j] -= side
        at[1 - j] -= side
        at[i] = at[j] + 2 * side
    loose = 4.0 if len(items) == 2 else 1.0
    across = np.asarray(step[first])[::-1] != 0
    turn = np.deg2rad(float(rng.uniform(-1, 1)) * look.tilt * strength)
    rotation = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    placed = []
    for k, item in enumerate(items):
        radius = (12.0 if item.size == "big" else 8.0) + float(rng.uniform(-0.6, 0.6))
        jitter = rng.uniform(-1, 1, 2) * np.where(across, loose, 1.0)
        centre = 32 + rotation @ (at[k] + jitter)
        centre = centre.clip(radius * 1.03 + 1, 63 - radius * 1.03)
        spin = turn + np.deg2rad(float(rng.uniform(-1, 1)) * look.spin)
        own = np.asarray([[np.cos(spin), -np.sin(spin)], [np.sin(spin), np.cos(spin)]]) * radius
        polygons = tuple((part.points @ own.T + centre, part.ink) for part in SHAPES[item.shape])
        paint = tuple(int(v) for v in (np.asarray(PAINTS[item.colour]) + rng.integers(-14, 15, 3)).clip(0, 255))
        shift, direction = rng.integers(0, 12, 2), int(rng.integers(2))
        placed.append(Placed(item, polygons, paint, (int(shift[0]), int(shift[1])), direction))
    return tuple(placed)


@lru_cache(maxsize=64)
def _texture(name: str, direction: int, unit: int) -> Image.Image:
    """A mask, larger than any object, of where a striped or dotted object's second colour goes."""
    side = 48 * unit
    y, x = np.mgrid[:side, :side] / unit
    if name == "striped":
        mask = ((x + y) if direction else (x * 0 + y)) % (5.6 if direction else 4.4) < (2.4 if direction else 1.9)
    else:
        row = np.floor(y / 4)
        mask = ((x + 2 * (row % 2)) % 4 - 2) ** 2 + (y % 4 - 2) ** 2 < 1.25**2
    return Image.fromarray((mask * 255).astype(np.uint8))


def _second(paint: Colour) -> Colour:
    """The texture's colour: light on dark paint, dark on light paint."""
    luma = 0.3 * paint[0] + 0.59 * paint[1] + 0.11 * paint[2]
    return mix(paint, (255, 255, 255), 0.72) if luma < 140 else mix(paint, (0, 0, 0), 0.55)


def _paint(canvas: Image.Image, thing: Placed, look: Look, strength: float, unit: int) -> None:
    corners = [(np.rint(points * unit).astype(int), ink) for points, ink in thing.polygons]
    every = np.concatenate([points for points, ink in corners if ink])
    x0, y0 = (int(v) for v in every.min(0) - 1)
    width, height = (int(v) for v in every.max(0) + 2 - (x0, y0))
    mask = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(mask)
    for points, ink in corners:
        pen.polygon([(int(x) - x0, int(y) - y0) for x, y in points], fill=255 if ink else 0)
    if look.shadow:
        away = 2 * unit
        canvas.paste((60, 55, 60), (x0 + away, y0 + away), mask.point(lambda v: v * 2 // 5))
    outline = look.outline * strength * unit
    if outline >= 0.5:
        draw = ImageDraw.Draw(canvas)
        for points, _ in corners:
            ring = [(int(x), int(y)) for x, y in points]
            draw.line([*ring, ring[0], ring[1]], fill=_INK, width=max(1, round(2 * outline)), joint="curve")
    # Whatever an outline has drawn inside a hole's own rim stays; everything under the paint is covered.
    canvas.paste(mix(thing.paint, (255, 255, 255), look.fill * strength), (x0, y0), mask)
    if thing.item.texture != "solid":
        tile = _texture(thing.item.texture, thing.direction, unit)
        sx, sy = (v * unit // 2 for v in thing.shift)
        for points, _ in corners:  # keep a rim of the paint, so that the silhouette stays readable
            rim = [(int(x) - x0, int(y) - y0) for x, y in points]
            pen.line([*rim, rim[0]], fill=0, width=unit)
        pattern = ImageChops.multiply(mask, tile.crop((sx, sy, sx + width, sy + height)))
        second = mix(_second(thing.paint), (255, 255, 255), look.fill * strength / 2)
        canvas.paste(second, (x0, y0), pattern)


def draw(
    things: Sequence[Placed], look: Look, strength: float, rng: np.random.Generator, image_size: int
) -> Image.Image:
    """The image, image_size x image_size, mode RGB."""
    # A canvas unit is a 64th of the canvas, so the canvas is a multiple of 64 and the last step resamples to any size.
    unit = OVERSAMPLING * max(1, -(-image_size // 64))
    canvas = BACKDROPS[look.backdrop](rng, unit, strength)
    strokes = rng.integers(0, 64, (round(look.across * strength), 4)) * unit
    tones = rng.integers(60, 170, len(strokes))
    for thing in things:
        _paint(canvas, thing, look, strength, unit)
    pen = ImageDraw.Draw(canvas)
    for (xa, ya, xb, yb), tone in zip(strokes.tolist(), tones.tolist(), strict=True):
        pen.line((xa, ya, xb, yb), fill=(tone, tone, tone), width=max(1, unit // 2))
    small = canvas.resize((image_size, image_size), Image.Resampling.BOX)
    if not look.finishes:
        return small
    pixels = np.asarray(small, np.float32)
    for finish in look.finishes:
        pixels = FINISHES[finish](pixels, rng, strength)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
