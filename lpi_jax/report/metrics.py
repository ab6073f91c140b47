"""What a run measures: metrics by name, each with all that a table or a picture has to know about it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lpi_jax.report.checked import PER_CENT, a_dict, text, truth
from lpi_jax.terminal.plain_text import plain

# Who answered: the method, the frozen backbone on the same items, a guess.
KINDS = ("measured", "frozen", "chance")
AVERAGES = ("incremental", "final")


class Metric(NamedTuple):
    """One metric of the results.

    Attributes:
      name: "PART/LABEL" or one word; no two metrics have the same.
      label: what its columns and axes are called.
      group, short: metrics of one group stand under one header; the group in words and in a few letters.
      unit: "%" or another one; "" where it has none.
      side: the items on which it is measured, a key of the results' `items`.
    """

    name: str
    label: str
    group: str
    short: str
    unit: str
    higher_is_better: bool
    side: str

    @property
    def column(self) -> str:
        """The name of its column where every digit is written."""
        return plain(self.name.replace("/", " "))

    def column_of(self, who: str) -> str:
        """The same for the values of a guess or of the frozen backbone."""
        part, _, last = self.name.rpartition("/")
        return plain(f"{part.replace('/', ' ')} {who} {last}")

    @property
    def group_column(self) -> str:
        """What columns about its whole group begin with."""
        return self.group.replace(" ", "_")

    @property
    def quantity(self) -> tuple[str, str, bool]:
        """Metrics with the same one may share an axis and its colours."""
        return self.label, self.unit, self.higher_is_better

    @property
    def unit_in_words(self) -> str:
        """The unit as in a sentence; "" where it has none."""
        return "per cent" if self.unit == PER_CENT else self.unit

    @property
    def axis(self) -> str:
        """What stands at an axis: the label and the unit."""
        return ", ".join(filter(None, (self.label, self.unit_in_words)))

    @property
    def form(self) -> str:
        """How a number stands in a table."""
        return "{:z.1f}" if self.unit == PER_CENT else "{:z.3g}"

    @property
    def signed_form(self) -> str:
        """How a difference stands in a table."""
        return self.form.replace("{:", "{:+")

    @property
    def short_form(self) -> str:
        """How a number stands where there is little room."""
        return "{:.0f}" if self.unit == PER_CENT else "{:.2g}"


def described(entries: Any) -> tuple[Metric, ...]:
    """The metrics of `metrics` in results.json in the order in which they are shown; those of a group together.

    Raises:
      KeyError, TypeError, ValueError: there are none, or a description is not as a run writes it.
    """
    metrics = [_described(name, entry) for name, entry in a_dict(entries).items()]
    columns = {metric.column for metric in metrics}
    if not metrics or len(columns) != len(metrics):
        raise ValueError("expected metrics, each with a name of its own")
    together: dict[str, list[Metric]] = {}
    for metric in metrics:
        together.setdefault(metric.group, []).append(metric)
    for group, members in together.items():
        if len({(metric.short, metric.side) for metric in members}) > 1:
            raise ValueError(f"the metrics of {group!r} are not measured on the same items")
    if len({metric.group_column for metric in metrics}) != len(together):
        raise ValueError("expected groups of metrics with names of their own")
    return tuple(metric for members in together.values() for metric in members)


def headlines(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The first metric of each group."""
    first: dict[str, Metric] = {}
    for metric in metrics:
        first.setdefault(metric.group, metric)
    return tuple(first.values())


def _described(name: str, entry: Any) -> Metric:
    words = {key: text(entry[key]) for key in ("label", "group", "short", "side")}
    if empty := [key for key, word in {"name": text(name), **words}.items() if not word]:
        raise ValueError(f"a metric's {empty[0]} is empty")
    better = truth(entry["higher_is_better"])
    return Metric(name=name, unit=text(entry["unit"]), higher_is_better=better, **words)
