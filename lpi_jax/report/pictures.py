"""All pictures of a report: of each block its curves, of each group heat maps, routing and losses."""

import re
from collections.abc import Sequence

from lpi_jax.report import curves, drawing, heat_maps, losses
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.metrics import Metric
from lpi_jax.report.page import Picture


def pictures(blocks: Sequence[Block]) -> tuple[list[Picture], list[list[Picture]]]:
    """A picture of each block, and those of each group, in the order of blocks and groups."""
    colours = heat_maps.scales(group for block in blocks for group in block.groups)
    taken: set[str] = set()
    overviews, details = [], []
    for block in blocks:
        against = "the frozen backbone and a guess" if block.guess else "the frozen backbone"
        shows = f"{block.title}: {_names(block.headlines)} over the tasks seen so far, against {against}"
        overviews.append(Picture(_file(taken, f"{block.title} stages"), shows, curves.curves(block)))
        details += [_of_group(block, group, colours, taken) for group in block.groups]
    return overviews, details


def _of_group(block: Block, group: Group, colours: heat_maps.Scales, taken: set[str]) -> list[Picture]:
    stem, title = f"{block.title} {group.label}", f"{block.title}, {group.label}"
    shows = f"{title}: {_names(group.headlines)} of every task after every stage{drawing.renamed(group)}"
    drawn = [Picture(_file(taken, stem), shows, heat_maps.heat_maps(group, colours))]
    if any(group.confusion(side) is not None for side in group.sides):
        shows = f"{title}: where the items of every task were routed to after the last one"
        drawn.append(Picture(_file(taken, f"{stem} routing"), shows, heat_maps.routing(group)))
    if logged := [log for run in group.runs if (log := losses.read(run.directory))]:
        shows = f"{title}: the terms of the loss, a line per run; upright lines are the ends of tasks"
        drawn.append(Picture(_file(taken, f"{stem} loss"), shows, curves.losses(group, logged)))
    return drawn


def _names(metrics: Sequence[Metric]) -> str:
    return ", ".join(dict.fromkeys(metric.label for metric in metrics))


def _file(taken: set[str], title: str) -> str:
    """A file name made of a title's letters and digits, not yet taken."""
    stem = re.sub(r"[^a-z0-9.=]+", "-", title.lower()).strip("-.")[:100] or "picture"
    number = 1
    while (name := f"{stem}{f'-{number}' if number > 1 else ''}.png") in taken:
        number += 1
    taken.add(name)
    return name
