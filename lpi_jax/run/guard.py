"""A task whose prompts do not beat the frozen backbone on held-out images is remembered without any."""

import math

import numpy as np

from lpi_jax.experiment.experiment import Experiment
from lpi_jax.methods.base import NOTHING, TaskContext
from lpi_jax.parallel import processes
from lpi_jax.problems.base import Evaluator
from lpi_jax.run.log import Log
from lpi_jax.types import Tree


def better(experiment: Experiment, evaluator: Evaluator, task: TaskContext, trained: Tree, log: Log) -> Tree:
    """The trained tree of a task, or the one that leaves the backbone as it is, if it does not beat that one."""
    method, held_out = experiment.method, experiment.stream.tasks[task.number].held_out
    if held_out is None or method.plain is None or experiment.config.reuse:
        return trained
    adapter, _ = method.adapt(trained, {}, experiment.backbone.params, NOTHING)
    with_it, without = evaluator.compare(held_out, adapter)
    gain, error = gained(with_it, without)
    # The first process's: another processor may round otherwise.
    if processes.copied(np.bool_(gain > 0)):
        return trained
    log.prints(
        f"task {task.names[-1]} keeps the frozen backbone: on {len(with_it)} held-out images its prompts miss"
        f" {with_it.mean():.3f}, the backbone {without.mean():.3f} (the difference is known to +-{error:.3f})"
    )
    return method.plain(trained)


def gained(with_it: np.ndarray, without: np.ndarray) -> tuple[float, float]:
    """By how much what is missed [N] falls, on the average, and its standard error, paired; 0 of a single one."""
    falls = np.asarray(without, np.float64) - with_it
    error = falls.std(ddof=1) / math.sqrt(len(falls)) if len(falls) > 1 else 0.0
    return float(falls.mean()), float(error)
