"""Sentences about runs: what their results remark, and with which seeds they were made."""

from collections.abc import Sequence

from lpi_jax.report.groups import Group
from lpi_jax.report.runs import Run

MOST = 20  # of one group


def of_group(group: Group) -> list[str]:
    """The remarks of a group's runs, each once; where only some of several runs have one, their seeds stand before."""
    having: dict[str, list[Run]] = {}
    for run in group.runs:
        for remark in dict.fromkeys(run.remarks):
            having.setdefault(remark, []).append(run)
    told = [remark if len(runs) == len(group.runs) else f"{seeds(runs)}: {remark}" for remark, runs in having.items()]
    return told if len(told) <= MOST else [*told[:MOST], f"and {len(told) - MOST} more"]


def seeds(runs: Sequence[Run]) -> str:
    """Which seeds runs were made with, those of training and those of the data: "seeds 0, 1; data seed 0"."""
    parts = []
    for name, values in (("seed", [run.seeds[0] for run in runs]), ("data seed", [run.seeds[1] for run in runs])):
        once = list(dict.fromkeys(values))
        parts.append(f"{name} {once[0]}" if len(once) == 1 else f"{name}s {', '.join(map(str, values))}")
    return "; ".join(parts)
