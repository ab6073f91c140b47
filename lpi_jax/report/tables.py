"""The tables of a report, as cells: the runs compared, one group task by task, and where every number comes from."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lpi_jax.report.groups import Block, Group
from lpi_jax.report.runs import AVERAGES, DIRECTIONS, KS, SIDES
from lpi_jax.terminal.plain_text import plain

WORDS = {"image_to_text": "image to text", "text_to_image": "text to image"}
LEGEND = """\
R@k in per cent over all tasks seen so far; n: queries after the last task. incremental: mean over tasks of the mean
over stages; final: after the last task. chance: what a random order of the gallery finds. forgetting: points of R@1,
image to text / text to image, negative = forgot. routed right: per cent of images / captions sent to their own task's
prompts after the last task (given: the task was told). min: training and evaluation. peak MB: the largest resident
memory of the process.
"""
Values = dict[str, list[float]]


class Row(NamedTuple):
    """One row of the table that compares runs, with a number for each run."""

    method: str
    runs: int
    average: str
    values: Values
    routing: str


class Table(NamedTuple):
    """Cells as they are shown.

    Attributes:
      title: what the table is of; "" if that is clear.
      head: the upper head row: what stands over how many columns.
      columns: the lower head row.
      words: how many columns, from the left, are words and not numbers.
    """

    title: str
    head: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: list[list[str]]
    words: int


def rows(block: Block) -> Iterator[Row]:
    """A guess, the frozen backbone, then every group; the incremental and the final average of each."""
    shown: list[tuple[str, Group, str]] = []
    if block.guess:
        shown.append(("chance", block.guess, "chance"))
    for group in block.zero_shot:
        if group.method != "zero_shot":
            label = "zero-shot" if group.runs[0].keys["eval.transform"] == "centre" else "zero-shot, random crops"
            shown.append((label, group, "zero_shot"))
    frozen_first = sorted(block.groups, key=lambda group: group.method != "zero_shot")
    shown += [(group.label, group, "recall") for group in frozen_first]
    for label, group, kind in shown:
        for average in AVERAGES:
            routing = group.routing if (kind, average) == ("recall", "final") else "none"
            yield Row(label, len(group.runs), average, group.values(kind, average), routing)


def comparison(block: Block, title: str) -> Table:
    """The table that compares the groups of a block."""
    recalls = tuple(f"R@{k}" for k in KS)
    return Table(
        title=title,
        head=(
            ("", 3),
            *((_over(block, d), len(KS)) for d in DIRECTIONS),
            ("forgetting", 1),
            ("routed right", 1),
            ("", 2),
        ),
        columns=("method", "runs", "average", *recalls, *recalls, "I→T / T→I", "images / captions", "min", "peak MB"),
        rows=[_cells(row) for row in rows(block)],
        words=1,
    )


def _over(block: Block, direction: str) -> str:
    queries = block.queries(direction)
    return WORDS[direction] + (f", n = {queries}" if queries else "")


def _cells(row: Row) -> list[str]:
    routed = "given" if row.routing == "given" else _pair(row.values, "{} routed right", SIDES)
    return [
        row.method,
        str(row.runs),
        row.average,
        *(spread(row.values.get(f"{direction} R@{k}", [])) for direction in DIRECTIONS for k in KS),
        _pair(row.values, "{} forgetting", DIRECTIONS),
        routed,
        spread(row.values.get("minutes", [])),
        spread(row.values.get("peak_memory_mb", []), "{:.0f}"),
    ]


def _pair(values: Values, name: str, of: Sequence[str]) -> str:
    return " / ".join(filter(None, (spread(values.get(name.format(each), [])) for each in of)))


def spread(numbers: Sequence[float], form: str = "{:z.1f}") -> str:
    """The mean, with the sample standard deviation if there are several numbers; "" if there is none."""
    if not numbers:
        return ""
    mean = form.format(statistics.mean(numbers))
    return f"{mean} ± {form.format(statistics.stdev(numbers))}" if len(numbers) > 1 else mean


# ---- task by task ----------------------------------------------------------------------------------------------------


def per_task(group: Group) -> list[dict[str, list[float]]]:
    """Of each task, after the last: recall@1 of the group, the frozen backbone and a guess, items, routing; per run."""
    kinds = {"recall": "R@1", "zero_shot": "zero-shot R@1", "chance": "chance R@1"}
    if group.method == "zero_shot":
        del kinds["zero_shot"]
    columns = {
        f"{direction} {name}": group.matrices(kind, direction)[:, -1].T.tolist()
        for direction in DIRECTIONS
        for kind, name in kinds.items()
        if group.knows(kind)
    }
    for side in SIDES:
        columns[f"{side} items"] = list(zip(*(run.items[side] for run in group.runs if run.items), strict=True))
        columns[f"{side} routed right"] = list(
            zip(*(run.routed[side] for run in group.runs if run.routed), strict=True)
        )
    known = {name: values for name, values in columns.items() if values}
    return [{name: list(values[task]) for name, values in known.items()} for task in range(len(group.tasks))]


def tasks(group: Group) -> Table:
    """The table of one group task by task; what no run knows has no column."""
    found = per_task(group)
    # What stands over a column, what at its head, and the name of its number.
    names = ("R@1", "zero-shot R@1", "chance R@1")
    parts = [(WORDS[direction], name, f"{direction} {name}") for direction in DIRECTIONS for name in names]
    for over, name in (("n", "items"), ("routed right", "routed right")):
        parts += [(over, head, f"{side} {name}") for side, head in zip(SIDES, ("images", "captions"), strict=True)]
    known = [part for part in parts if part[2] in found[0]]
    return Table(
        title="",
        head=(("", 2), *_spans([over for over, _, _ in known])),
        columns=("", "task", *(lower for _, lower, _ in known)),
        rows=[
            [str(number), plain(name), *(_form(part[2])(own[part[2]]) for part in known)]
            for number, (name, own) in enumerate(zip(group.tasks, found, strict=True), start=1)
        ],
        words=2,
    )


def _spans(words: Sequence[str]) -> list[tuple[str, int]]:
    return [(word, words.count(word)) for word in dict.fromkeys(words)]


def _form(name: str) -> Callable[[Sequence[float]], str]:
    return _count if name.endswith("items") else spread


def _count(numbers: Sequence[float]) -> str:
    return "–".join(f"{n:.0f}" for n in sorted({min(numbers), max(numbers)}))


# ---- where the numbers come from -------------------------------------------------------------------------------------


def sources(blocks: Sequence[Block]) -> Table:
    """The list of runs: directory, method, seeds, commit and date."""
    found = [
        [plain(str(run.directory)), group.label, *map(str, run.seeds), _commit(run.commit), run.started]
        for block in blocks
        for group in block.groups
        for run in group.runs
    ]
    return Table("", (), ("run", "method", "seed", "data seed", "commit", "begun (UTC)"), found, 2)


def _commit(name: str) -> str:
    sha, plus, changes = name.partition("+")
    return sha[:12] + plus + changes
