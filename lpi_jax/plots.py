"""Pictures of runs: how recall on every task develops over the stages of the stream (R[s][t] of the method's protocol).

Matplotlib is the extra [experiments]; nothing but `lpi_jax.report --out` needs it.
"""

import io
from typing import TYPE_CHECKING

import numpy as np

from lpi_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lpi_jax.report import Block, Group

DIRECTIONS = {"image_to_text": "image to text", "text_to_image": "text to image"}
# Okabe and Ito's colours, which the colour-blind can tell apart, and a marker each.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"))
GREY = "#555555"
MOST_NUMBERS = 16  # tasks: above that, numbers in the cells cannot be read


def heat_maps(group: "Group") -> bytes:
    """PNG: recall@1 of every task (columns) after every stage (rows), both directions, mean over the group's runs."""
    tasks = group.runs[0].result["tasks"]
    matrices = {direction: group.matrices("recall", direction).mean(0) for direction in DIRECTIONS}
    top = max(1.0, max(float(np.nanmax(matrix)) for matrix in matrices.values()))
    side = 2.2 + 0.42 * min(len(tasks), 24)
    figure = _figure(2 * side + 1.2, side + 0.6)
    panels = figure.subplots(1, 2)
    for panel, (direction, matrix) in zip(panels, matrices.items(), strict=True):
        image = panel.imshow(matrix, cmap="Blues", vmin=0, vmax=top)
        panel.set_title(DIRECTIONS[direction], fontsize=11)
        panel.set_xticks(range(len(tasks)), tasks, rotation=45, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(len(tasks)), tasks)
        panel.set_xlabel("recall on task")
        panel.set_ylabel("after learning")
        panel.spines[:].set_visible(False)
        if len(tasks) <= MOST_NUMBERS:
            for s, t in zip(*np.tril_indices(len(tasks)), strict=True):
                colour = "white" if matrix[s, t] > 0.6 * top else "black"
                panel.text(t, s, f"{matrix[s, t]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=panels, label="R@1, per cent", shrink=0.8)
    figure.suptitle(group.label + _of(group))
    return _png(figure)


def curves(block: "Block") -> bytes:
    """PNG: mean recall@1 over the tasks seen so far, stage by stage, a line per group, and the frozen backbone's.

    With several runs the band is one sample standard deviation to either side.
    """
    learners = [group for group in block.groups if group.runs[0].result["method"] != "zero_shot"]
    figure = _figure(10, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, direction in zip(panels, DIRECTIONS, strict=True):
        for number, group in enumerate(learners):
            colour, marker = STYLES[number % len(STYLES)]
            stages, mean, spread = _per_stage(group, "recall", direction)
            panel.plot(stages, mean, color=colour, marker=marker, markersize=5, label=group.label + _of(group))
            if len(group.runs) > 1:
                panel.fill_between(stages, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        stages, mean, _ = _per_stage(block.zero_shot[0], "zero_shot", direction)
        panel.plot(stages, mean, color=GREY, linestyle="--", label="zero-shot (frozen backbone)")
        panel.set_title(DIRECTIONS[direction], fontsize=11)
        panel.set_xlabel("tasks seen so far")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
        panel.grid(axis="y", color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("mean R@1 over these tasks, per cent")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False)
    figure.suptitle(block.title)
    return _png(figure)


def _per_stage(group: "Group", kind: str, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of tasks seen, and over the runs mean and deviation of the mean recall on them."""
    found = np.nanmean(group.matrices(kind, direction), axis=2)
    spread = found.std(0, ddof=1) if len(found) > 1 else np.zeros(found.shape[1])
    return np.arange(1, found.shape[1] + 1), found.mean(0), spread


def _of(group: "Group") -> str:
    return f" (mean of {len(group.runs)} runs)" if len(group.runs) > 1 else ""


def _figure(width: float, height: float) -> "Figure":
    """An empty figure, inches; made without pyplot, so that no display is looked for and nothing stays open."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib; install it with pip install 'lpi_jax[experiments]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: "Figure") -> bytes:
    data = io.BytesIO()
    # Without the version of matplotlib in the file the same runs give the same bytes.
    figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
    return data.getvalue()
