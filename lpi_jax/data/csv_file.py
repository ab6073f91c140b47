"""The rows of a CSV table, each with the line in which it begins, and one sentence for what is no CSV."""

import csv
from collections.abc import Iterator
from typing import TextIO

from lpi_jax.data.examples import shown
from lpi_jax.errors import UserError

MAX_LINE = 1_000_000  # characters of a line; of one value, the csv module allows 131,072

_OTHER_SEPARATORS = {";": "';'", "\t": "a tab"}


def csv_rows(path: str, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """(the line in which it begins, from 1; its values) of each row that is not blank.

    A mistake in the quoting ends the table: from there on nobody can tell which value belongs to which row.

    Args:
      path: the file's name, for messages.
      file: the table, opened with newline="". Columns are separated by commas, and there are several.

    Raises:
      UserError: the table is no CSV, its header uses another separator, or a line is too long.
    """
    reader, line = csv.reader(_lines(path, file), strict=True), 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        said = _in_words(error, line, reader.line_num)
        raise UserError(f"{path}, line {line}: from here on this is not CSV ({said})") from error


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
        if number == 1:
            _refuse_other_separators(f"{path}, line 1", line.strip())
        yield line


def _refuse_other_separators(where: str, header: str) -> None:
    """Refuses a header without commas that has another separator, before its quotes are taken for mistakes."""
    other = next((name for sign, name in _OTHER_SEPARATORS.items() if sign in header), None)
    if other and "," not in header:
        raise UserError(f"{where}: the header {shown(header)} seems to separate columns by {other}; expected commas")
