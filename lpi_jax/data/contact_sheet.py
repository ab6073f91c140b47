"""Contact sheets: an image of images with their captions, by which a person sees whether they belong together."""

import contextlib
import functools
import importlib.util
import io
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 6
SIDE = 150  # pixels; the longer side of a thumbnail
SHEET = re.compile(r"\d{2,}(-[a-z0-9-]+)?\.png")  # what `file_name` makes
_GAP, _LINE, _LINES, _LETTERS = 8, 14, 3, 25  # pixels, pixels, lines under an image, letters in a line
_HEADING = 24
_LONGEST = 500  # letters looked at: a caption may have a million
_BLACK, _GREY, _RED = "#111111", "#dddddd", "#b00000"


class Tile(NamedTuple):
    """image: a thumbnail, at most SIDE x SIDE, or None where it could not be read."""

    image: Image.Image | None
    caption: str


class Section(NamedTuple):
    """Tiles under a heading."""

    heading: str
    tiles: Sequence[Tile]


def thumbnail(image: Image.Image) -> Image.Image:
    """The image enlarged or shrunk until its longer side is SIDE."""
    width, height = image.size
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def contact_sheet(title: str, sections: Sequence[Section]) -> bytes:
    """PNG: the title, then each section's heading and its tiles, COLUMNS in a row.

    Any text may be drawn: what the font lacks becomes boxes, what does not fit is cut.
    """
    step_x, step_y = SIDE + _GAP, SIDE + _LINES * _LINE + _GAP
    rows = [-(-len(section.tiles) // COLUMNS) for section in sections]
    size = COLUMNS * step_x + _GAP, (1 + len(sections)) * _HEADING + sum(rows) * step_y + 2 * _GAP
    sheet = Image.new("RGB", size, "white")
    _write(sheet, (_GAP, _GAP), title, 16)
    y = _GAP + _HEADING
    for section, count in zip(sections, rows, strict=True):
        _write(sheet, (_GAP, y), section.heading, 13)
        y += _HEADING
        for number, tile in enumerate(section.tiles):
            row, column = divmod(number, COLUMNS)
            sheet.paste(_drawn(tile), (_GAP + column * step_x, y + row * step_y))
        y += count * step_y
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()


def file_name(number: int, title: str) -> str:
    """A file name for the sheet of a task, made of its number and its name's plain letters and digits."""
    stem = re.sub(r"[^a-z0-9]+", "-", title[:_LONGEST].lower()).strip("-")[:60]
    return f"{number:02d}{f'-{stem}' if stem else ''}.png"


def _drawn(tile: Tile) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE + _LINES * _LINE), "white")
    if tile.image is None:
        image.paste(_GREY, (0, 0, SIDE, SIDE))
        _write(image, (10, SIDE // 2 - 10), "cannot be read", 13, _RED)
    else:
        width, height = tile.image.size
        image.paste(tile.image, ((SIDE - width) // 2, (SIDE - height) // 2))
    lines = textwrap.wrap(tile.caption[:_LONGEST], _LETTERS, max_lines=_LINES, placeholder="…")
    for number, line in enumerate(lines):
        _write(image, (0, SIDE + number * _LINE), line, 11)
    return image


def _write(image: Image.Image, place: tuple[int, int], text: str, size: int, colour: str = _BLACK) -> None:
    """One line of text, cut at the edge of the image."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST])
    ImageDraw.Draw(image).text(place, text, fill=colour, font=_font(size))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans (Latin, Greek, Cyrillic, Hebrew, Arabic), which comes with matplotlib and with most Linux systems.

    Else Pillow's own font, which has hardly more than ASCII.
    """
    matplotlib = importlib.util.find_spec("matplotlib")
    folders = (matplotlib.submodule_search_locations or []) if matplotlib else []
    for place in (*(f"{folder}/mpl-data/fonts/ttf/" for folder in folders), ""):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(f"{place}DejaVuSans.ttf", size)
    return ImageFont.load_default(size)
