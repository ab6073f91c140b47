"""Which runs may be compared: what differs in its seeds only is averaged, what was measured alike is one table."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lpi_jax.errors import UserError
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.runs import Run, read
from lpi_jax.terminal.plain_text import plain

OF_PROBLEM = ("metrics", "items")
# What has to be equal for two runs to have measured the same of the same backbone on the same items.
OF_ITEMS = ("stream", "data", "data.domains", "data.val", "eval.gallery", "eval.equal_texts")
MEASURED_ALIKE = ("problem", *OF_PROBLEM, "backbone", *OF_ITEMS)


def compare(directories: Sequence[str | Path]) -> list[Block]:
    """Runs sorted into blocks of comparable groups, in the order given; a directory named twice counts once.

    Raises:
      UserError: a directory without results, or two runs of the same configuration and seeds.
    """
    runs = [read(directory) for directory in {Path(d).resolve(): d for d in directories}.values()]
    blocks = []
    for title, members in _named(runs, MEASURED_ALIKE, "stream"):
        groups = []
        for label, alike in _named(members, tuple({key: None for run in members for key in run.keys}), "label"):
            _refuse_twice(alike)
            groups.append(Group(label, tuple(alike)))
        # Every run measures the frozen backbone; some prepare the items otherwise, which makes it another one.
        untrained = [group for group in groups if not group.trains]
        kinds: dict[str, Group] = {}
        for group in untrained or sorted(groups, key=_preparation):  # centre before random
            kinds.setdefault(_preparation(group), group)
        blocks.append(Block(title, tuple(groups), tuple(kinds.values())))
    return blocks


def _preparation(group: Group) -> str:
    return group.runs[0].keys["eval.transform"]


def _named(runs: Sequence[Run], keys: Sequence[str], name: str) -> Iterator[tuple[str, list[Run]]]:
    """Runs with equal `keys` together, each set named by its key `name` and, if need be, by what tells it apart."""
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(json.dumps([run.keys.get(key) for key in keys]), []).append(run)
    for members in sets.values():
        mine = members[0].keys
        namesakes = [others[0].keys for others in sets.values() if others[0].keys[name] == mine[name]]
        telling = [key for key in keys if any(_tells(key, mine, other) for other in namesakes)]
        differences = ", ".join(f"{plain(key)}={_short(mine.get(key))}" for key in telling)
        yield plain(mine[name]) + (f" ({differences})" if differences else ""), members


def _tells(key: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of runs differ in this key, and not only because their problems differ."""
    implied = key in OF_PROBLEM and one["problem"] != other["problem"]
    return one.get(key) != other.get(key) and not implied


def _short(value: Any) -> str:
    text = plain(" + ".join(value) if isinstance(value, dict) else str(value))
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
