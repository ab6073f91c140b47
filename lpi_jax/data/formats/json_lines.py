"""The lines of a JSON Lines file that nobody vouches for: read one by one, each under a size limit."""

import codecs
from collections.abc import Callable, Iterator

from lpi_jax.errors import UserError
from lpi_jax.files import require_file

MAX_LINE_BYTES = 1_000_000


def numbered_lines(path: str, update: Callable[[bytes], object], one: str) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, bytes or None if too long) of the lines that are not blank; `update` sees every byte.

    Args:
      one: what each line stands for, for messages.

    Raises:
      UserError: no such file, an empty one, or one that cannot be read.
    """
    try:
        require_file(path, f"a JSON Lines file, one line per {one}")
        with open(path, "rb") as file:
            number = 0
            while piece := file.readline(MAX_LINE_BYTES + 1):
                update(piece)
                number += 1
                line = piece if len(piece) <= MAX_LINE_BYTES or piece.endswith(b"\n") else None
                while not piece.endswith(b"\n") and (piece := file.readline(MAX_LINE_BYTES)):
                    update(piece)
                if number == 1 and line is not None:
                    line = line.removeprefix(codecs.BOM_UTF8)  # the mark some editors put at the start of UTF-8
                if line is None or line.strip():
                    yield number, line
            if number == 0:
                raise UserError(f"{path}: the file is empty; expected one line per {one}")
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error
