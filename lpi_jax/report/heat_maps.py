"""Matrices as pictures: every headline metric on every task after every stage, and where items were routed to."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lpi_jax.report import drawing, lettering
from lpi_jax.report.checked import PER_CENT
from lpi_jax.report.groups import Group
from lpi_jax.report.metrics import Metric
from lpi_jax.terminal.plain_text import width

MOST_NUMBERS = 16  # tasks: above that, numbers in the cells cannot be read
Range = tuple[float, float]
Scales = dict[tuple[str, str, bool], Range]


def scales(groups: Iterable[Group]) -> Scales:
    """Quantity -> lowest and highest value, so that a colour is the same value in all pictures of these groups."""
    values: dict[Metric, list[float]] = {}
    for group in groups:
        for metric in group.headlines:
            mean = group.matrices("measured", metric).mean(0)
            values.setdefault(metric, []).extend([float(np.nanmin(mean)), float(np.nanmax(mean))])
    ranges: Scales = {}
    for metric, known in values.items():
        low, high = ranges.get(metric.quantity, (0.0, 1.0 if metric.unit == PER_CENT else 0.0))
        ranges[metric.quantity] = min(low, *known), max(high, *known)
    return {quantity: (low, high if high > low else low + 1) for quantity, (low, high) in ranges.items()}


def heat_maps(group: Group, colours: Scales) -> bytes:
    """PNG: every headline metric on every task (columns) after every stage (rows), mean over the group's runs.

    Args:
      colours: from `scales`; dark is good, also where a low value is.
    """
    tasks = lettering.names(group.tasks)
    metrics = group.headlines
    alike = len({metric.quantity for metric in metrics}) == 1
    with lettering.drawn([group.label, *tasks, *(word for m in metrics for word in (m.label, m.group, m.unit))]):
        figure, panels = _panels(len(metrics), len(tasks), tasks, 1 if alike else len(metrics))
        for panel, metric in zip(panels, metrics, strict=True):
            matrix = group.matrices("measured", metric).mean(0)
            shades = _matrix(panel, matrix, colours[metric.quantity], metric.short_form, metric.higher_is_better)
            panel.set_title(_titled(group, metric), fontsize=10)
            panel.set_xlabel(drawing.label(f"{metric.label} on task"))
            drawing.name(panel.xaxis, tasks, rotation=45, ha="right", rotation_mode="anchor")
            if not alike:
                figure.colorbar(shades, ax=panel, label=drawing.label(metric.axis), shrink=0.8)
        panels[0].set_ylabel("after learning")
        drawing.name(panels[0].yaxis, tasks)
        if alike:
            figure.colorbar(shades, ax=panels, label=drawing.label(metrics[0].axis), shrink=0.8)
        return drawing.png(figure, group.label + drawing.mean_of(group))


def routing(group: Group) -> bytes:
    """PNG: where the items of every task (rows) were routed to (columns) in the end, per cent of a row; a panel a side.

    Of a group with some confusion.
    """
    tasks = lettering.names(group.tasks)
    known = [(label, group.confusion(side), group.among(side)) for side, label in group.sides.items()]
    counts = [(drawing.label(label), matrix, among) for label, matrix, among in known if matrix is not None]
    columns = max(matrix.shape[1] for _, matrix, _ in counts)
    with lettering.drawn([group.label, *tasks, *(label for label, *_ in counts)]):
        figure, panels = _panels(len(counts), columns, tasks)
        for panel, (label, matrix, among) in zip(panels, counts, strict=True):
            shades = _matrix(panel, 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1), (0.0, 100.0))
            # As in the table: the mean over tasks, which differ in their numbers of items.
            right = 100 * np.mean(np.diagonal(matrix) / np.maximum(matrix.sum(1), 1))
            title = f"{label}, n = {matrix.sum():.0f}\n{right:.1f} % right, mean over tasks"
            if among:
                title += f"\n{np.mean(among):.1f} % with their own among those chosen"
            panel.set_title(title, fontsize=10)
            panel.set_xlabel("best of those chosen" if among else "routed to")
            named = [*tasks, *["none"] * (matrix.shape[1] - len(tasks))]
            drawing.name(panel.xaxis, named, rotation=45, ha="right", rotation_mode="anchor")
        panels[0].set_ylabel("true task")
        drawing.name(panels[0].yaxis, tasks)
        figure.colorbar(shades, ax=panels, label="per cent of the task's items", shrink=0.8)
        together = f" ({len(group.runs)} runs together)" if len(group.runs) > 1 else ""
        return drawing.png(figure, group.label + together)


def _panels(number: int, columns: int, tasks: Sequence[str], bars: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure with room for so many matrices side by side, the names beside them and bars of colours."""
    cells = 0.45 * min(max(columns, 5), 24)
    letters = 0.085 * max(map(width, tasks))  # inches that the longest name takes
    size = number * cells + letters + 1.6 + bars, cells + 0.7 * letters + 1.9
    figure = drawing.figure(*size, "compressed")  # for squares
    panels = figure.subplots(1, number, sharey=True, squeeze=False)[0]
    for panel in panels[1:]:
        panel.tick_params(left=False)
    return figure, panels


def _matrix(
    panel: Axes, matrix: np.ndarray, between: Range, form: str = "{:.0f}", dark_is_high: bool = True
) -> ScalarMappable:
    """Draws values as colours and, where they can be read, as numbers; NaN stays empty."""
    low, high = between
    shades = panel.imshow(matrix, cmap="Blues" if dark_is_high else "Blues_r", vmin=low, vmax=high)
    panel.spines[:].set_visible(False)
    if max(matrix.shape) <= MOST_NUMBERS:
        for s, t in np.argwhere(~np.isnan(matrix)):
            height = (matrix[s, t] - low) / (high - low)
            colour = "white" if (height if dark_is_high else 1 - height) > 0.6 else "black"
            panel.text(t, s, form.format(matrix[s, t]), ha="center", va="center", fontsize=8, color=colour)
    return shades


def _titled(group: Group, metric: Metric) -> str:
    """The metric's group, on how many items it is measured, and what a guess finds."""
    title = f"{drawing.label(metric.group)}, n = {sum(group.runs[0].items[metric.side])}"
    if not group.knows("chance", metric):
        return title
    guess = metric.form.format(float(np.mean(group.matrices("chance", metric)[:, -1])))
    return f"{title}\n{drawing.label(f'chance at the end {guess} {metric.unit}'.rstrip())}"
