"""What all pictures have in common: colours, figures and names at axes.

Matplotlib is the extra [experiments]; nothing but `lpi_jax.report --out` needs it.
"""

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axis import Axis
from matplotlib.figure import Figure

from lpi_jax.report import lettering
from lpi_jax.report.groups import Group
from lpi_jax.terminal.plain_text import plain

# Okabe and Ito's colours, which the colour-blind can tell apart, and a marker each.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"))
GREY = "#555555"
MOST_NAMES = 40  # tasks: above that, names at the axes cannot be read
LABEL = 40  # columns of a label at an axis


def figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure, inches; made without pyplot, so that no display is looked for and nothing stays open."""
    return Figure(figsize=(width, height), layout=layout)


def png(drawn: Figure, title: str) -> bytes:
    """The figure with a title above it as PNG."""
    drawn.suptitle(lettering.line(title, int(10 * drawn.get_figwidth())))
    data = io.BytesIO()
    # Without the version of matplotlib in the file the same runs give the same bytes.
    drawn.savefig(data, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return data.getvalue()


def name(axis: Axis, tasks: Sequence[str], **how: Any) -> None:
    """Names at an axis; of very many only some."""
    every = math.ceil(len(tasks) / MOST_NAMES)
    axis.set_ticks(range(0, len(tasks), every), tasks[::every], fontsize=9, **how)


def label(text: str) -> str:
    """What stands at an axis, above a panel or beside colours."""
    return lettering.line(text, LABEL)


def mean_of(group: Group) -> str:
    """What a title adds where several runs are averaged."""
    return f" (mean of {len(group.runs)} runs)" if len(group.runs) > 1 else ""


def renamed(group: Group) -> str:
    """What the words below a picture add where names of tasks stand otherwise in it."""
    pairs = zip(lettering.names(group.tasks), map(plain, group.tasks), strict=True)
    told = [f"{shown} is {full}" for shown, full in pairs if shown != full]
    return f" ({'; '.join(told)})" if told else ""
