"""Runs as reports need them: everything is checked and converted where it is read, so that nothing fails later."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpi_jax import config as configs
from lpi_jax.config import records
from lpi_jax.errors import UserError
from lpi_jax.problems.retrieval import chance
from lpi_jax.terminal.plain_text import plain

Result = dict[str, Any]

DIRECTIONS = ("image_to_text", "text_to_image")
SIDES = ("image", "text")
KS = ("1", "5", "10")
AVERAGES = ("incremental", "final")
# Keys of which runs of one row may differ: the seeds, and the preset, which stands in the row's label.
IGNORED = {"seed", "data.seed", "preset"}
MOST = 1e15  # of any number; what is larger would overflow in averages
MOST_BYTES = 1 << 28  # of a results.json; a thousand tasks have a tenth of it


class Run(NamedTuple):
    """One run.

    Attributes:
      keys: what makes it comparable with others. seeds: its own and the data's.
      tasks: names of the finished tasks.
      matrices: kind -> direction -> [T, T] recall@1 R[s][t], per cent, NaN for t > s; kinds: `recall`, `zero_shot` and,
        where it is known, `chance`.
      numbers: (kind, average) -> the numbers of one row of the table by name.
      routing: whether items are sent to tasks (`inferred`), belong to them (`given`) or get no prompts (`none`).
      routed: side -> per task the per cent of its items that were routed to it after the last task; may be empty.
      confusion: side -> [T, T] or, with a column for items routed nowhere, [T, T + 1] counts of items by true and
        routed task; may be empty.
      items: side -> number of validation items per task; may be empty.
      commit, started: as in config.json; "" where it does not say.
    """

    directory: Path
    method: str
    keys: dict[str, Any]
    seeds: tuple[int, int]
    tasks: tuple[str, ...]
    matrices: dict[str, dict[str, np.ndarray]]
    numbers: dict[tuple[str, str], dict[str, float]]
    routing: str
    routed: dict[str, list[float]]
    confusion: dict[str, np.ndarray]
    items: dict[str, list[int]]
    protocol: str
    commit: str
    started: str


def read(directory: str | Path) -> Run:
    """A run's results. Raises UserError where there are none or they are damaged."""
    directory = Path(directory)
    if (directory / "config.json").is_file() and not (directory / "results.json").exists():
        raise UserError(f"{directory} has no finished task yet; expected a run with results")
    result, record = _json(directory / "results.json"), _json(directory / "config.json")
    try:
        return _run(directory, result, record)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{directory} holds damaged results ({type(error).__name__}: {error}); expected config.json and"
            " results.json as a run writes them"
        ) from error


def _run(directory: Path, result: Result, record: dict[str, Any]) -> Run:
    config = configs.flat(records.configuration(record, directory / "config.json"))
    method, tasks = str(result["method"]), tuple(str(name) for name in _list(result["tasks"]))
    given = result["task_id"] == "oracle"
    items = _items(result.get("counts", {}), len(tasks))
    result = result | _guess(result, items, config["eval.gallery"])
    kinds = [kind for kind in ("recall", "zero_shot", "chance") if kind in result]
    matrices = {kind: {d: _square(result[kind][d]["1"]["matrix"], len(tasks)) for d in DIRECTIONS} for kind in kinds}
    routing = "none" if method == "zero_shot" else "given" if given else "inferred"
    numbers = {(kind, average): _numbers(result, kind, average) for kind in kinds for average in AVERAGES}
    numbers["recall", "final"] |= _costs(result)
    if routing == "inferred":
        for side in SIDES:
            routed = result["routing_accuracy"][side]["final_average"]
            numbers["recall", "final"][f"{side} routed right"] = _number(routed)
    return Run(
        directory=directory,
        method=method,
        keys=_keys(result, record, directory / "config.json", config),
        seeds=(int(config["seed"]), int(config["data.seed"])),
        tasks=tasks,
        matrices=matrices,
        numbers=numbers,
        routing=routing,
        routed=_routed(result["routing_accuracy"], len(tasks)) if routing == "inferred" else {},
        confusion=_confusion(result.get("routing_confusion"), len(tasks)) if routing == "inferred" else {},
        items=items,
        protocol=str(result["protocol"]),
        commit=plain(str(record.get("environment", {}).get("commit", "")))[:60],
        started=_date(record.get("started")),
    )


def _keys(result: Result, record: dict[str, Any], path: Path, config: dict[str, Any]) -> dict[str, Any]:
    # The pictures of `scenes` follow the seed; a file is the same or another one.
    data = "" if config["data.name"] == "scenes" else record["stream"]
    keys = {"stream": str(result["stream"]["name"]), "data": data, "backbone": result["parameters"]["backbone_sha256"]}
    keys |= {key: value for key, value in records.telling(record, path).items() if key not in IGNORED}
    keys["eval.transform"] = str(config["eval.transform"])
    keys["tasks"] = f"{len(result['tasks'])} of {len(result['tasks']) + len(_list(result['tasks_to_come']))} tasks"
    keys["label"] = _label(result) + (f", {keys['tasks']}" if result["tasks_to_come"] else "")
    return keys


def _label(result: Result) -> str:
    if result["method"] == "zero_shot":
        return "zero-shot"
    oracle = ", task known" if result["task_id"] == "oracle" else ""
    return f"{result['method'].upper()} {result['preset']}{oracle}"


def _numbers(result: Result, kind: str, average: str) -> dict[str, float]:
    recall = result[kind]
    found = {f"{d} R@{k}": _number(recall[d][k][f"{average}_average"]) for d in DIRECTIONS for k in KS}
    if average == "final":
        found |= {f"{d} forgetting": _number(recall[d]["1"]["forgetting"]) for d in DIRECTIONS if kind != "chance"}
    return found


def _costs(result: Result) -> dict[str, float]:
    seconds = sum(_number(part) for task in result["seconds"] for part in task.values())
    return {"minutes": seconds / 60, "peak_memory_mb": _number(result["peak_memory_mb"])}


def _items(counts: dict[str, Any], tasks: int) -> dict[str, list[int]]:
    if "val_pictures" not in counts or "val_captions" not in counts:
        return {}
    per_side = dict(zip(SIDES, (counts["val_pictures"], counts["val_captions"]), strict=True))
    found = {side: [_count(n, 1) for n in _list(numbers)[:tasks]] for side, numbers in per_side.items()}
    if any(len(numbers) != tasks for numbers in found.values()):
        raise ValueError("not a count of validation pictures and captions per task")
    return found


def _guess(result: Result, items: dict[str, list[int]], galleries: str) -> Result:
    """`chance` of results that lack it, if it follows from their counts: where every picture has one caption."""
    if "chance" in result or not items or items["image"] != items["text"]:
        return {}
    seen = np.cumsum(items["image"]).tolist()
    sizes = [[seen[s] if galleries == "union" else n for n in items["image"][: s + 1]] for s in range(len(seen))]
    found = {}
    for k in KS:
        of_size = {n: chance.recall(n, np.ones(1, int), int(k)) for row in sizes for n in set(row)}
        rows = [[of_size[n] for n in row] for row in sizes]
        averages = {
            "incremental_average": float(np.nanmean(_square(rows, len(rows)), axis=0).mean()),
            "final_average": float(np.mean(rows[-1])),
        }
        found[k] = {"matrix": rows, **averages}
    return {"chance": dict.fromkeys(DIRECTIONS, found)}


def _routed(accuracy: dict[str, Any], tasks: int) -> dict[str, list[float]]:
    if any("matrix" not in accuracy[side] for side in SIDES):
        return {}
    found = {side: [_number(value) for value in accuracy[side]["matrix"][-1]] for side in SIDES}
    if any(len(values) != tasks for values in found.values()):
        raise ValueError("not a routing accuracy per task")
    return found


def _confusion(record: Any, tasks: int) -> dict[str, np.ndarray]:
    if record is None:
        return {}
    found = {}
    for side in SIDES:
        rows = [[_count(n) for n in _list(row)] for row in _list(record[side]["matrix"])]
        if len(rows) != tasks or any(len(row) != tasks for row in rows):
            raise ValueError(f"not a count of items per task and routed task, {side}")
        none = [_count(n) for n in _list(record[side].get("none", []))]
        if none and len(none) != tasks:
            raise ValueError(f"not a count of items routed nowhere per task, {side}")
        found[side] = np.column_stack([np.array(rows, float), *([none] if none else [])])
    return found


def _square(rows: Sequence[Sequence[float]], tasks: int) -> np.ndarray:
    if len(rows) != tasks or not tasks or any(len(row) != s + 1 for s, row in enumerate(rows)):
        raise ValueError("not a row of recall per task")
    matrix = np.full((tasks, tasks), np.nan)
    for s, row in enumerate(rows):
        matrix[s, : s + 1] = [_number(value) for value in row]
    if np.nanmin(matrix) < 0 or np.nanmax(matrix) > 100:
        raise ValueError("a recall is not within 0 and 100 per cent")
    return matrix


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) < MOST:
        raise ValueError(f"{number} is no number that a run measures")
    return number


def _count(value: Any, least: int = 0) -> int:
    if not isinstance(value, int) or not least <= value < MOST:
        raise ValueError(f"expected a count of at least {least}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, not {type(value).__name__}")
    return value


def _date(value: Any) -> str:
    try:
        return datetime.fromisoformat(value).isoformat(sep=" ", timespec="minutes")
    except (TypeError, ValueError):
        return ""


def _json(path: Path) -> Any:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path} has {size} bytes; expected what a run writes, at most {MOST_BYTES}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected the directory of a run") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); expected JSON") from error
