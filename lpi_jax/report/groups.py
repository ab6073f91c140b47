"""Which runs may be compared: seeds of one configuration are a group, groups on the same galleries a block."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.report.runs import Run, read
from lpi_jax.terminal.plain_text import plain

# What has to be equal for two runs to have been measured on the same galleries of the same backbone.
GALLERIES = ("stream", "data", "data.domains", "data.val", "backbone", "eval.gallery")


class Group(NamedTuple):
    """Runs that differ only in their seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """The method that all of its runs used."""
        return self.runs[0].method

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the finished tasks."""
        return self.runs[0].tasks

    @property
    def routing(self) -> str:
        """How items find their prompts: `inferred`, `given` or `none`."""
        return self.runs[0].routing

    def knows(self, kind: str) -> bool:
        """Whether every run measured `kind`: `recall`, `zero_shot` or `chance`."""
        return all(kind in run.matrices for run in self.runs)

    def matrices(self, kind: str, direction: str) -> np.ndarray:
        """[runs, T, T] recall@1 matrices R[s][t], NaN for t > s; kind: one that it `knows`."""
        return np.stack([run.matrices[kind][direction] for run in self.runs])

    def values(self, kind: str, average: str) -> dict[str, list[float]]:
        """The numbers of one row of the table by name, one for each run."""
        each = [run.numbers[kind, average] for run in self.runs]
        return {name: [numbers[name] for numbers in each if name in numbers] for name in each[0]}

    def confusion(self, side: str) -> np.ndarray | None:
        """[T, T or T + 1] items by true and routed task, summed over the runs; None where no run knows."""
        known = [run.confusion[side] for run in self.runs if side in run.confusion]
        if not known:
            return None
        columns = max(matrix.shape[1] for matrix in known)
        return sum(np.pad(matrix, [(0, 0), (0, columns - matrix.shape[1])]) for matrix in known)


class Block(NamedTuple):
    """Groups measured on the same galleries of the same backbone: what one table compares.

    Attributes:
      zero_shot: groups whose measurement of the frozen backbone the table shows, one per kind of validation picture;
        the first is the one that curves are compared with.
    """

    title: str
    groups: tuple[Group, ...]
    zero_shot: tuple[Group, ...]

    @property
    def guess(self) -> Group | None:
        """The group whose recall of a guess is shown; it is that of the galleries, so any will do."""
        return next((group for group in self.groups if group.knows("chance")), None)

    def counts(self, direction: str) -> tuple[int, int] | None:
        """How many queries the last stage of this direction has, the fewest and the most; None where nobody knows."""
        side = "image" if direction == "image_to_text" else "text"
        found = {sum(run.items[side]) for group in self.groups for run in group.runs if run.items}
        return (min(found), max(found)) if found else None

    def queries(self, direction: str) -> str:
        """The same in words: "300" or "298–300"; "" where nobody knows."""
        return "–".join(str(n) for n in sorted(set(self.counts(direction) or ())))


def compare(directories: Sequence[str | Path]) -> list[Block]:
    """Runs sorted into blocks of comparable groups, in the order given; a directory named twice counts once.

    Raises:
      UserError: a directory without results, or two runs of the same configuration and seeds.
    """
    runs = [read(directory) for directory in {Path(d).resolve(): d for d in directories}.values()]
    blocks = []
    for title, members in _named(runs, GALLERIES, "stream"):
        groups = []
        for label, alike in _named(members, tuple({key: None for run in members for key in run.keys}), "label"):
            _refuse_twice(alike)
            groups.append(Group(label, tuple(alike)))
        # Every run measures the frozen backbone; `released` does so on cropped pictures and with other pixels.
        own = [group for group in groups if group.method == "zero_shot"]
        kinds: dict[str, Group] = {}
        for group in own or sorted(groups, key=lambda g: g.runs[0].keys["eval.transform"]):  # centre before random
            kinds.setdefault(group.runs[0].keys["eval.transform"], group)
        blocks.append(Block(title, tuple(groups), tuple(kinds.values())))
    return blocks


def _named(runs: Sequence[Run], keys: Sequence[str], name: str) -> Iterator[tuple[str, list[Run]]]:
    """Runs with equal `keys` together; each such set is named by its key `name` and, if need be, by what is its own."""
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(json.dumps([run.keys.get(key) for key in keys]), []).append(run)
    for members in sets.values():
        own = members[0].keys
        others = [other[0].keys for other in sets.values() if other[0].keys[name] == own[name]]
        telling = [key for key in keys if any(other.get(key) != own.get(key) for other in others)]
        differences = ", ".join(f"{plain(key)}={_short(own.get(key))}" for key in telling)
        yield plain(own[name]) + (f" ({differences})" if differences else ""), members


def _short(value: Any) -> str:
    text = plain(str(value))
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text[:60]


def _refuse_twice(runs: Sequence[Run]) -> None:
    first: dict[tuple[int, int], Run] = {}
    for run in runs:
        if run.seeds in first:
            raise UserError(
                f"{first[run.seeds].directory} and {run.directory} are the same run (configuration and seeds"
                f" {run.seeds[0]} and {run.seeds[1]}), expected each once"
            )
        first[run.seeds] = run
