"""The tables of a report, as cells: the runs compared, and where every number comes from."""

from collections.abc import Sequence

from lpi_jax.report.cells import Table, spread
from lpi_jax.report.entries import FORGETTING, GROWTH, KEPT, MTIL, REAL
from lpi_jax.report.groups import Block, Group
from lpi_jax.report.metrics import Metric
from lpi_jax.report.rows import Row, Values, rows
from lpi_jax.terminal.plain_text import plain

FUTURE = "All tasks of the stream after every task, also those not learnt yet; what is searched stays the same"
PROBES = "Items of no task"
COSTS = "What it cost: the operations are those of training steps, of the backbone and the method together"


def comparison(block: Block, title: str) -> Table:
    """The table that compares the groups of a block."""
    shown = list(rows(block))
    names = [metric.group for metric in block.metrics]
    over = [(f"{metric.group}, n = {block.n(metric)}", names.count(metric.group)) for metric in block.headlines]
    short = " / ".join(metric.short for metric in block.headlines)
    split = splits(block)
    forgetting = [(f"forgetting, {short}", 3)] if split else [("forgetting", 1)]
    return Table(
        title=title,
        head=(("", 3), *over, *forgetting, ("zero-shot kept", 1), ("routed right", 1), ("", 2)),
        columns=(
            *("method", "runs", "average"),
            *(metric.label for metric in block.metrics),
            *(("all", "real", "growth") if split else (short,)),
            short,
            " / ".join(block.routed_sides.values()),
            *("min", "peak MB"),
        ),
        rows=[_cells(block, row, split) for row in shown],
        words=1,
    )


def splits(block: Block) -> bool:
    """Whether of any row it is known how much of its forgetting is real."""
    columns = {f"{metric.group_column} {REAL}" for metric in block.headlines}
    return any(columns & row.values.keys() for row in rows(block))


def _cells(block: Block, row: Row, split: bool) -> list[str]:
    values = row.values
    routed = [spread(values.get(f"{side} routed right", [])) for side in block.routed_sides]
    return [
        row.method,
        str(row.runs),
        row.average,
        *(spread(values.get(metric.column, []), metric.form) for metric in block.metrics),
        *(_of_headlines(block, values, name) for name in ((FORGETTING, REAL, GROWTH) if split else (FORGETTING,))),
        _of_headlines(block, values, KEPT),
        "given" if row.routing == "given" else " / ".join(filter(None, routed)),
        spread(values.get("minutes", [])),
        spread(values.get("peak_memory_mb", []), "{:.0f}"),
    ]


def _of_headlines(block: Block, values: Values, name: str) -> str:
    """A number of every headline metric in one cell; "–" where only others have one."""
    cells = [
        spread(values.get(f"{metric.group_column} {name}", []), "{:.0f}" if name == KEPT else metric.form)
        for metric in block.headlines
    ]
    return " / ".join(cell or "–" for cell in cells) if any(cells) else ""


def future(block: Block) -> Table | None:
    """What MTIL asks: before, over and after learning; None where it was not measured."""
    shown = [("zero-shot", group, "frozen") for group in block.frozen[:1]]
    shown += [(group.label, group, "measured") for group in block.groups if group.trains]
    metrics = [metric for metric in block.headlines if any(_mtil(*who[1:], metric) for who in shown)]
    if not metrics:
        return None
    names = dict.fromkeys(metric.group for metric in metrics)
    return Table(
        title=FUTURE,
        head=(("", 1), *((f"{metric.group}, {metric.label}", len(MTIL)) for metric in metrics)),
        columns=("method", *(name.capitalize() for _ in names for name in MTIL)),
        rows=[
            [label, *(cell for metric in metrics for cell in _mtil(group, kind, metric) or [""] * len(MTIL))]
            for label, group, kind in shown
        ],
        words=1,
    )


def _mtil(group: Group, kind: str, metric: Metric) -> list[str]:
    """The cells of one metric; [] where it was not measured."""
    values = group.values(kind, "final")
    cells = [spread(values.get(f"{metric.column} {name}", []), metric.form) for name in MTIL]
    return cells if any(cells) else []


def probes(group: Group) -> Table | None:
    """Headline metrics on items of no task, before and while tasks are learnt; None where there are none."""
    names = [name for name in group.runs[0].probes if all(name in run.probes for run in group.runs)]
    rows_of = {name: _probed(group, name) for name in names}
    if not any(map(any, rows_of.values())):
        return None
    return Table(
        title=PROBES,
        head=(("", 1), *((f"{metric.group}, {metric.label}", 3) for metric in group.headlines)),
        columns=("items", *(when for _ in group.headlines for when in ("zero-shot", "first task", "last task"))),
        rows=[[name, *cells] for name, cells in rows_of.items()],
        words=1,
    )


def _probed(group: Group, name: str) -> list[str]:
    cells = []
    for metric in group.headlines:
        known = [run.probes[name][metric.name] for run in group.runs if metric.name in run.probes[name]]
        moments = [[probe.frozen for probe in known]] + [[probe.values[s] for probe in known] for s in (0, -1)]
        cells += [spread(numbers, metric.form) for numbers in moments]
    return cells


def costs(block: Block) -> Table | None:
    """What every method that trains took for what it learnt; None where none does."""
    trained = [group for group in block.groups if group.trains]
    return (
        Table(
            title=COSTS,
            head=(),
            columns=(
                "method",
                "numbers a task",
                "of the backbone, %",
                "TFLOP",
                "min training",
                "min evaluation",
                "peak MB",
            ),
            rows=[[group.label, *_cost(group.values("measured", "final"))] for group in trained],
            words=1,
        )
        if trained
        else None
    )


def _cost(values: Values) -> list[str]:
    forms = {"trained numbers": "{:,.0f}", "trained share": "{:.3g}", "training TFLOP": "{:,.4g}"}
    forms |= {"training minutes": "{:.1f}", "evaluation minutes": "{:.1f}", "peak_memory_mb": "{:.0f}"}
    return [spread(values.get(name, []), form) for name, form in forms.items()]


def sources(blocks: Sequence[Block]) -> Table:
    """The list of runs: directory, method, seeds, commit and date."""
    lines = [
        [plain(str(run.directory)), group.label, *map(str, run.seeds), _commit(run.commit), run.started]
        for block in blocks
        for group in block.groups
        for run in group.runs
    ]
    return Table("", (), ("run", "method", "seed", "data seed", "commit", "begun (UTC)"), lines, 2)


def _commit(name: str) -> str:
    sha, plus, changes = name.partition("+")
    return sha[:12] + plus + changes
