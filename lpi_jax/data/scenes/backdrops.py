"""What lies behind the objects of a scene (backdrops) and over the whole image (finishes).

A backdrop draws on the large canvas, `unit` canvas pixels to one 64th of the image; a finish changes the small
image. Both take `strength` in [0, 1]: 0 is close to the general look, 1 the hardest. Random numbers are integers
wherever they reach a pixel, and no sum is left to a linear-algebra library, so that every machine draws the same.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def _canvas(unit: int, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (64 * unit, 64 * unit), colour)
    return image, ImageDraw.Draw(image)


def _pale(rng: np.random.Generator, low: int = 205) -> Colour:
    return tuple(int(v) for v in rng.integers(low, 256, 3))


def _lines(draw, unit, step, colour, vertical=True, horizontal=True, offset=0, width=1):
    side = 64 * unit
    for at in range(offset * unit, side, step * unit):
        if vertical:
            draw.line((at, 0, at, side), fill=colour, width=width)
        if horizontal:
            draw.line((0, at, side, at), fill=colour, width=width)


PAPERS: dict[str, Colour] = {
    "white": (248, 248, 246), "grey": (172, 174, 178), "yellow": (246, 232, 160), "green": (168, 214, 164),
    "blue": (168, 200, 244), "brown": (206, 172, 136), "pink": (248, 200, 218), "black": (74, 76, 84),
}  # fmt: skip
PATTERNS = ("plain", "squared", "lined", "dotted", "speckled", "framed")


def _paper(colour: str, pattern: str, rng, unit, strength):
    ground = tuple(int(v) for v in (np.asarray(PAPERS[colour]) + rng.integers(-12, 13, 3)).clip(0, 255))
    image, draw = _canvas(unit, ground)
    ink = mix(ground, (240, 240, 240) if colour == "black" else (50, 50, 60), 0.3)
    step = int(rng.integers(5, 8))
    offset = int(rng.integers(step))
    if pattern in ("squared", "lined"):
        _lines(draw, unit, step, ink, vertical=pattern == "squared", offset=offset, width=max(1, unit // 2))
    elif pattern == "dotted":
        for y in range(offset, 64, step):
            for x in range(offset, 64, step):
                draw.rectangle((x * unit, y * unit, (x + 1) * unit, (y + 1) * unit), fill=ink)
    elif pattern == "speckled":
        for x, y in (rng.integers(0, 64, (130, 2)) * unit).tolist():
            draw.rectangle((x, y, x + unit, y + unit // 2), fill=ink)
    elif pattern == "framed":
        draw.rectangle((0, 0, 64 * unit - 1, 64 * unit - 1), outline=mix(ink, (150, 100, 40), 0.6), width=3 * unit)
    return image


def _board(rng, unit, strength):
    ground = mix(_pale(rng), (28, 62, 50), 0.25 + 0.7 * strength)
    image, draw = _canvas(unit, ground)
    for _ in range(14):  # the sponge's streaks
        x, y = (int(v) for v in rng.integers(-10, 64, 2))
        tone = mix(ground, (235, 240, 235), 0.06 + 0.02 * int(rng.integers(4)))
        draw.line((x * unit, y * unit, (x + 26) * unit, (y - 5) * unit), fill=tone, width=2 * unit)
    return image


def _grid(rng, unit, strength):
    paper = mix(_pale(rng, 235), (150, 190, 240), 0.5 * strength)
    image, draw = _canvas(unit, paper)
    step, ink = 5, mix(paper, (40, 80, 170), 0.25 + 0.5 * strength)
    _lines(draw, unit, step, ink, offset=int(rng.integers(step)), width=max(1, round(unit / 2)))
    return image


def _gallery(rng, unit, strength):
    wall = mix(_pale(rng, 225), (205, 175, 120), 0.3 + 0.6 * strength)
    image, draw = _canvas(unit, wall)
    side, gold = 64 * unit, mix((214, 170, 60), (150, 110, 30), 0.2 * int(rng.integers(4)))
    draw.rectangle((0, 0, side - 1, side - 1), outline=gold, width=3 * unit)
    draw.rectangle(
        (3 * unit, 3 * unit, side - 1 - 3 * unit, side - 1 - 3 * unit), outline=(90, 62, 24), width=unit // 2
    )
    return image


def _sand(rng, unit, strength):
    small = rng.integers(-22, 23, (64, 64, 1)).astype(np.float32) * (0.5 + 1.5 * strength)
    pixels = np.float32(mix(_pale(rng, 225), (233, 208, 150), 0.8)) + small
    sea, phase = int(rng.integers(8, 18)), int(rng.integers(64))
    edge = sea + np.asarray([(abs((x + phase) % 16 - 8) // 2) for x in range(64)])
    water = np.arange(64)[:, None] < edge[None, :]
    pixels[water] = pixels[water] * 0.3 + np.float32((130, 195, 225)) * 0.7
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.resize((64 * unit, 64 * unit), Image.Resampling.BILINEAR)


def _wool(rng, unit, strength):
    return _canvas(unit, mix(_pale(rng, 215), (168, 128, 200), 0.7))[0]


def _carton(rng, unit, strength):
    board = mix(_pale(rng, 225), (196, 152, 104), 0.35 + 0.6 * strength)
    image, draw = _canvas(unit, board)
    _lines(draw, unit, 3, mix(board, (120, 85, 50), 0.2), vertical=False, offset=int(rng.integers(3)))
    at, side = int(rng.integers(10, 48)) * unit, 64 * unit
    tape = (at, 0, at + 7 * unit, side) if rng.random() < 0.5 else (0, at, side, at + 7 * unit)
    draw.rectangle(tape, fill=mix(board, (235, 215, 175), 0.6))
    return image


def _halftone(rng, unit, strength):
    paper = _pale(rng, 225)
    hot = ((255, 150, 165), (250, 130, 195), (255, 170, 200))[int(rng.integers(3))]
    image, draw = _canvas(unit, mix(paper, hot, 0.3))
    ink = mix(paper, hot, 0.5 + 0.5 * strength)
    for row, y in enumerate(range(0, 66, 4)):
        for x in range(2 * (row % 2), 66, 4):
            r = (0.8 + 0.8 * strength) * unit
            draw.ellipse((x * unit - r, y * unit - r, x * unit + r, y * unit + r), fill=ink)
    return image


def _meadow(rng, unit, strength):
    ground = mix(_pale(rng, 215), (170, 215, 140), 0.4 + 0.4 * strength)
    image, draw = _canvas(unit, ground)
    blades = rng.integers((0, 4, -4, 4, 0), (64, 68, 5, 11, 10), (round(30 + 110 * strength), 5))
    for x, y, lean, tall, dry in blades.tolist():
        tone = mix((70, 130, 50), (190, 215, 110), 0.1 * dry)
        draw.line((x * unit, y * unit, (x + lean) * unit, (y - tall) * unit), fill=tone, width=max(1, unit // 2))
    return image


def _debris(rng, unit, strength):
    ground = mix(_pale(rng, 215), (176, 180, 150), 0.5)
    image, draw = _canvas(unit, ground)
    for _ in range(round(15 + 60 * strength)):
        x, y, w, h, t = (int(v) for v in rng.integers((0, 0, 1, 1, 0), (64, 64, 6, 6, 6)))
        tone = mix(ground, (80, 84, 76), 0.12 * (t + 1))
        corners = [(x, y), (x + w, y + 1), (x + w - 1, y + h), (x - 1, y + h - 1)]
        draw.polygon([(a * unit, b * unit) for a, b in corners], fill=tone)
    return image


def _patchwork(rng, unit, strength):
    image, draw = _canvas(unit, (240, 240, 240))
    glass = ((235, 120, 110), (120, 160, 235), (240, 215, 110), (130, 205, 140), (190, 140, 220))
    step = 16
    shift = [int(v) for v in rng.integers(-3, 4, 5)]
    for row in range(4):
        for col in range(4):
            tone = mix(_pale(rng, 225), glass[int(rng.integers(len(glass)))], 0.15 + 0.6 * strength)
            x, y = col * step + shift[row], row * step
            draw.rectangle((x * unit, y * unit, (x + step + 3) * unit, (y + step) * unit), fill=tone)
            draw.line((x * unit, y * unit, x * unit, (y + step) * unit), fill=(70, 66, 72), width=unit)
        draw.line((0, row * step * unit, 64 * unit, row * step * unit), fill=(70, 66, 72), width=unit)
    return image


def _newsprint(rng, unit, strength):
    paper = mix(_pale(rng, 225), (222, 218, 205), 0.6)
    image, draw = _canvas(unit, paper)
    ink = mix(paper, (70, 70, 70), 0.15 + 0.5 * strength)
    for y in range(2, 64, 4):  # lines of grey words
        x = int(rng.integers(5))
        while x < 64:
            w = int(rng.integers(3, 9))
            draw.rectangle((x * unit, y * unit, (x + w) * unit, y * unit + unit), fill=ink)
            x += w + 2
    return image


def _gingham(rng, unit, strength):
    cloth = _pale(rng, 235)
    dye = ((225, 110, 110), (110, 140, 225), (120, 190, 120))[int(rng.integers(3))]
    image, _ = _canvas(unit, cloth)
    shade = Image.new("L", image.size, 0)
    bands, level = ImageDraw.Draw(shade), round(255 * (0.12 + 0.33 * strength))
    for at in range(-int(rng.integers(12)), 64, 12):
        bands.rectangle((at * unit, 0, (at + 6) * unit - 1, 64 * unit), fill=level)
    image.paste(dye, (0, 0), shade)
    image.paste(dye, (0, 0), shade.transpose(Image.Transpose.TRANSPOSE))
    return image


def _bricks(rng, unit, strength):
    mortar = _pale(rng, 215)
    image, draw = _canvas(unit, mortar)
    for row in range(9):
        for x in range(-8 * (row % 2), 64, 16):
            tone = mix(mortar, (186, 98, 76), 0.15 + 0.5 * strength + 0.04 * int(rng.integers(4)))
            draw.rectangle((x * unit, row * 8 * unit, (x + 15) * unit, (row * 8 + 7) * unit), fill=tone)
    return image


def _grey(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 1] lightness."""
    red, green, blue = (pixels[..., k : k + 1] for k in range(3))
    return np.float32(0.3) * red + np.float32(0.59) * green + np.float32(0.11) * blue


def _at(side: int) -> np.ndarray:
    """[side] int: for each pixel row or column the 64th of the image that it lies in."""
    return np.arange(side) * 64 // side


def _dim(pixels, rng, strength):
    return pixels * np.float32(1 - 0.8 * strength)


def _noise(pixels, rng, strength):
    reach, at = round(20 + 110 * strength), _at(len(pixels))
    return pixels + rng.integers(-reach, reach + 1, (64, 64, 3)).astype(np.float32)[at][:, at]


def _lantern(pixels, rng, strength):
    side = pixels.shape[0]
    y, x = np.mgrid[:side, :side].astype(np.float32) * np.float32(64 / side) - np.float32(32)
    dx, dy = (int(v) for v in rng.integers(-9, 10, 2))
    far = ((x - dx) ** 2 + (y - dy) ** 2)[..., None] / np.float32(40.0**2)
    light = np.float32(1 - 0.45 * strength) - np.float32(0.6 * strength) * far
    night = np.float32((24, 30, 66))
    return pixels * light.clip(0.12, 1) + night * np.float32(0.55 * strength)


def _sepia(pixels, rng, strength):
    brown = _grey(pixels) * np.float32((1.02, 0.86, 0.62))
    return pixels + (brown - pixels) * np.float32(0.75 * strength)


def _fog(pixels, rng, strength):
    side = pixels.shape[0]
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    veil = np.asarray(coarse, np.float32)[..., None] / 255
    share = (np.float32(0.25 + 0.5 * strength) + np.float32(0.35 * strength) * veil).clip(0, 0.93)
    return pixels + (np.float32((226, 230, 234)) - pixels) * share


def _posterise(pixels, rng, strength):
    step = np.float32(round(40 + 88 * strength))
    return np.floor(pixels.clip(0, 255) / step + np.float32(0.5)) * step


def _scanlines(pixels, rng, strength):
    dim = np.where((_at(len(pixels)) + int(rng.integers(3))) % 3 == 0, 1 - 0.75 * strength, 1)
    return pixels * dim.astype(np.float32)[:, None, None]


def _fade(pixels, rng, strength):
    return pixels + (_grey(pixels) - pixels) * np.float32(0.8 * strength)


def _blur(pixels, rng, strength):
    image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    radius = (0.4 + 2 * strength) * image.width / 64
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


@lru_cache(maxsize=8)
def _stitches(side: int) -> np.ndarray:
    """[side, side, 1] float32 in [-1, 1]: rows of V-shaped stitches, four to five pixels at 64."""
    y, x = np.mgrid[:side, :side] * (64 / side)
    phase = (y + np.abs(x % 4 - 2)) % 4
    return ((2 * (phase < 1.9) - 1) * np.where(x % 4 < 0.99, 0.2, 1.0)).astype(np.float32)[..., None]


def _knit(pixels, rng, strength):
    side = pixels.shape[0]
    image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    coarse = image.resize((32, 32), Image.Resampling.BOX).resize((side, side), Image.Resampling.NEAREST)
    share = np.float32(min(1.0, 0.4 + strength))
    pixels = pixels + (np.asarray(coarse, np.float32) - pixels) * share
    return pixels * (1 + np.float32(0.1 + 0.3 * strength) * _stitches(side))


Backdrop = Callable[[np.random.Generator, int, float], Image.Image]
Finish = Callable[[np.ndarray, np.random.Generator, float], np.ndarray]

BACKDROPS: dict[str, Backdrop] = {
    "board": _board, "grid": _grid, "gallery": _gallery, "sand": _sand, "wool": _wool,
    "carton": _carton, "halftone": _halftone, "meadow": _meadow, "debris": _debris, "patchwork": _patchwork,
    "newsprint": _newsprint, "gingham": _gingham, "bricks": _bricks,
    **{f"{pattern} {colour} paper": partial(_paper, colour, pattern) for colour in PAPERS for pattern in PATTERNS},
}  # fmt: skip
FINISHES: dict[str, Finish] = {
    "dim": _dim, "noise": _noise, "lantern": _lantern, "sepia": _sepia, "fog": _fog, "posterise": _posterise,
    "scanlines": _scanlines, "fade": _fade, "blur": _blur, "knit": _knit,
}  # fmt: skip
