"""Runs as reports need them: everything is checked and converted where it is read, so that nothing fails later."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpi_jax import config as configs
from lpi_jax.config import records
from lpi_jax.errors import UserError
from lpi_jax.report.checked import a_dict, a_list, confusion, date, json_file, number, per_task, text, triangle, truth
from lpi_jax.report.keys import comparable_keys
from lpi_jax.report.metrics import AVERAGES, KINDS, Metric, described, headlines
from lpi_jax.terminal.plain_text import plain

Result = dict[str, Any]

SCHEMA = 2  # of results.json
ROUTED = ("inferred", "given", "none")


class Run(NamedTuple):
    """One run.

    Attributes:
      trains: whether its method learns; False is the frozen backbone itself.
      keys: what makes it comparable with others. seeds: its own and the data's.
      tasks: names of the finished tasks.
      metrics: in the order in which they are shown.
      matrices: kind -> name of a headline metric -> [T, T] values R[s][t] in its unit, NaN for t > s; kinds:
        `measured`, `frozen` and, for metrics of which it is known, `chance`.
      numbers: (kind, average) -> the numbers of one row of the table by column.
      routing: whether items are sent to tasks (`inferred`), belong to them (`given`) or are not sent (`none`).
      sides: side -> what its items are called. items: side -> number of validation items per task.
      routed: side -> per task the per cent of its items that were routed to it after the last task; may be empty.
      confusion: side -> [T, T] or, with a column for items routed nowhere, [T, T + 1] counts of items by true and
        routed task; may be empty.
      commit, started: as in config.json; "" where it does not say.
    """

    directory: Path
    trains: bool
    keys: dict[str, Any]
    seeds: tuple[int, int]
    tasks: tuple[str, ...]
    metrics: tuple[Metric, ...]
    matrices: dict[str, dict[str, np.ndarray]]
    numbers: dict[tuple[str, str], dict[str, float]]
    routing: str
    sides: dict[str, str]
    items: dict[str, list[int]]
    routed: dict[str, list[float]]
    confusion: dict[str, np.ndarray]
    protocol: str
    commit: str
    started: str


def read(directory: str | Path) -> Run:
    """A run's results. Raises UserError where there are none, or they are damaged or of another schema."""
    directory = Path(directory)
    if (directory / "config.json").is_file() and not (directory / "results.json").exists():
        raise UserError(f"{directory} has no finished task yet; expected a run with results")
    result, record = json_file(directory / "results.json"), json_file(directory / "config.json")
    try:
        _refuse_other_schemas(directory / "results.json", a_dict(result), record)
        return _run(directory, result, record)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{directory} holds damaged results ({type(error).__name__}: {error}); expected config.json and"
            " results.json as a run writes them"
        ) from error


def _refuse_other_schemas(path: Path, result: Result, record: dict[str, Any]) -> None:
    schema = result.get("schema")
    if isinstance(schema, int) and schema == SCHEMA:
        return
    told = "no schema" if schema is None else f"schema {plain(str(schema))[:60]}"
    wrote = f"version {commit}, which wrote it," if (commit := _commit(record)) else "the version that wrote it"
    raise UserError(f"{path} has {told}, expected {SCHEMA}; {wrote} reads it")


def _commit(record: dict[str, Any]) -> str:
    return plain(str(record.get("environment", {}).get("commit", "")))[:60]


def _run(directory: Path, result: Result, record: dict[str, Any]) -> Run:
    config = configs.flat(records.configuration(record, directory / "config.json"))
    tasks = tuple(str(name) for name in a_list(result["tasks"]))
    entries, metrics = result["metrics"], described(result["metrics"])
    sides = {side: text(entry["label"]) for side, entry in result["items"].items()}
    routing = result["routed"]
    if routing not in ROUTED:
        raise ValueError(f"routed is {routing!r}, expected one of {', '.join(ROUTED)}")
    sent = a_dict(result["routing"]) if routing == "inferred" else {}
    if strangers := {*sent, *(metric.side for metric in metrics)} - sides.keys():
        raise ValueError(f"there are no items of {min(strangers)!r}")
    numbers = {(kind, average): _numbers(entries, metrics, kind, average) for kind in KINDS for average in AVERAGES}
    numbers["measured", "final"] |= _costs(result)
    numbers["measured", "final"] |= {f"{side} routed right": number(sent[side]["final_average"]) for side in sent}
    return Run(
        directory=directory,
        trains=truth(result["trains"]),
        keys=comparable_keys(result, record, directory / "config.json", config),
        seeds=(int(config["seed"]), int(config["data.seed"])),
        tasks=tasks,
        metrics=metrics,
        matrices={kind: _matrices(entries, headlines(metrics), kind, len(tasks)) for kind in KINDS},
        numbers=numbers,
        routing=routing,
        sides=sides,
        items={side: per_task(result["items"][side]["val"], len(tasks), 1) for side in sides},
        routed={side: triangle(sent[side]["matrix"], len(tasks), "%")[-1].tolist() for side in sent},
        confusion={side: confusion(sent[side]["confusion"], len(tasks)) for side in sent if "confusion" in sent[side]},
        protocol=str(result["protocol"]),
        commit=_commit(record),
        started=date(record.get("started")),
    )


def _of(entry: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The part of a metric's entry that is of this kind; None where nobody knows what a guess finds."""
    if kind == "measured":
        return entry
    return entry["frozen"] if kind == "frozen" else entry.get("chance")


def _numbers(entries: Result, metrics: Sequence[Metric], kind: str, average: str) -> dict[str, float]:
    parts = {metric: part for metric in metrics if (part := _of(entries[metric.name], kind)) is not None}
    numbers = {metric.column: number(part[f"{average}_average"]) for metric, part in parts.items()}
    if average == "final" and kind != "chance":
        for metric in headlines(metrics):
            numbers[f"{metric.group_column} forgetting"] = number(parts[metric]["forgetting"])
    return numbers


def _matrices(entries: Result, metrics: Sequence[Metric], kind: str, tasks: int) -> dict[str, np.ndarray]:
    parts = {metric: part for metric in metrics if (part := _of(entries[metric.name], kind)) is not None}
    return {metric.name: triangle(part["matrix"], tasks, metric.unit) for metric, part in parts.items()}


def _costs(result: Result) -> dict[str, float]:
    seconds = sum(number(part) for task in result["seconds"] for part in task.values())
    return {"minutes": seconds / 60, "peak_memory_mb": number(result["peak_memory_mb"])}
