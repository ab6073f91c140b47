"""Measuring once more, in another way, what another run has trained (`config.reuse`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax import options
from lpi_jax.config import records
from lpi_jax.config.table import is_read
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import Experiment
from lpi_jax.experiment.progress import restore
from lpi_jax.methods.registry import METHODS
from lpi_jax.parallel import processes
from lpi_jax.types import Tree
from lpi_jax.workdir import checkpoint, ownership

RESULTS = "results.json"


def memory_of_run(experiment: Experiment) -> Tree:
    """The memory of the run in the folder `config.reuse`, if it was trained on this backbone and these tasks.

    A finished task's own tree never changes in it, so it holds those of every stage.

    Raises:
      UserError: as `record`, or the run has another backbone or other tasks.
    """
    config = experiment.config
    if not experiment.method.options.keeps_tasks:
        raise UserError(
            f"config.reuse is {config.reuse!r}, but {experiment.method.name} keeps no tree of every task; expected a"
            " method that does, or no config.reuse"
        )
    there = processes.agreed(lambda: record(config))
    if there.get("backbone") != experiment.backbone.hashes["backbone"]:
        raise UserError(f"config.reuse is {config.reuse!r}, a run on another backbone than config.backbone")
    progress = restore(checkpoint.Checkpoints(Path(config.reuse)))
    check_tasks(progress.names, experiment.stream, config.reuse)
    return progress.memory


def record(config: ConfigDict) -> dict[str, Any]:
    """The record of the run in the folder `config.reuse`.

    Raises:
      UserError: there is no run, or its method is not the one that `config`, resolved, asks for.
    """
    there = ownership.read(Path(config.reuse))
    theirs, own = (configs.flat(one) for one in (records.configuration(there, config.reuse), config))
    declared = options.declared(METHODS[config.method.name].Options, "method")
    # What only training reads may differ: what was trained with it can be measured without.
    for key in ("method.name", *(key for key in declared if is_read(key, own))):
        if theirs[key] != own[key]:
            raise UserError(
                f"config.reuse is {config.reuse!r}, a run with config.{key} {theirs[key]!r} instead of {own[key]!r};"
                f" use --config.{key}={theirs[key]}"
            )
    return there


def check(config: ConfigDict, stream: Stream) -> None:
    """Raises UserError where `record` does, or where the run's results so far are not of the stream's tasks."""
    record(config)
    try:
        names = [str(name) for name in json.loads((Path(config.reuse) / RESULTS).read_bytes())["tasks"]]
    except (OSError, ValueError, KeyError, TypeError):  # before its first task ends there are none
        names = []
    check_tasks(names, stream, config.reuse)


def check_tasks(there: Sequence[str], stream: Stream, directory: str) -> None:
    """Raises UserError unless the tasks that the run in `directory` has finished begin with those of the stream."""
    for number, (task, other) in enumerate(zip(stream.tasks, there, strict=False), 1):
        if task.name != other:
            raise UserError(f"task {number} is {task.name!r} here and {other!r} in the run {directory}")
    if len(there) < len(stream.tasks):
        raise UserError(
            f"config.reuse is {directory!r}, a run that has finished {len(there)} of the {len(stream.tasks)} tasks so"
            " far; start again when it is done"
        )
