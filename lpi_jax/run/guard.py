"""A task whose prompts do not beat the frozen backbone on held-out images is remembered without any."""

import numpy as np

from lpi_jax.experiment.experiment import Experiment
from lpi_jax.methods.base import NOTHING, TaskContext
from lpi_jax.parallel import processes
from lpi_jax.problems.base import Evaluator
from lpi_jax.run.log import Log
from lpi_jax.types import Tree


def better(experiment: Experiment, evaluator: Evaluator, task: TaskContext, trained: Tree, log: Log) -> Tree:
    """The trained tree of a task, or the one that leaves the backbone as it is, if its held-out loss is smaller."""
    method, held_out = experiment.method, experiment.stream.tasks[task.number].held_out
    if held_out is None or method.plain is None or experiment.config.reuse:
        return trained
    adapter, _ = method.adapt(trained, {}, experiment.backbone.params, NOTHING)
    with_it, without = evaluator.compare(held_out, adapter)
    # The first process's: another processor may round otherwise.
    if processes.copied(np.bool_(with_it < without)):
        return trained
    log.prints(
        f"task {task.names[-1]} keeps the frozen backbone: on held-out images its prompts have a loss of {with_it:.3f},"
        f" the backbone {without:.3f}"
    )
    return method.plain(trained)
