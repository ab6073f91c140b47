"""Pictures of runs: how recall on every task develops over the stages of the stream (R[s][t] of the method's protocol).

Matplotlib is the extra [experiments]; nothing but `lpi_jax.report --out` needs it.
"""

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lpi_jax.report import lettering
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.losses import Losses
from lpi_jax.report.runs import DIRECTIONS
from lpi_jax.report.tables import WORDS
from lpi_jax.terminal.plain_text import plain, width

# Okabe and Ito's colours, which the colour-blind can tell apart, and a marker each.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"))
GREY = "#555555"
MOST_NUMBERS = 16  # tasks: above that, numbers in the cells cannot be read
MOST_NAMES = 40  # tasks: above that, names at the axes cannot be read


def highest(groups: Iterable[Group]) -> float:
    """The highest recall@1 of all, per cent: where the colours of a report's heat maps end."""
    found = [np.nanmax(group.matrices("recall", d).mean(0)) for group in groups for d in DIRECTIONS]
    return max(1.0, *map(float, found))


def renamed(group: Group) -> str:
    """For a caption: which names stand otherwise in the pictures, or nothing."""
    pairs = zip(lettering.names(group.tasks), map(plain, group.tasks), strict=True)
    told = [f"{shown} is {name}" for shown, name in pairs if shown != name]
    return f" ({'; '.join(told)})" if told else ""


def heat_maps(group: Group, top: float) -> bytes:
    """PNG: recall@1 of every task (columns) after every stage (rows), both directions, mean over the group's runs.

    Args:
      top: per cent, from `highest`: the same colour is the same recall in every picture of a report.
    """
    tasks = lettering.names(group.tasks)
    with lettering.drawn([group.label, *tasks]):
        figure, panels = _matrices(len(tasks), tasks)
        for panel, direction in zip(panels, DIRECTIONS, strict=True):
            image = _matrix(panel, group.matrices("recall", direction).mean(0), top)
            panel.set_title(_titled(group.runs[0].items, group, direction), fontsize=10)
            panel.set_xlabel("recall on task")
            _name(panel.xaxis, tasks, rotation=45, ha="right", rotation_mode="anchor")
        panels[0].set_ylabel("after learning")
        _name(panels[0].yaxis, tasks)
        figure.colorbar(image, ax=panels, label="R@1, per cent", shrink=0.8)
        return _png(figure, group.label + _of(group))


def routing(group: Group) -> bytes:
    """PNG: where images and captions of every task (rows) were routed to (columns) in the end, per cent of a row."""
    tasks = lettering.names(group.tasks)
    counts = {"images": group.confusion("image"), "captions": group.confusion("text")}
    columns = max(matrix.shape[1] for matrix in counts.values())
    with lettering.drawn([group.label, *tasks]):
        figure, panels = _matrices(columns, tasks)
        for panel, (side, matrix) in zip(panels, counts.items(), strict=True):
            image = _matrix(panel, 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1), 100.0)
            # As in the table: the mean over tasks, which differ in their numbers of items.
            right = 100 * np.mean(np.diagonal(matrix) / np.maximum(matrix.sum(1), 1))
            panel.set_title(f"{side}, n = {matrix.sum():.0f}\n{right:.1f} % right, mean over tasks", fontsize=10)
            panel.set_xlabel("routed to")
            named = [*tasks, *["none"] * (matrix.shape[1] - len(tasks))]
            _name(panel.xaxis, named, rotation=45, ha="right", rotation_mode="anchor")
        panels[0].set_ylabel("true task")
        _name(panels[0].yaxis, tasks)
        figure.colorbar(image, ax=panels, label="per cent of the task's items", shrink=0.8)
        together = f" ({len(group.runs)} runs together)" if len(group.runs) > 1 else ""
        return _png(figure, group.label + together)


def _matrices(columns: int, tasks: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with room for two matrices and the names beside them."""
    cells = 0.45 * min(max(columns, 5), 24)
    letters = 0.085 * max(map(width, tasks))  # inches that the longest name takes
    figure = _figure(2 * cells + letters + 2.6, cells + 0.7 * letters + 1.9, "compressed")  # for squares
    panels = figure.subplots(1, 2, sharey=True)
    panels[1].tick_params(left=False)
    return figure, panels


def _matrix(panel: Axes, matrix: np.ndarray, top: float) -> AxesImage:
    """Draws per cents as colours and, where they can be read, as numbers; NaN stays empty."""
    image = panel.imshow(matrix, cmap="Blues", vmin=0, vmax=top)
    panel.spines[:].set_visible(False)
    if max(matrix.shape) <= MOST_NUMBERS:
        for s, t in np.argwhere(~np.isnan(matrix)):
            colour = "white" if matrix[s, t] > 0.6 * top else "black"
            panel.text(t, s, f"{matrix[s, t]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    return image


def _name(axis: Axis, tasks: Sequence[str], **how: Any) -> None:
    """Names at an axis; of very many only some."""
    every = math.ceil(len(tasks) / MOST_NAMES)
    axis.set_ticks(range(0, len(tasks), every), tasks[::every], fontsize=9, **how)


def _titled(items: dict[str, list[int]], group: Group, direction: str) -> str:
    """The direction, how many queries it has, and what a guess finds."""
    side = "image" if direction == "image_to_text" else "text"
    queries = f", n = {sum(items[side])}" if items else ""
    if not group.knows("chance"):
        return WORDS[direction] + queries
    guess = float(np.mean(group.matrices("chance", direction)[:, -1]))
    return f"{WORDS[direction]}{queries}\nchance at the end {guess:.1f} %"


def curves(block: Block) -> bytes:
    """PNG: mean recall@1 over the tasks seen so far by stage, a line per group, the frozen backbone's and a guess's.

    With several runs the band is one sample standard deviation to either side.
    """
    learners = [group for group in block.groups if group.method != "zero_shot"]
    labels = [lettering.line(group.label + _of(group), 90) for group in learners]
    with lettering.drawn([block.title, *labels]):
        columns = max(1, min(3, 110 // (max(map(len, labels), default=0) + 10)))
        lines = sum(1 + label.count("\n") for label in labels) + 2
        figure = _figure(10, 4.4 + 0.22 * math.ceil(lines / columns))
        panels = figure.subplots(1, 2, sharey=True)
        for panel, direction in zip(panels, DIRECTIONS, strict=True):
            for number, (group, label) in enumerate(zip(learners, labels, strict=True)):
                colour, marker = STYLES[number % len(STYLES)]
                stages, mean, spread = _per_stage(group, "recall", direction)
                panel.plot(stages, mean, color=colour, marker=marker, markersize=5, label=label)
                if len(group.runs) > 1:
                    panel.fill_between(stages, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
            stages, mean, _ = _per_stage(block.zero_shot[0], "zero_shot", direction)
            panel.plot(stages, mean, color=GREY, linestyle="--", label="zero-shot (frozen backbone)")
            if block.guess:
                stages, mean, _ = _per_stage(block.guess, "chance", direction)
                panel.plot(stages, mean, color=GREY, linestyle=":", label="chance")
            queries = block.queries(direction)
            panel.set_title(WORDS[direction] + (f", n = {queries} at the end" if queries else ""), fontsize=11)
            panel.set_xlabel("tasks seen so far")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.grid(axis="y", color="#dddddd")
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylim(bottom=0)  # once both are drawn: they share the axis, and setting it ends its scaling
        panels[0].set_ylabel("mean R@1 over these tasks, per cent")
        handles, shown = panels[0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False)
        return _png(figure, block.title)


def losses(group: Group, found: Sequence[Losses]) -> bytes:
    """PNG: every term of the loss over the steps, a panel each and a line per run; upright lines where tasks end."""
    terms = sorted({name for own in found for name in own.terms}, key=lambda name: (name != "loss", name))
    first = found[0]
    starts = [i for i, task in enumerate(first.tasks) if i == 0 or task != first.tasks[i - 1]]
    every = list(
        dict.fromkeys([*group.tasks, *first.tasks])
    )  # numbered as in the other pictures; one may be unfinished
    named = dict(zip(every, lettering.names(every), strict=True))
    tasks = [named[first.tasks[i]] for i in starts]
    with lettering.drawn([group.label, *tasks, *terms]):
        across = min(2, len(terms))
        down = math.ceil(len(terms) / across)
        figure = _figure(5.5 * across, 2.2 * down + 1.8)
        panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
        for number, (panel, term) in enumerate(zip(panels, terms, strict=False)):
            for own in found:
                if term in own.terms:
                    values = own.terms[term]
                    panel.plot(own.steps, values, color=STYLES[0][0], linewidth=1, alpha=0.9 / len(found) ** 0.5)
            for i in starts[1:]:
                panel.axvline((first.steps[i - 1] + first.steps[i]) / 2, color="#bbbbbb", linewidth=0.8)
            panel.set_ylabel(lettering.line(term, 30))
            panel.spines[["top", "right"]].set_visible(False)
            if number < across and len(tasks) <= MOST_NUMBERS:
                ends = [*starts[1:], len(first.steps)]
                middles = [(first.steps[i] + first.steps[j - 1]) / 2 for i, j in zip(starts, ends, strict=True)]
                above = panel.secondary_xaxis("top")
                above.set_xticks(middles, tasks, rotation=45, ha="left", rotation_mode="anchor", fontsize=9)
                above.tick_params(length=0)
                above.spines["top"].set_visible(False)
        for panel in panels[len(terms) :]:
            panel.remove()
        for panel in panels[max(0, len(terms) - across) : len(terms)]:
            panel.set_xlabel("step")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.tick_params(labelbottom=True)
        return _png(figure, group.label)


def _per_stage(group: Group, kind: str, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of tasks seen, and over the runs mean and deviation of the mean recall on them."""
    found = np.nanmean(group.matrices(kind, direction), axis=2)
    spread = found.std(0, ddof=1) if len(found) > 1 else np.zeros(found.shape[1])
    return np.arange(1, found.shape[1] + 1), found.mean(0), spread


def _of(group: Group) -> str:
    return f" (mean of {len(group.runs)} runs)" if len(group.runs) > 1 else ""


def _figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure, inches; made without pyplot, so that no display is looked for and nothing stays open."""
    return Figure(figsize=(width, height), layout=layout)


def _png(figure: Figure, title: str) -> bytes:
    figure.suptitle(lettering.line(title, int(10 * figure.get_figwidth())))
    data = io.BytesIO()
    # Without the version of matplotlib in the file the same runs give the same bytes.
    figure.savefig(data, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return data.getvalue()
