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
Stage = dict[str, Any]  # what was measured after a task (`continual.finish`)

# The controls in which every item is searched among those of its own task, which stay the same: what is forgotten there
# is forgotten, and the rest of the forgetting comes from ever more items to choose from.
OWN, OWN_FROZEN = "own", "own_frozen"


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
        **_probes(progress.stages),
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
        "training_flops": _flops(progress, steps),
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

    values = matrix_of("values")
    controls = {name: _control(metric, name, stages) for name in stages[-1]["controls"]}
    frozen = controls.pop("frozen")
    before = np.array([stage["arrival"][metric.name][-1] for stage in stages])
    untouched = np.array([row[-1] for row in frozen["matrix"]])
    described, better = metric._asdict(), metric.higher_is_better
    del described["name"]
    averages = metrics.summary(values, better)
    for own, part in ((OWN, averages), (OWN_FROZEN, frozen)):
        if own in controls:
            fixed = controls[own]["forgetting"]
            for growing in (part, controls[own]):
                growing.update(_split(growing["forgetting"], fixed))
    numbers = {
        **described,
        "matrix": _rows(values),
        "before_learning": before.tolist(),
        **averages,
        "forward_transfer": metrics.forward_transfer(before, untouched),
        "zero_shot_retention": _known(metrics.zero_shot_retention(before, untouched)) if better else None,
        "frozen": frozen,
        "controls": controls,
        **({"bootstrap": known} if (known := stages[-1]["intervals"].get(metric.name)) else {}),
        **_future(metric, stages),
    }
    if all(metric.name in stage["chance"] for stage in stages):
        chance = matrix_of("chance")
        numbers["chance"] = {
            "matrix": _rows(chance),
            "incremental_average": metrics.incremental_average(chance),
            "final_average": metrics.final_average(chance),
            "forgetting": metrics.summary(chance, better)["forgetting"],
        }
    return numbers


def _control(metric: Metric, name: str, stages: Sequence[Stage]) -> dict[str, Any]:
    """Matrix and averages of one control of a metric."""
    matrix = _matrix([stage["controls"][name]["values"][metric.name] for stage in stages])
    last = stages[-1]["controls"][name]
    return {
        "label": last["label"],
        "measures_method": last["measures_method"],
        "matrix": _rows(matrix),
        **metrics.summary(matrix, metric.higher_is_better),
    }


def _split(forgetting: float, fixed: float) -> dict[str, float]:
    """Forgetting in two: what is lost among items that stay the same, and what more items to choose from cost."""
    return {"forgetting_fixed_gallery": fixed, "gallery_growth": forgetting - fixed}


def _future(metric: Metric, stages: Sequence[Stage]) -> dict[str, Any]:
    """MTIL's numbers, of all tasks of the stream on items that stay the same; {} where they were not measured."""
    rows = [stage.get("future", {}).get(metric.name) for stage in stages]
    frozen = stages[-1].get("future_frozen", {}).get(metric.name)
    if frozen is None or any(row is None for row in rows):
        return {}
    matrix = np.array(rows, float)
    averages = {
        "transfer": _known(metrics.transfer(matrix)),
        "average": metrics.average(matrix),
        "last": metrics.last(matrix),
    }
    return {"future": {"matrix": matrix.tolist(), **averages, "frozen": list(frozen)}}


def _probes(stages: Sequence[Stage]) -> dict[str, Any]:
    """By probe (items of no task) and metric the value after every stage and the frozen backbone's; {} without any."""
    last = stages[-1].get("probes", {})
    names = [name for name in last if all(name in stage.get("probes", {}) for stage in stages)]
    probes = {
        name: {
            metric: {"values": [stage["probes"][name]["values"][metric] for stage in stages], "frozen": frozen}
            for metric, frozen in last[name]["frozen"].items()
        }
        for name in names
    }
    return {"probes": probes} if probes else {}


def _known(value: float) -> float | None:
    """The value, or nothing where it is NaN, which JSON does not have."""
    return None if np.isnan(value) else value


def _routing(sides: Mapping[str, str], stages: Sequence[Stage]) -> dict[str, Any]:
    """By side how many items were sent to their own task, and where those of the newest stage were sent."""
    last = stages[-1]["routing"]
    return {
        side: {
            "label": sides[side],
            "matrix": [stage["routing"][side]["accuracy"] for stage in stages],
            "final_average": float(np.mean(last[side]["accuracy"])),
            **{kind: last[side][kind] for kind in ("among", "confusion") if kind in last[side]},
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


def _flops(progress: Progress, steps: Sequence[int]) -> list[int] | None:
    """Floating point operations of each task's training steps; nothing where they are not known of all."""
    known = len(progress.flops) == progress.count
    known = known and all(flops or not count for flops, count in zip(progress.flops, steps, strict=False))
    return list(progress.flops) if known else None


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
        f"{metric['group']} {metric['final_average']:.1f} {metric['unit']}".rstrip() + f" ({_beside(metric)})"
        for metric in headlines(results)
    )
    labels = {metric["label"] for metric in headlines(results)}
    routed = ", ".join(f"{side['label']} {side['final_average']:.1f} %" for side in results["routing"].values())
    routing = {"inferred": f"; routed right: {routed}", "given": "; tasks given"}.get(results["routed"], "")
    return f"after {results['tasks'][-1]}: {'/'.join(sorted(labels))} {told}{routing}"


def _beside(metric: dict[str, Any]) -> str:
    """The frozen backbone's final average, and that of the best that it reaches with the method's knowledge.

    That on its own task's items alone is an easier question, and no rival.
    """
    rivals = [
        control for name, control in metric["controls"].items() if not control["measures_method"] and name != OWN_FROZEN
    ]
    frozen = metric["frozen"]
    told = f"zero-shot {frozen['final_average']:.1f}"
    if not rivals:
        return told
    best = (max if metric["higher_is_better"] else min)(rivals, key=lambda control: control["final_average"])
    added = best["label"].removeprefix(frozen["label"]).lstrip(", ")
    return f"{told}, {added} {best['final_average']:.1f}"
