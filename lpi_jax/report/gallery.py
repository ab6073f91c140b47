"""Items of a run with what was answered to them, before and after, as a part of the page."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from lpi_jax.report import answers
from lpi_jax.report.answers import Answer, Sample
from lpi_jax.report.groups import Group
from lpi_jax.report.remarks import seeds
from lpi_jax.terminal.plain_text import plain, shortened

STYLE = """\
.answers th,.answers td{text-align:left;white-space:pre-line;max-width:22em;overflow-wrap:anywhere}
.answers tbody th{padding-top:1em}
.answers img{display:block;max-width:150px;max-height:150px}
.right,.wrong{display:block;font-weight:600}
.right{color:#00694b}
.wrong{color:#a33b00}
"""
_ALT = 120  # columns of the words for a picture


class Gallery(NamedTuple):
    """What one run of a group shows.

    Attributes:
      told: in words. tasks: names of all. samples: in the order of the tasks. files: of each sample the name of its
        picture; None: it has none.
    """

    told: str
    tasks: tuple[str, ...]
    samples: list[Sample]
    files: list[str | None]

    @property
    def pictures(self) -> dict[str, bytes]:
        """PNG by the name of the file."""
        return {
            file: sample.picture
            for file, sample in zip(self.files, self.samples, strict=True)
            if file and sample.picture
        }


def of_group(group: Group, number: int) -> Gallery | None:
    """What the first run of a group that shows anything shows; None where none does.

    Args:
      number: of the group, for the names of files, which no other picture of a report has.
    """
    for run in group.runs:
        if samples := answers.read(run.directory, len(run.tasks)):
            samples = sorted(samples, key=lambda sample: sample.task)
            files = [f"answers_{number}_{place}.png" if s.picture else None for place, s in enumerate(samples, 1)]
            of_run = f" (of {len(group.runs)} runs the one with {seeds([run])})" if len(group.runs) > 1 else ""
            told = (
                f"Some items of every task{of_run}; before: the answer of the frozen backbone; after: the answer after"
                f" {plain(run.tasks[-1])}."
            )
            return Gallery(told, tuple(map(plain, run.tasks)), samples, files)
    return None


def section(gallery: Gallery) -> list[str]:
    """HTML: a table of the items, task by task."""
    sent = any(sample.chosen for sample in gallery.samples)
    heads = ["", "question", "counts as right", "before", "after", *(["answered with"] if sent else [])]
    told = gallery.told
    if sent:
        told += " Answered with: what belongs to these tasks, the best first, and by which score they were chosen."
    lines = ["<h4>Answers</h4>", f'<p class="legend">{escape(told)}</p>', '<div><table class="answers">']
    lines += [f"<thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"]
    for task, name in enumerate(gallery.tasks):
        own = [(s, f) for s, f in zip(gallery.samples, gallery.files, strict=True) if s.task == task]
        if own:
            lines += ["<tbody>", f'<tr><th colspan="{len(heads)}">{escape(name)}</th></tr>']
            lines += [_row(sample, file, gallery.tasks, sent) for sample, file in own]
            lines += ["</tbody>"]
    return [*lines, "</table></div>"]


def _row(sample: Sample, file: str | None, tasks: Sequence[str], sent: bool) -> str:
    words = escape(shortened(plain(f"{tasks[sample.task]}: {sample.question}"), _ALT))
    cells = [
        f'<img src="{escape(file)}" alt="{words}">' if file else "no picture",
        escape(sample.question),
        escape(_references(sample.references)),
        _answer(sample.before),
        _answer(sample.after),
    ]
    if sent:
        cells.append(_chosen(sample, tasks))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _references(references: Sequence[str]) -> str:
    """Each once, a line each, with how often it stands there."""
    often = {reference: references.count(reference) for reference in references}
    return "\n".join(f"{text} (× {times})" if times > 1 else text for text, times in often.items())


def _answer(answer: Answer) -> str:
    """How right it is, in a sign and a word, and what was said."""
    if answer.points in (0, 100):
        mark = '<span class="right">✓ right</span>' if answer.points else '<span class="wrong">✗ wrong</span>'
    else:
        mark = f'<span class="right">≈ {answer.points:.0f} % right</span>'
    return mark + (escape(answer.text) or "<i>nothing</i>")


def _chosen(sample: Sample, tasks: Sequence[str]) -> str:
    """The tasks chosen, a line each, its own marked."""
    lines = []
    for task, score in sample.chosen:
        told = escape(tasks[task]) + ("" if score is None else f" {score:.3f}")
        lines.append(f"<b>{told} (its own)</b>" if task == sample.task else told)
    return "\n".join(lines) or "<i>no task</i>"
