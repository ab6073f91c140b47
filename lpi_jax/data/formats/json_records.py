"""The records of one JSON file that nobody vouches for: a list of objects, or JSON Lines with an object in each line.

Both are read piece by piece, so that memory holds a few records, however long the file is. A record of a list may have
`MAX_RECORD` characters, a line `json_lines.MAX_LINE_BYTES`. NaN and Infinity, which Python's json lets pass, are no
JSON: a record that holds one is a bad example. A list that is broken ends the file: from there on nobody can tell
where the next record begins.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from lpi_jax.data.examples import BadExample, failing_at, kind_of
from lpi_jax.data.formats.json_file import decoded
from lpi_jax.data.formats.json_lines import MAX_LINE_BYTES, numbered_lines
from lpi_jax.errors import UserError
from lpi_jax.files import require_file

MAX_RECORD = 1_000_000  # characters
EXPECTED = "a JSON list of objects, or JSON Lines with an object in each line"
_SPACE = " \t\r\n"
_CUT = 16  # characters: where text is cut, json complains that far from its end at most
_ABSURD = "JSON of an absurd kind (too deep, or a number too long)"

Update = Callable[[bytes], object]
Record = dict[str, Any]


def records(path: str, update: Update) -> Iterator[tuple[str, Record | BadExample]]:
    """(place, object) of each record, in its order; the place is written "record 3", from 1, or "line 3".

    Args:
      path: the file, UTF-8; a list if its first sign that is not blank is "[".
      update: sees the whole content.

    Returns:
      What is no JSON object comes as a bad example, which names file and place.

    Raises:
      UserError: no such file, an empty one, or a list that is empty, broken, not UTF-8 or holds too long a record.
    """
    require_file(path, EXPECTED)
    try:
        with open(path, "rb") as file:
            piece = file.read(1 << 16).removeprefix(codecs.BOM_UTF8)
            while piece and not piece.strip():
                piece = file.read(1 << 16)
        if not piece.lstrip().startswith(b"["):
            yield from _of_lines(path, update)
            return
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _of_list(_Text(path, file, update))
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the file is not UTF-8 ({error.reason}); expected {EXPECTED}") from error


class _Decoder:
    """Reads one object, and knows whether it held what is no JSON."""

    def __init__(self) -> None:
        self._constants: list[str] = []
        self._decoder = json.JSONDecoder(parse_constant=self._constants.append)

    def read(self, text: str, start: int, where: str) -> tuple[Record | BadExample, int]:
        """The object that begins at `start`, and where it ends. Raises what json raises."""
        self._constants.clear()
        value, end = self._decoder.raw_decode(text, start)
        try:
            if not isinstance(value, dict):
                failing_at(where)("not an object", f"this is {kind_of(value)}; expected an object")
            if self._constants:
                failing_at(where)("not JSON", f"this holds {self._constants[0]}, which is no JSON")
        except BadExample as error:
            return error.with_traceback(None), end
        return value, end


def _of_lines(path: str, update: Update) -> Iterator[tuple[str, Record | BadExample]]:
    decoder = _Decoder()
    for number, raw in numbered_lines(path, update, "record"):
        place = f"line {number}"
        try:
            yield place, _of_line(decoder, f"{path}, {place}", raw)
        except BadExample as error:
            yield place, error.with_traceback(None)


def _of_line(decoder: _Decoder, where: str, raw: bytes | None) -> Record | BadExample:
    fail = failing_at(where)
    if raw is None:
        fail("line too long", f"the line has more than {MAX_LINE_BYTES} bytes")
    text = decoded(raw, "the line", fail).strip(_SPACE)
    try:
        record, end = decoder.read(text, 0, where)
        if text[end:]:
            raise json.JSONDecodeError("Extra data", text, end)
        return record
    except json.JSONDecodeError as error:
        fail("not JSON", f"the line is not JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError):
        fail("not JSON", f"the line is {_ABSURD}")


class _Text:
    """A file's text. Of it stays in memory what is not read yet of the last piece, at least one record if there is."""

    def __init__(self, path: str, file: TextIO, update: Update) -> None:
        self.path, self._file, self._update = path, file, update
        self.text, self.position, self.ended = "", 0, False
        self._lines = self._columns = 0  # that lie before the text: line ends, and characters behind the last of them

    def fill(self) -> None:
        """Reads on until more than `MAX_RECORD` characters lie ahead or the file ends."""
        while not self.ended and len(self.text) - self.position <= MAX_RECORD:
            lines, columns = self._behind(self.position)
            piece = self._file.read(MAX_RECORD + 1)
            self._update(piece.encode())
            self.ended = not piece
            self.text, self.position = self.text[self.position :] + piece, 0
            self._lines, self._columns = lines, columns

    def next_sign(self) -> str:
        """The next character that is not blank, which is not read yet; "": there is none."""
        while True:
            self.fill()
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text):
                self.fill()  # the blanks may have taken what was ahead
                return self.text[self.position]
            if self.ended:
                return ""

    def broken(self, position: int, why: str) -> NoReturn:
        """Raises the error that the list is broken at this position of the text."""
        lines, columns = self._behind(position)
        place = f"line {lines + 1}, column {columns + 1}"
        raise UserError(f"{self.path}, {place}: this is not JSON ({why}); expected {EXPECTED}")

    def _behind(self, position: int) -> tuple[int, int]:
        """How many line ends lie before a position of the text, and how many characters behind the last of them."""
        ends = self.text.count("\n", 0, position)
        last = self.text.rfind("\n", 0, position)
        return self._lines + ends, position - last - 1 if ends else self._columns + position


def _of_list(text: _Text) -> Iterator[tuple[str, Record | BadExample]]:
    decoder, number = _Decoder(), 0
    text.next_sign()
    text.position += 1  # behind the bracket
    more = text.next_sign() != "]"
    while more:
        number += 1
        place = f"record {number}"
        yield place, _of_entry(decoder, text, place)
        sign = text.next_sign()
        if sign not in (",", "]"):
            text.broken(text.position, f"Expecting ',' or ']' behind {place}")
        more = sign == ","
        if more:
            text.position += 1
            text.next_sign()
    text.position += 1
    if text.next_sign():
        text.broken(text.position, "Extra data behind the list")
    if not number:
        raise UserError(f"{text.path}: the list is empty; expected at least one record")


def _of_entry(decoder: _Decoder, text: _Text, place: str) -> Record | BadExample:
    where, start = f"{text.path}, {place}", text.position
    too_long = UserError(f"{where}: the record has more than {MAX_RECORD} characters")
    try:
        record, end = decoder.read(text.text, start, where)
    except json.JSONDecodeError as error:
        cut = error.msg.startswith("Unterminated string") or error.pos > len(text.text) - _CUT
        if cut and not text.ended:
            raise too_long from error
        text.broken(error.pos, error.msg)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: this is {_ABSURD}") from error
    if end - start > MAX_RECORD:
        raise too_long
    text.position = end
    return record
