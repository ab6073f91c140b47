"""Runs as reports need them: everything is checked and converted where it is read, so that nothing fails later."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpi_jax import config as configs
from lpi_jax.config import records
from lpi_jax.errors import UserError
from lpi_jax.report import entries as of_metrics
from lpi_jax.report.checked import (
    a_dict,
    a_list,
    confusion,
    count,
    date,
    json_file,
    number,
    per_task,
    shares,
    text,
    triangle,
    truth,
)
from lpi_jax.report.entries import Bootstrap, Control, Kind, Probe
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
      keys: what makes it comparable with others. seeds: its own and the data's. items_hash: equal for the same items.
      tasks: names of the finished tasks.
      metrics: in the order in which they are shown.
      controls: by their names, which are kinds too.
      matrices: kind -> name of a headline metric -> [T, T] values R[s][t] in its unit, NaN for t > s; kinds:
        `measured`, `frozen`, for metrics of which it is known `chance`, and the controls.
      numbers: (kind, average) -> the numbers of one row of the table by column.
      bootstraps: name of a metric -> how well its final average is known; may be empty.
      probes: probe -> name of a headline metric -> its values; may be empty.
      routing: whether items are sent to tasks (`inferred`), belong to them (`given`) or are not sent (`none`).
      sides: side -> what its items are called. items: side -> number of validation items per task.
      routed: side -> per task the per cent of its items that were routed to it after the last task; may be empty.
      among: side -> per task the per cent of its items whose own is one of several tasks chosen; may be empty.
      confusion: side -> [T, T] or, with a column for items routed nowhere, [T, T + 1] counts of items by true and
        routed task; may be empty.
      remarks: sentences. commit, started: as in config.json; "" where it does not say.
    """

    directory: Path
    trains: bool
    keys: dict[str, Any]
    seeds: tuple[int, int]
    items_hash: str
    tasks: tuple[str, ...]
    metrics: tuple[Metric, ...]
    controls: dict[Kind, Control]
    matrices: dict[Kind, dict[str, np.ndarray]]
    numbers: dict[tuple[Kind, str], dict[str, float]]
    bootstraps: dict[str, Bootstrap]
    probes: dict[str, dict[str, Probe]]
    routing: str
    sides: dict[str, str]
    items: dict[str, list[int]]
    routed: dict[str, list[float]]
    among: dict[str, list[float]]
    confusion: dict[str, np.ndarray]
    protocol: str
    remarks: list[str]
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
    controls = of_metrics.controls(entries, metrics)
    kinds = (*KINDS, *controls)
    return Run(
        directory=directory,
        trains=truth(result["trains"]),
        keys=comparable_keys(result, record, directory / "config.json", config),
        seeds=(int(config["seed"]), int(config["data.seed"])),
        items_hash=str(record["stream"]),
        tasks=tasks,
        metrics=metrics,
        controls=controls,
        matrices={kind: of_metrics.matrices(entries, headlines(metrics), kind, len(tasks)) for kind in kinds},
        numbers=_numbers(result, metrics, kinds, sent),
        bootstraps=of_metrics.bootstraps(entries, metrics, ("frozen", *controls)),
        probes=of_metrics.probes(result.get("probes", {}), metrics, len(tasks)),
        routing=routing,
        sides=sides,
        items={side: per_task(result["items"][side]["val"], len(tasks), 1) for side in sides},
        routed={side: triangle(sent[side]["matrix"], len(tasks), "%")[-1].tolist() for side in sent},
        among={side: shares(sent[side]["among"], len(tasks)) for side in sent if "among" in sent[side]},
        confusion={side: confusion(sent[side]["confusion"], len(tasks)) for side in sent if "confusion" in sent[side]},
        protocol=str(result["protocol"]),
        remarks=_remarks(result),
        commit=_commit(record),
        started=date(record.get("started")),
    )


def _numbers(
    result: Result, metrics: Sequence[Metric], kinds: Sequence[Kind], sent: dict[str, Any]
) -> dict[tuple[Kind, str], dict[str, float]]:
    """(kind, average) -> numbers by column; what the method cost and where it sent items stand with its final ones."""
    entries, tasks = result["metrics"], len(result["tasks"])
    numbers = {
        (kind, average): of_metrics.numbers(entries, metrics, kind, average) for kind in kinds for average in AVERAGES
    }
    measured, frozen = of_metrics.future(entries, metrics, tasks, len(result["tasks_to_come"]))
    numbers["frozen", "final"] |= frozen
    numbers["measured", "final"] |= measured
    if not result["trains"] or tasks == 1:  # nothing can have been lost before it was learnt
        for metric in headlines(metrics):
            numbers["measured", "final"].pop(f"{metric.group_column} {of_metrics.KEPT}", None)
    numbers["measured", "final"] |= {f"{side} routed right": number(sent[side]["final_average"]) for side in sent}
    numbers["measured", "final"] |= _costs(result)
    return numbers


def _remarks(result: Result) -> list[str]:
    """What the results remark, and what became of the tasks whose prompts were put aside."""
    remarks = [text(remark) for remark in a_list(result.get("remarks", []))]
    if (plain_tasks := result.get("plain_tasks")) is not None:
        names = [text(name) for name in a_list(plain_tasks["names"])]
        if put_aside := count(plain_tasks["count"]):
            told = f"of {put_aside} of {len(result['tasks'])} tasks did not beat the frozen backbone on held-out items"
            remarks.append(f"the prompts {told}: {', '.join(names)}")
        else:
            remarks.append("the prompts of every task beat the frozen backbone on held-out items")
    return [remark for remark in remarks if remark]


def _costs(result: Result) -> dict[str, float]:
    minutes = {
        work: sum(number(task.get(work, 0)) for task in result["seconds"]) / 60 for work in ("training", "evaluation")
    }
    seconds = sum(number(part) for task in result["seconds"] for part in task.values())
    costs = {"minutes": seconds / 60, "peak_memory_mb": number(result["peak_memory_mb"])}
    parameters, flops = result["parameters"], result.get("training_flops")  # older results do not say all of it
    if result["trains"] and {"per_task", "backbone"} <= parameters.keys():
        costs["trained numbers"] = number(parameters["per_task"])
        costs["trained share"] = 100 * costs["trained numbers"] / max(1.0, number(parameters["backbone"]))
    if flops is not None:
        costs["training TFLOP"] = sum(map(number, a_list(flops))) / 1e12
    return costs | {f"{work} minutes": spent for work, spent in minutes.items()}
