"""The rows of a CSV table, each with the line in which it begins, and one sentence for what is no CSV."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TextIO

from lpi_jax.data.examples import SPLITS, shown
from lpi_jax.errors import UserError

_LINE_END = re.compile(r"\r\n|\r|\n")
MAX_LINE = 1_000_000  # characters of a line; of one value, the csv module allows 131,072

_USUAL = {",": "commas", ";": "';'", "\t": "a tab"}
_SPELT = {"tab": "\t", "\\t": "\t"}  # a shell hands on no tab
_REMEDIES = {",": ",", ";": "';'", "\t": "tab"}  # what to write behind --config.data.separator=


def separator(path: str, given: str) -> str:
    """The sign between the columns of a table.

    Args:
      path: the table's file.
      given: the sign, or tab; "": a tab for files called .tsv or .tab, else a comma.

    Raises:
      UserError: that is no sign that could stand between columns.
    """
    if not given:
        return "\t" if path.lower().endswith((".tsv", ".tab")) else ","
    sign = _SPELT.get(given, given)
    if len(sign) != 1 or sign.isalnum() or sign in ' "\r\n\0':
        raise UserError(f"config.data.separator is {given!r}, expected one sign such as ';', or tab")
    return sign


def csv_rows(path: str, file: TextIO, sign: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """(the line in which it begins, from 1; its values) of each row that is not blank.

    A mistake in the quoting ends the table: from there on nobody can tell which value belongs to which row.

    Args:
      path: the file's name, for messages.
      file: the table, opened with newline="". It has several columns.
      sign: what stands between them; None: a comma, a semicolon or a tab, the first of these in the header.

    Raises:
      UserError: the table is no CSV, its header uses another separator, or a line is too long.
    """
    lines = _lines(path, file)
    header = next(lines, "")
    if sign is None:
        sign = next((usual for usual in _USUAL if usual in header), ",")
    _refuse_other_separators(f"{path}, line 1", header.strip(), sign)
    reader, line = csv.reader(chain([header], lines), delimiter=sign, strict=True), 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        said = _in_words(error, line, reader.line_num)
        raise UserError(f"{path}, line {line}: from here on this is not CSV ({said})") from error


def holds_rows(row: Sequence[str], sign: str) -> bool:
    """Whether a value goes over the end of its row: a stray quote opened it, and another one in a later row closed it.

    Such a value holds the end of one row and the beginning of another, and with them the split of one, which is nothing
    but that between separators; a caption of several lines has words there ("a bus, train, and cars").
    """
    lines = (line for value in row if _LINE_END.search(value) for line in _LINE_END.split(value))
    return any(part in SPLITS for line in lines if sign in line for part in line.split(sign))


def _in_words(error: csv.Error, first: int, last: int) -> str:
    """What is wrong with the row that begins in line `first`, as found in line `last`."""
    if "unexpected end of data" in str(error):  # only inside quotes is the end of the file unexpected
        return "a quote in this row is never closed"
    if last > first:  # only a quote makes a row go on in the next line
        return f"a quote in this row is not closed before line {last}: {error}"
    return str(error)


def _lines(path: str, file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise UserError(f"{path}, line {number}: the line has more than {MAX_LINE} characters")
        yield line


def _refuse_other_separators(where: str, header: str, sign: str) -> None:
    """Refuses a header without its separator that has another one, before its quotes are taken for mistakes."""
    other = next((usual for usual in _USUAL if usual in header), None)
    if other and sign not in header:
        raise UserError(
            f"{where}: the header {shown(header)} seems to separate columns by {_USUAL[other]}; expected"
            f" {_USUAL.get(sign, shown(sign))}, or --config.data.separator={_REMEDIES[other]}"
        )
