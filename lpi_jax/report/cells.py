"""Tables as cells, whatever they are written as later."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

ONE_DIGIT = "{:z.1f}"


class Table(NamedTuple):
    """Cells as they are shown.

    Attributes:
      title: what the table is of; "" if that is clear.
      head: the upper head row: what stands over how many columns.
      columns: the lower head row.
      words: how many columns, from the left, are words and not numbers.
    """

    title: str
    head: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: list[list[str]]
    words: int


def spread(numbers: Sequence[float], form: str = ONE_DIGIT) -> str:
    """The mean, with the sample standard deviation if there are several numbers; "" if there is none."""
    if not numbers:
        return ""
    mean = form.format(statistics.mean(numbers))
    return f"{mean} ± {form.replace('+', '').format(statistics.stdev(numbers))}" if len(numbers) > 1 else mean
