"""Words in pictures: every letter is drawn as it is or not at all, never as a box and never as a formula."""

import functools
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib import font_manager

from lpi_jax.terminal.plain_text import plain, shortened

USUAL = "DejaVu Sans"  # comes with matplotlib
MOST = 20  # columns of a name at an axis


@contextmanager
def drawn(words: Sequence[str]) -> Iterator[None]:
    """Inside, matplotlib uses fonts that have the letters of these words, and none of the user's own settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        families, _ = _coverage(frozenset("".join(map(plain, words))))
        matplotlib.rcParams.update({"font.family": list(families), "text.parse_math": False})
        yield


def names(tasks: Sequence[str]) -> list[str]:
    """What stands at an axis for each task: its name, shortened if it is long, or "task 3".

    The number stands in for a name with letters that no installed font has, or that is like another when shortened.
    """
    short = [shortened(plain(task), MOST) for task in tasks]
    _, drawable = _coverage(frozenset("".join(short)))
    often = Counter(short)
    return [
        name if name.strip() and often[name] == 1 and drawable.issuperset(name) else f"task {number}"
        for number, name in enumerate(short, start=1)
    ]


def line(text: str, most: int) -> str:
    """A title or a legend's entry: broken into lines of so many columns; "?" for letters that no font has."""
    text = plain(text)
    _, drawable = _coverage(frozenset(text))
    return textwrap.fill("".join(letter if letter in drawable else "?" for letter in text), most)


@functools.cache
def _coverage(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families, the usual one first, and those of the letters that they have."""
    families = [USUAL]
    missing = letters - _letters(USUAL)
    while missing:
        best = max(_families(), key=lambda family: len(missing & _letters(family)), default=USUAL)
        if not missing & _letters(best):
            break
        families.append(best)
        missing -= _letters(best)
    return tuple(families), letters - missing


@functools.cache
def _families() -> tuple[str, ...]:
    """Installed families with a regular font; not matplotlib's own, which are for formulas or hold only boxes."""
    bundled = matplotlib.get_data_path()
    fonts = [font for font in font_manager.fontManager.ttflist if not font.fname.startswith(bundled)]
    return tuple(sorted({font.name for font in fonts if (font.style, font.weight) == ("normal", 400)}))


@functools.cache
def _letters(family: str) -> frozenset[str]:
    """The letters that a family's regular font has."""
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=family), fallback_to_default=False)
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a file that is gone or no font
        return frozenset()
