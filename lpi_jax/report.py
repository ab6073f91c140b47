"""Tables from finished runs: python -m lpi_jax.report WORKDIR [WORKDIR ...]

Runs that differ only in their seeds become one row, mean and standard deviation.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpi_jax.errors import UserError

Result = dict[str, Any]

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
)
LEGEND = """\
R@k in per cent over all tasks seen so far; I→T image to text, T→I text to image. incremental: mean over tasks of the
mean over stages; final: after the last task. forgetting: points of R@1, both directions, negative = forgot. routed
right: per cent of images / captions sent to their own task's prompts after the last task. min: training and evaluation.
"""


def read(directory: str | Path) -> Result:
    """The results of a run. Raises UserError where there are none."""
    path = Path(directory) / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected the directory of a run") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error


def table(directories: Sequence[str | Path]) -> str:
    """A Markdown table of runs: the frozen backbone first, then a row per method, preset and kind of routing."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in map(read, directories):
        groups.setdefault((result["stream"]["name"], _label(result)), []).append(result)
    rows = []
    for stream in dict.fromkeys(stream for stream, _ in groups):
        own = {label: results for (name, label), results in groups.items() if name == stream}
        if "zero-shot" not in own:
            # Every run measured it on its own galleries; `released` does so on randomly cropped pictures.
            rows += _rows("zero-shot", own.get("LPI intended") or next(iter(own.values())), "zero_shot")
        for label, results in own.items():
            rows += _rows(label, results, "recall")
    return "\n".join([_line(HEADER), _line(["---"] * len(HEADER)), *map(_line, rows), "", LEGEND])


def _label(result: Result) -> str:
    if result["method"] == "zero_shot":
        return "zero-shot"
    oracle = ", task known" if result["task_id"] == "oracle" else ""
    return f"{result['method'].upper()} {result['preset']}{oracle}"


def _rows(label: str, results: list[Result], kind: str) -> list[list[str]]:
    rows = []
    for average in ("incremental", "final"):
        cells = [label, str(len(results)), average]
        for direction in ("image_to_text", "text_to_image"):
            for k in ("1", "5", "10"):
                values = [r[kind][direction][k][f"{average}_average"] for r in results]
                cells.append(_spread(values))
        if average == "final" and kind == "recall":
            forgot = [
                _spread([r[kind][direction]["1"]["forgetting"] for r in results], "+.1f")
                for direction in ("image_to_text", "text_to_image")
            ]
            routed = [
                _spread([r["routing_accuracy"][side]["final_average"] for r in results]) for side in ("image", "text")
            ]
            minutes = _spread([sum(sum(task.values()) for task in r["seconds"]) / 60 for r in results])
            cells += [" / ".join(forgot), " / ".join(routed), minutes]
        else:
            cells += ["", "", ""]
        rows.append(cells)
    return rows


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean, and with several runs the sample standard deviation."""
    mean = f"{statistics.mean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str]) -> int:
    """Prints the table of the given runs; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    try:
        print(table(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
