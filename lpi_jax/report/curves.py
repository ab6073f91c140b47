"""Curves as pictures: how every headline metric develops over the stages of the stream, and the terms of the loss."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from lpi_jax.report import drawing, lettering
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.heat_maps import MOST_NUMBERS
from lpi_jax.report.losses import Losses
from lpi_jax.report.metrics import Metric


def curves(block: Block) -> bytes:
    """PNG: every headline metric by stage, mean over the tasks seen so far, a panel each.

    A line per group, the frozen backbone's and a guess's. With several runs the band is one sample standard deviation
    to either side.
    """
    metrics = block.headlines
    alike = len({metric.quantity for metric in metrics}) == 1
    width = max(5 * len(metrics), 7)
    learners = [group for group in block.groups if group.trains]
    labels = [lettering.line(group.label + drawing.mean_of(group), 9 * width) for group in learners]
    words = [word for metric in metrics for word in (metric.label, metric.group, metric.unit)]
    with lettering.drawn([block.title, *labels, *words]):
        columns = max(1, min(3, 11 * width // (max(map(len, labels), default=0) + 10)))
        lines = sum(1 + label.count("\n") for label in labels) + 2
        figure = drawing.figure(width, 4.4 + 0.22 * math.ceil(lines / columns))
        panels = figure.subplots(1, len(metrics), sharey=alike, squeeze=False)[0]
        for panel, metric in zip(panels, metrics, strict=True):
            _draw(panel, block, metric, dict(zip(labels, learners, strict=True)))
        # Once all are drawn: they may share the axis, and setting it ends its scaling.
        lowest = [min(line.get_ydata().min() for line in panel.get_lines()) for panel in panels]
        for panel, metric, low in zip(panels, metrics, [min(lowest)] if alike else lowest, strict=False):
            if low >= 0:
                panel.set_ylim(bottom=0)
            panel.set_ylabel(lettering.line(f"mean {metric.label} over these tasks{_unit(metric)}", 60))
        handles, shown = panels[0].get_legend_handles_labels()
        figure.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False)
        return drawing.png(figure, block.title)


def _unit(metric: Metric) -> str:
    return f", {metric.unit_in_words}" if metric.unit else ""


def _draw(panel: Axes, block: Block, metric: Metric, learners: dict[str, Group]) -> None:
    """One metric: a line per group by its label, and what they are compared with."""
    for number, (label, group) in enumerate(learners.items()):
        colour, marker = drawing.STYLES[number % len(drawing.STYLES)]
        stages, mean, spread = _per_stage(group, "measured", metric)
        panel.plot(stages, mean, color=colour, marker=marker, markersize=5, label=label)
        if len(group.runs) > 1:
            panel.fill_between(stages, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    stages, mean, _ = _per_stage(block.frozen[0], "frozen", metric)
    panel.plot(stages, mean, color=drawing.GREY, linestyle="--", label="zero-shot (frozen backbone)")
    if block.guess and block.guess.knows("chance", metric):
        stages, mean, _ = _per_stage(block.guess, "chance", metric)
        panel.plot(stages, mean, color=drawing.GREY, linestyle=":", label="chance")
    panel.set_title(f"{drawing.label(metric.group)}, n = {block.n(metric)} at the end", fontsize=11)
    panel.set_xlabel("tasks seen so far")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(axis="y", color="#dddddd")
    panel.spines[["top", "right"]].set_visible(False)


def _per_stage(group: Group, kind: str, metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[T] number of tasks seen, and [T] mean and deviation over the runs of the mean value on them."""
    means = np.nanmean(group.matrices(kind, metric), axis=2)
    spread = means.std(0, ddof=1) if len(means) > 1 else np.zeros(means.shape[1])
    return np.arange(1, means.shape[1] + 1), means.mean(0), spread


def losses(group: Group, logged: Sequence[Losses]) -> bytes:
    """PNG: every term of the loss over the steps, a panel each and a line per run; upright lines where tasks end."""
    terms = sorted({name for log in logged for name in log.terms}, key=lambda name: (name != "loss", name))
    first = logged[0]
    starts = [i for i, task in enumerate(first.tasks) if i == 0 or task != first.tasks[i - 1]]
    every = list(dict.fromkeys([*group.tasks, *first.tasks]))  # numbered as in the other pictures; one is unfinished
    named = dict(zip(every, lettering.names(every), strict=True))
    tasks = [named[first.tasks[i]] for i in starts]
    with lettering.drawn([group.label, *tasks, *terms]):
        across = min(2, len(terms))
        down = math.ceil(len(terms) / across)
        figure = drawing.figure(5.5 * across, 2.2 * down + 1.8)
        panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
        for number, (panel, term) in enumerate(zip(panels, terms, strict=False)):
            _draw_term(panel, term, logged)
            for i in starts[1:]:
                panel.axvline((first.steps[i - 1] + first.steps[i]) / 2, color="#bbbbbb", linewidth=0.8)
            if number < across and len(tasks) <= MOST_NUMBERS:
                ends = [*starts[1:], len(first.steps)]
                middles = [(first.steps[i] + first.steps[j - 1]) / 2 for i, j in zip(starts, ends, strict=True)]
                _name_above(panel, middles, tasks)
        for panel in panels[len(terms) :]:
            panel.remove()
        for panel in panels[max(0, len(terms) - across) : len(terms)]:
            panel.set_xlabel("step")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.tick_params(labelbottom=True)
        return drawing.png(figure, group.label)


def _draw_term(panel: Axes, term: str, logged: Sequence[Losses]) -> None:
    for log in logged:
        if term in log.terms:
            opacity = 0.9 / len(logged) ** 0.5
            panel.plot(log.steps, log.terms[term], color=drawing.STYLES[0][0], linewidth=1, alpha=opacity)
    panel.set_ylabel(lettering.line(term, 30))
    panel.spines[["top", "right"]].set_visible(False)


def _name_above(panel: Axes, middles: Sequence[float], tasks: Sequence[str]) -> None:
    """Names of tasks above a panel, each in the middle of the task's steps."""
    above = panel.secondary_xaxis("top")
    above.set_xticks(middles, tasks, rotation=45, ha="left", rotation_mode="anchor", fontsize=9)
    above.tick_params(length=0)
    above.spines["top"].set_visible(False)
