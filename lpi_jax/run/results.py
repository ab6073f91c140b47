"""results.json: the matrices and averages, with everything a reader needs to compare them with others'."""

import resource
from dataclasses import dataclass, field
from typing import Any

import jax
from ml_collections import ConfigDict

from lpi_jax.data import loader
from lpi_jax.data.stream import Stream
from lpi_jax.experiment import assemble
from lpi_jax.methods.memory import Memory
from lpi_jax.problems.retrieval import evaluate
from lpi_jax.run import learn


@dataclass
class Progress:
    """What the finished tasks left; a boundary checkpoint holds all of it.

    Attributes:
      memory: prompts, centres and descriptions. stages: what was measured after each task.
      seconds: spent on each task, by kind of work. cut: captions of finished tasks that are longer than the context.
    """

    memory: Memory
    stages: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[dict[str, float]] = field(default_factory=list)
    cut: int = 0

    def measured(self, stage: dict[str, Any]) -> None:
        """One more stage. Only the newest keeps where items were routed to: a matrix for each would grow with T³."""
        for earlier in self.stages:
            earlier.pop("confusion", None)
        self.stages.append(stage)


def summarise(
    config: ConfigDict, system: assemble.System, stream: Stream, steps: list[int], progress: Progress
) -> dict[str, Any]:
    """The results so far; everything but `seconds` and `peak_memory_mb` is a function of the configuration.

    Args:
      steps: of training, per task.
    """
    memory = progress.memory
    numbers = sum(leaf.size for leaf in jax.tree.leaves(memory.trained))
    oracle, asks = config.task_id == "oracle", config.routing.caption == "placeholders"
    return {
        "method": config.method,
        "preset": config.preset,
        "task_id": config.task_id,
        "precision": {"towers": config.dtype, "products": config.matmul_precision},
        "stream": {"name": stream.name, "sha256": stream.fingerprint, "notes": dict(stream.notes)},
        "tasks": list(memory.names),
        "tasks_to_come": [task.name for task in stream.tasks[memory.count :]],
        "protocol": evaluate.protocol(config.eval.gallery, oracle, config.eval.transform, asks),
        **evaluate.report(progress.stages),
        "similarity": learn.task_similarity(config, system, memory).tolist(),
        "parameters": {
            "per_task": numbers // memory.count,
            "trained": numbers,
            "backbone": sum(leaf.size for leaf in jax.tree.leaves(system.backbone)),
            "backbone_source": config.backbone,
            "backbone_sha256": system.sha256,
            "backbone_assumed": system.model.config.assumed,
        },
        "counts": {
            "train_pictures": [len(task.train) for task in stream.tasks],
            "train_captions": [len(task.train.pairs) for task in stream.tasks],
            "val_pictures": [len(task.val) for task in stream.tasks],
            "val_captions": [len(task.val.pairs) for task in stream.tasks],
            "steps": steps,
            "captions_left_out_per_epoch": [
                loader.dropped_per_epoch(len(task.train.pairs), config.train.batch) if own else 0
                for task, own in zip(stream.tasks, steps, strict=True)
            ],
            "captions_cut": progress.cut,
            "skipped": dict(stream.skipped),
        },
        "seconds": progress.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """The final averages by name, for curves over the stages."""
    recall = results["recall"]
    return {f"eval/{d}/R@{k}": recall[d][k]["final_average"] for d in recall for k in recall[d]}


def line(results: dict[str, Any]) -> str:
    """One line that says how the run stands after a task; routing only where it decides anything."""
    recall, frozen, routed = results["recall"], results["zero_shot"], results["routing_accuracy"]
    routing = (
        f"; routed right: images {routed['image']['final_average']:.1f} %,"
        f" captions {routed['text']['final_average']:.1f} %"
    )
    if results["method"] == "zero_shot":
        routing = ""
    elif results["task_id"] == "oracle":
        routing = "; tasks given"
    return (
        f"after {results['tasks'][-1]}: R@1"
        f" image to text {recall['image_to_text']['1']['final_average']:.1f} %"
        f" (zero-shot {frozen['image_to_text']['1']['final_average']:.1f}),"
        f" text to image {recall['text_to_image']['1']['final_average']:.1f} %"
        f" (zero-shot {frozen['text_to_image']['1']['final_average']:.1f}){routing}"
    )
