"""Tables and pictures from runs: python -m lpi_jax.report [--out=DIR] WORKDIR [WORKDIR ...]

Prints a Markdown table; with --out also writes DIR/table.md, table.csv, a heat map of R@1 per kind of run, curves over
the stages, and index.html that shows them all. Runs that differ only in their seeds become one row: mean ± sample
standard deviation.
"""

import csv
import html
import io
import json
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpi_jax import config as configs
from lpi_jax import paths, records, terminal
from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically

Result = dict[str, Any]

DIRECTIONS = ("image_to_text", "text_to_image")
KS = ("1", "5", "10")
HEADER = (
    "method",
    "runs",
    "average",
    "I→T R@1",
    "R@5",
    "R@10",
    "T→I R@1",
    "R@5",
    "R@10",
    "forgetting",
    "routed right",
    "min",
    "peak MB",
)
LEGEND = """\
R@k in per cent over all tasks seen so far; I→T image to text, T→I text to image. incremental: mean over tasks of the
mean over stages; final: after the last task. forgetting: points of R@1, both directions, negative = forgot. routed
right: per cent of images / captions sent to their own task's prompts after the last task. min: training and evaluation.
peak MB: the largest resident memory of the process.
"""
# Keys of which runs of one row may differ: the seeds, and the preset, which stands in the row's label.
IGNORED = {"seed", "data.seed", "preset"}
# What has to be equal for two runs to have been measured on the same galleries of the same backbone.
GALLERIES = ("stream", "data", "data.domains", "data.val", "backbone", "eval.gallery")


class Run(NamedTuple):
    """One run: its results, the keys that make it comparable with others, and its seeds."""

    directory: Path
    result: Result
    keys: dict[str, Any]
    seeds: tuple[int, int]


class Group(NamedTuple):
    """Runs that differ only in their seeds."""

    label: str
    runs: tuple[Run, ...]

    def matrices(self, kind: str, direction: str) -> np.ndarray:
        """[runs, T, T] recall@1 matrices R[s][t], NaN for t > s; kind: `recall` or `zero_shot`."""
        return np.stack([_square(run.result[kind][direction]["1"]["matrix"]) for run in self.runs])


class Block(NamedTuple):
    """Groups measured on the same galleries of the same backbone: what one table compares.

    Attributes:
      zero_shot: groups whose measurement of the frozen backbone the table shows, one per kind of validation picture;
        the first is the one that curves are compared with.
    """

    title: str
    groups: tuple[Group, ...]
    zero_shot: tuple[Group, ...]


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(directory: str | Path) -> Run:
    """A run's results. Raises UserError where there are none or they are damaged."""
    directory = Path(directory)
    result, record = _json(directory / "results.json"), _json(directory / "config.json")
    try:
        for kind in ("recall", "zero_shot"):
            for average in ("incremental", "final"):
                for value in measured(result, kind, average).values():
                    float(value)
            for direction in DIRECTIONS:
                if len(_square(result[kind][direction]["1"]["matrix"])) != len(result["tasks"]):
                    raise ValueError(f"not a row of recall per task, {direction}")
        config = configs.flat(records.configuration(record, directory / "config.json"))
        # The pictures of `scenes` follow the seed; a file is the same or another one.
        data = "" if config["data.name"] == "scenes" else record["stream"]
        keys = {"stream": result["stream"]["name"], "data": data, "backbone": result["parameters"]["backbone_sha256"]}
        telling = records.telling(record, directory / "config.json")
        keys |= {key: value for key, value in telling.items() if key not in IGNORED}
        keys["tasks"] = f"{len(result['tasks'])} of {len(result['tasks']) + len(result['tasks_to_come'])} tasks"
        keys["label"] = _label(result) + (f", {keys['tasks']}" if result["tasks_to_come"] else "")
        return Run(directory, result, keys, (config["seed"], config["data.seed"]))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{directory} holds damaged results ({type(error).__name__}: {error}); expected config.json and"
            " results.json as a run writes them"
        ) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected the directory of a run") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error


def _square(rows: Sequence[Sequence[float]]) -> np.ndarray:
    matrix = np.full((len(rows), len(rows)), np.nan)
    for s, row in enumerate(rows):
        matrix[s, : s + 1] = row
    return matrix


def measured(result: Result, kind: str, average: str) -> dict[str, float]:
    """The numbers of one table row by name; kind: `recall` or `zero_shot`, average: `incremental` or `final`."""
    recall = result[kind]
    found = {f"{d} R@{k}": recall[d][k][f"{average}_average"] for d in DIRECTIONS for k in KS}
    if average == "final" and kind == "recall":
        found |= {f"{d} forgetting": recall[d]["1"]["forgetting"] for d in DIRECTIONS}
        found |= {
            f"{side} routed right": result["routing_accuracy"][side]["final_average"] for side in ("image", "text")
        }
        found["minutes"] = sum(sum(task.values()) for task in result["seconds"]) / 60
        found["peak_memory_mb"] = result["peak_memory_mb"]
    return found


# ---- grouping --------------------------------------------------------------------------------------------------------


def compare(directories: Sequence[str | Path]) -> list[Block]:
    """Runs sorted into blocks of comparable groups, in the order given; a directory named twice counts once.

    Raises:
      UserError: a directory without results, or two runs of the same configuration and seeds.
    """
    runs = [read(directory) for directory in {Path(d).resolve(): d for d in directories}.values()]
    blocks = []
    for title, members in _named(runs, GALLERIES, "stream"):
        groups = []
        for label, alike in _named(members, tuple({key: None for run in members for key in run.keys}), "label"):
            _refuse_twice(alike)
            groups.append(Group(label, tuple(alike)))
        # Every run measures the frozen backbone; `released` does so on cropped pictures and with other pixels.
        own = [group for group in groups if group.runs[0].result["method"] == "zero_shot"]
        kinds: dict[str, Group] = {}
        for group in own or sorted(groups, key=lambda g: g.runs[0].keys["eval.transform"]):  # centre before random
            kinds.setdefault(group.runs[0].keys["eval.transform"], group)
        blocks.append(Block(title, tuple(groups), tuple(kinds.values())))
    return blocks


def _named(runs: Sequence[Run], keys: Sequence[str], name: str) -> Iterator[tuple[str, list[Run]]]:
    """Runs with equal `keys` together; each such set is named by its key `name` and, if need be, by what is its own."""
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(json.dumps([run.keys.get(key) for key in keys]), []).append(run)
    for members in sets.values():
        own = members[0].keys
        others = [other[0].keys for other in sets.values() if other[0].keys[name] == own[name]]
        telling = [key for key in keys if any(other.get(key) != own.get(key) for other in others)]
        differences = ", ".join(f"{key}={_short(own.get(key))}" for key in telling)
        yield own[name] + (f" ({differences})" if differences else ""), members


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text[:60]


def _refuse_twice(runs: Sequence[Run]) -> None:
    first: dict[tuple[int, int], Run] = {}
    for run in runs:
        if run.seeds in first:
            raise UserError(
                f"{first[run.seeds].directory} and {run.directory} are the same run (configuration and seeds"
                f" {run.seeds[0]} and {run.seeds[1]}), expected each once"
            )
        first[run.seeds] = run


def _label(result: Result) -> str:
    if result["method"] == "zero_shot":
        return "zero-shot"
    oracle = ", task known" if result["task_id"] == "oracle" else ""
    return f"{result['method'].upper()} {result['preset']}{oracle}"


# ---- tables ----------------------------------------------------------------------------------------------------------


def table(directories: Sequence[str | Path]) -> str:
    """A Markdown table of runs: the frozen backbone first, then a row per kind of run and average."""
    return _markdown(compare(directories))


def _markdown(blocks: Sequence[Block]) -> str:
    parts = []
    for block in blocks:
        title = [f"### {block.title}", ""] if len(blocks) > 1 else []
        rows = [_cells(*row) for row in _rows(block)]
        parts.append("\n".join([*title, *map(_line, [HEADER, ["---"] * len(HEADER), *rows])]))
    return "\n\n".join([*parts, LEGEND])


def _rows(block: Block) -> Iterator[tuple[Group, str, str]]:
    """Group, kind and average of each row."""
    for group in block.zero_shot:
        if group.runs[0].result["method"] != "zero_shot":
            label = "zero-shot" if group.runs[0].keys["eval.transform"] == "centre" else "zero-shot, random crops"
            frozen = Group(label, group.runs)
            yield from ((frozen, "zero_shot", average) for average in ("incremental", "final"))
    for group in block.groups:
        yield from ((group, "recall", average) for average in ("incremental", "final"))


def _values(group: Group, kind: str, average: str) -> dict[str, list[float]]:
    each = [measured(run.result, kind, average) for run in group.runs]
    return {name: [values[name] for values in each] for name in each[0]}


def _cells(group: Group, kind: str, average: str) -> list[str]:
    values = _values(group, kind, average)
    cells = [group.label, str(len(group.runs)), average]
    cells += [_spread(values[f"{direction} R@{k}"]) for direction in DIRECTIONS for k in KS]
    if "minutes" not in values:
        return [*cells, "", "", "", ""]
    forgot = " / ".join(_spread(values[f"{direction} forgetting"], "+.1f") for direction in DIRECTIONS)
    routed = " / ".join(_spread(values[f"{side} routed right"]) for side in ("image", "text"))
    return [*cells, forgot, routed, _spread(values["minutes"]), _spread(values["peak_memory_mb"], ".0f")]


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean, and with several runs the sample standard deviation."""
    mean = f"{statistics.mean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _csv(blocks: Sequence[Block]) -> str:
    """The same rows with all digits: a column for each mean and one for each standard deviation (empty for one run)."""
    names = list(_values(blocks[0].groups[0], "recall", "final"))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["stream", "method", "runs", "average", *(f"{n}{end}" for n in names for end in ("", " std"))])
    for block in blocks:
        for group, kind, average in _rows(block):
            values = _values(group, kind, average)
            numbers: list[float | str] = []
            for name in names:
                own = values.get(name, [])
                numbers.append(statistics.mean(own) if own else "")
                numbers.append(statistics.stdev(own) if len(own) > 1 else "")
            writer.writerow([block.title, group.label, len(group.runs), average, *numbers])
    return text.getvalue()


# ---- a folder of everything ------------------------------------------------------------------------------------------


def write(directories: Sequence[str | Path], out: str | Path) -> None:
    """Writes table.md, table.csv, pictures (PNG) and index.html into the folder `out`.

    Raises:
      UserError: as `compare`; matplotlib is missing; `out` cannot be written.
    """
    from lpi_jax import plots  # here, because matplotlib is an extra that the tables do not need

    blocks = compare(directories)
    pictures: dict[str, tuple[str, bytes]] = {}  # file -> caption, PNG
    for block in blocks:
        caption = f"{block.title}: recall@1 over the tasks seen so far, against the frozen backbone"
        pictures[_file(pictures, f"{block.title} stages")] = caption, plots.curves(block)
        for group in block.groups:
            caption = f"{block.title}, {group.label}: recall@1 of every task after every stage"
            pictures[_file(pictures, f"{block.title} {group.label}")] = caption, plots.heat_maps(group)
    files = {name: data for name, (_, data) in pictures.items()}
    files["table.md"] = _markdown(blocks).encode()
    files["table.csv"] = _csv(blocks).encode()
    files["index.html"] = _page(blocks, {name: caption for name, (caption, _) in pictures.items()}).encode()
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, lambda file, data=data: file.write(data))
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be written: {error.strerror}") from error


def _file(taken: dict[str, Any], title: str) -> str:
    """A file name made of a title's letters and digits, not yet taken."""
    stem = re.sub(r"[^a-z0-9.=]+", "-", title.lower()).strip("-")[:100]
    number = 1
    while (name := f"{stem}{f'-{number}' if number > 1 else ''}.png") in taken:
        number += 1
    return name


def _page(blocks: Sequence[Block], captions: dict[str, str]) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    tables = [
        f"<h2>{html.escape(block.title)}</h2>\n<table>\n"
        + "\n".join([row("th", HEADER), *(row("td", _cells(*each)) for each in _rows(block))])
        + "\n</table>"
        for block in blocks
    ]
    figures = [
        f'<figure><img src="{html.escape(name)}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, caption in captions.items()
    ]
    runs = [run for block in blocks for group in block.groups for run in group.runs]
    protocols = dict.fromkeys(run.result["protocol"] for run in runs)
    sources = [f"<li>{html.escape(str(run.directory))}</li>" for run in runs]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>lpi_jax report</title>',
            "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}table{border-collapse:"
            "collapse}th,td{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}"
            "th:first-child,td:first-child{text-align:left}figure{margin:2em 0}img{max-width:100%}"
            "div{overflow-x:auto}</style>",
            "<h1>Runs of lpi_jax</h1>\n<div>",
            *tables,
            f"</div>\n<p>{html.escape(LEGEND)}</p>",
            *figures,
            "<h2>Protocol</h2>",
            *(f"<p>{html.escape(protocol)}</p>" for protocol in protocols),
            "<h2>Runs</h2>\n<ul>",
            *sources,
            "</ul>\n</html>\n",
        ]
    )


@terminal.command()
def main(arguments: Sequence[str]) -> int:
    """Prints the table of the given runs, and writes the report if asked to.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0, 2 for a user's mistake, 130 after Ctrl-C.
    """
    given = list(arguments[1:])
    if any(argument in ("--help", "-help", "-h") for argument in given):
        print(__doc__)
        return terminal.OK
    out, directories = _parse(given)
    text = table(directories)
    if out is not None:
        write(directories, out)
    print(text)
    if out is not None:
        print(f"Report: {Path(out) / 'index.html'}")
    return terminal.OK


def _parse(given: list[str]) -> tuple[str | None, list[str]]:
    """--out and the directories."""
    out, directories = None, []
    while given:
        argument = given.pop(0)
        name, equals, value = argument.partition("=")
        if name in ("--out", "-out"):
            out = value if equals else given.pop(0) if given else ""
            if not out:
                raise UserError("--out has no value; expected --out=DIR")
        elif argument.startswith("-"):
            raise UserError(f"{argument} is not a flag; did you mean --out=DIR?")
        else:
            directories.append(argument)
    if not directories:
        raise UserError("no run is named; expected python -m lpi_jax.report [--out=DIR] WORKDIR [WORKDIR ...]")
    directories = [paths.expanded(directory, "WORKDIR") for directory in directories]
    return out if out is None else paths.expanded(out, "--out"), directories


if __name__ == "__main__":
    sys.exit(main(sys.argv))
