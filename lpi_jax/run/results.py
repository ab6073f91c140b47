"""results.json: the matrices and averages, with everything a reader needs to compare them with others'."""

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lpi_jax import metrics
from lpi_jax.data import batches
from lpi_jax.experiment import checks
from lpi_jax.experiment.experiment import Experiment
from lpi_jax.experiment.progress import Progress
from lpi_jax.problems.base import Metric

SCHEMA = 2
Stage = dict[str, Any]  # what was measured after a task (`continual.measure`)


def summarise(experiment: Experiment, steps: Sequence[int], progress: Progress) -> dict[str, Any]:
    """The results so far; everything but `seconds` and `peak_memory_mb` is a function of the configuration.

    Args:
      steps: of training, per task.
    """
    config, stream, method, problem = experiment.config, experiment.stream, experiment.method, experiment.problem
    return {
        "schema": SCHEMA,
        "problem": problem.name,
        "method": method.name,
        "label": label(experiment),
        "preset": config.preset,
        "trains": method.options.trains,
        "routed": experiment.routed if experiment.routed in ("inferred", "given") else "none",
        "protocol": problem.protocol(experiment.routed),
        "precision": {"backbone": config.dtype, "products": config.matmul_precision},
        "stream": {"name": stream.name, "sha256": stream.fingerprint, "notes": dict(stream.notes)},
        "tasks": list(progress.names),
        "tasks_to_come": [task.name for task in stream.tasks[progress.count :]],
        "metrics": {metric.name: _metric(metric, progress.stages) for metric in problem.metrics},
        "routing": _routing(problem.sides, progress.stages),
        "items": _items(experiment),
        **method.facts(progress.memory, progress.names),
        "parameters": _parameters(experiment, progress),
        "counts": {
            "steps": list(steps),
            "examples_left_out_per_epoch": _left_out(experiment, steps),
            "texts_cut": progress.cut,
            "skipped": dict(stream.skipped),
        },
        "seconds": progress.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def label(experiment: Experiment) -> str:
    """What tables call the run."""
    name = experiment.method.name
    if not experiment.method.options.trains:
        return name.replace("_", "-")
    return f"{name.upper()} {experiment.config.preset}"


def _metric(metric: Metric, stages: Sequence[Stage]) -> dict[str, Any]:
    """Matrix and averages of one metric, with the frozen backbone's and a guess's on the same items."""

    def matrix_of(kind: str) -> np.ndarray:
        return _matrix([stage[kind][metric.name] for stage in stages])

    values, frozen = matrix_of("values"), matrix_of("frozen")
    before = np.array([stage["arrival"][metric.name][-1] for stage in stages])
    untouched = np.diagonal(frozen)
    described = metric._asdict()
    del described["name"]
    numbers = {
        **described,
        "matrix": _rows(values),
        "before_learning": before.tolist(),
        **metrics.summary(values, metric.higher_is_better),
        "forward_transfer": metrics.forward_transfer(before, untouched),
        "zero_shot_retention": metrics.zero_shot_retention(before, untouched),
        "frozen": {"matrix": _rows(frozen), **metrics.summary(frozen, metric.higher_is_better)},
    }
    if all(metric.name in stage["chance"] for stage in stages):
        chance = matrix_of("chance")
        numbers["chance"] = {
            "matrix": _rows(chance),
            "incremental_average": metrics.incremental_average(chance),
            "final_average": metrics.final_average(chance),
        }
    return numbers


def _routing(sides: Mapping[str, str], stages: Sequence[Stage]) -> dict[str, Any]:
    """By side how many items were sent to their own task, and where those of the newest stage were sent."""
    last = stages[-1]["routing"]
    return {
        side: {
            "label": sides[side],
            "matrix": [stage["routing"][side]["accuracy"] for stage in stages],
            "final_average": float(np.mean(last[side]["accuracy"])),
            **({"confusion": last[side]["confusion"]} if "confusion" in last[side] else {}),
        }
        for side in last
    }


def _items(experiment: Experiment) -> dict[str, Any]:
    """By side the number of training and validation items of each task of the stream."""
    problem, tasks = experiment.problem, experiment.stream.tasks
    train, val = (
        [problem.items(split) for split in splits] for splits in zip(*((t.train, t.val) for t in tasks), strict=True)
    )
    return {
        side: {"label": name, "train": [counts[side] for counts in train], "val": [counts[side] for counts in val]}
        for side, name in problem.sides.items()
    }


def _parameters(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    trained = sum(leaf.size for leaf in jax.tree.leaves(progress.memory.get("trained", {})))
    return {
        "per_task": trained // (progress.count if experiment.method.options.keeps_tasks else 1),
        "trained": trained,
        "backbone": sum(leaf.size for leaf in jax.tree.leaves(experiment.backbone.params)),
        "backbone_source": experiment.config.backbone,
        "backbone_sha256": experiment.backbone.hashes["backbone"],
        "backbone_assumed": experiment.backbone.assumed,
    }


def _left_out(experiment: Experiment, steps: Sequence[int]) -> list[int]:
    """Per task the examples that an epoch leaves out because they do not fill a batch."""
    training, method = experiment.training, experiment.method
    return [
        batches.dropped_per_epoch(experiment.problem.examples(task.train), checks.own_rows(training, method, number))
        if count
        else 0
        for number, (task, count) in enumerate(zip(experiment.stream.tasks, steps, strict=True))
    ]


def _matrix(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """[T, T] float64, R[s][t]; NaN for t > s."""
    matrix = np.full((len(rows), len(rows)), np.nan)
    for s, row in enumerate(rows):
        matrix[s, : s + 1] = row
    return matrix


def _rows(matrix: np.ndarray) -> list[list[float]]:
    return [row[: s + 1].tolist() for s, row in enumerate(matrix)]


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """The final averages by name, for curves over the stages."""
    return {f"eval/{name}": metric["final_average"] for name, metric in results["metrics"].items()}


def headlines(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The first metric of every group."""
    first: dict[str, dict[str, Any]] = {}
    for metric in results["metrics"].values():
        first.setdefault(metric["group"], metric)
    return list(first.values())


def line(results: dict[str, Any]) -> str:
    """One line that says how the run stands after a task; routing only where it decides anything."""
    told = ", ".join(
        f"{metric['group']} {metric['final_average']:.1f} {metric['unit']}"
        f" (zero-shot {metric['frozen']['final_average']:.1f})"
        for metric in headlines(results)
    )
    labels = {metric["label"] for metric in headlines(results)}
    routed = ", ".join(f"{side['label']} {side['final_average']:.1f} %" for side in results["routing"].values())
    routing = {"inferred": f"; routed right: {routed}", "given": "; tasks given"}.get(results["routed"], "")
    return f"after {results['tasks'][-1]}: {'/'.join(sorted(labels))} {told}{routing}"
