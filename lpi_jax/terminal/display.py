"""What is shown on stderr while something is at work: a line drawn anew on a terminal, plain lines elsewhere."""

import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from lpi_jax.terminal import one_line

_EVERY = 0.2  # seconds between two drawings
_NARROWEST, _WIDEST = 8, 30  # columns of the bar itself
_USUAL = 80  # columns of a terminal that does not tell


class Display:
    """One line at the foot of a terminal, and lines above it that stay.

    In a file or a pipe, the lines that stay are all there is. Where stderr takes nothing (its reader has gone), nothing
    is shown any more: what is shown must not end what is at work.
    """

    def __init__(self) -> None:
        self._file = sys.stderr
        self.moves = self._file is not None and self._file.isatty()
        self._drawn, self._width = "", _USUAL
        self._last = -_EVERY

    def draw(self, what: str, share: float | None, fields: Sequence[str], now: bool = False) -> None:
        """Draws the line at the foot; at most five times a second, unless it must be `now`. See `fitted`."""
        if self.moves and (now or time.monotonic() - self._last >= _EVERY):
            self._last = time.monotonic()
            self._width = _width_of(self._file)
            self._foot(fitted(self._width - 1, self._written(what), share, list(map(self._written, fields))))

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        drawn = self._drawn
        if drawn:
            self._foot("")
        self._write(self._written(text) + "\n")
        if drawn:
            self._foot(drawn)

    def close(self) -> None:
        """Leaves what is drawn where it is."""
        if self._drawn:
            self._drawn = ""
            self._write("\n")

    def _foot(self, text: str) -> None:
        blank = " " * max(0, min(columns(self._drawn), self._width - 1) - columns(text))
        self._drawn = text
        self._write("\r" + text + blank + ("" if text else "\r"))

    def _written(self, text: str) -> str:
        """Text as this terminal can show it; what others wrote must not steer it."""
        encoding = self._file.encoding if self._file is not None else "ascii"
        return one_line(text).encode(encoding or "ascii", "replace").decode(encoding or "ascii")

    def _write(self, text: str) -> None:
        try:
            if self._file is not None:
                self._file.write(text)
                self._file.flush()
        except (OSError, ValueError):  # ValueError: closed
            self._file, self.moves, self._drawn = None, False, ""


def fitted(width: int, what: str, share: float | None, fields: Sequence[str]) -> str:
    """A line of at most `width` columns: what is at work, a bar, and as many fields, from the first, as there is room.

    Args:
      share: of the work that is done, 0..1; None: no bar. fields: the most important first.
    """
    bar = _NARROWEST + 3 if share is not None else 0  # with its ends, and a space before it
    what = shortened(what, max(width - bar, 1))
    text = ""
    for field in fields:
        longer = f"{text}, {field}" if text else f" {field}"
        if columns(what) + bar + columns(longer) > width:
            break
        text = longer
    if share is None:
        return what + text
    inner = min(_NARROWEST + width - columns(what) - bar - columns(text), _WIDEST)
    full = int(inner * min(max(share, 0.0), 1.0))
    line = f"{what} [{'#' * full}{'.' * (inner - full)}]{text}"
    return line if columns(line) <= width else shortened(what, width)


def shortened(text: str, width: int) -> str:
    """Text of at most `width` columns, its end cut off with two dots."""
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 2:
        text = text[:-1]
    return (text + "..")[:width]


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def room(count: float) -> str:
    """Bytes in the unit that leaves few digits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g} B"


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def counting(total: int, what: str, unit: str, quiet: bool = False, items: Iterable[Any] | None = None) -> tqdm:
    """A bar over many small things, or over `items`; without a terminal one plain line that says what begins.

    Args:
      what: is done, such as "checking images". quiet: shows nothing.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if not quiet and not terminal:
        Display().line(f"{what}: {total}")
    return tqdm(items, total=total, desc=what, unit=unit, disable=quiet or not terminal, dynamic_ncols=True)


def _width_of(file: Any) -> int:
    try:
        return os.get_terminal_size(file.fileno()).columns or _USUAL
    except (OSError, ValueError):
        return _USUAL
