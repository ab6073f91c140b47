"""What a run would do, without doing it: tasks, devices, memory and time, from its own first training steps.

Reads backbone and data as the run would, refuses what the run would refuse, trains nothing that is kept, and writes
nothing to the run's directory.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax import paths
from lpi_jax.experiment import reuse
from lpi_jax.experiment.experiment import Experiment, assemble
from lpi_jax.experiment.progress import Progress, restore
from lpi_jax.parallel import compilation, mesh
from lpi_jax.run import continual, start
from lpi_jax.run.task import context, key_of
from lpi_jax.terminal.display import duration, room
from lpi_jax.train import optimizer, step
from lpi_jax.workdir import ownership
from lpi_jax.workdir.checkpoint import Checkpoints

TIMED = 3  # batches, each learnt from twice: the first time may compile for its shape
LEAVES_OUT = (
    "Every step counts as one of the first task. Evaluation after every task is not timed: the run says how long is"
    " left once it has measured a task."
)


class Steps(NamedTuple):
    """A training step of the first task: numbers it trains, seconds to compile and to run, operations, bytes.

    Of steps of several shapes the mean of seconds and operations, and the largest of bytes.
    """

    numbers: int
    compiling: float
    seconds: float
    flops: int
    arguments: int
    rest: int


def tell(config: ConfigDict, directory: str | Path) -> str:
    """What a run of this configuration in this directory would do, as text.

    Raises:
      UserError: as the run itself would.
    """
    configs.check(config)
    return "\n".join(_told(paths.in_config(config), paths.local(directory, "--workdir")))


def _told(config: ConfigDict, directory: Path) -> Iterator[str]:
    compilation.keep_compiled(config.compilation_cache)
    start.meet(config, directory)
    experiment = assemble(config)
    hashes = start.made_from(experiment)
    if config.reuse:
        reuse.memory_of_run(experiment)
    steps = continual.steps_of(experiment)
    mesh.connect(experiment.mesh)
    checkpoints = Checkpoints(directory, config.train.checkpoints_kept)
    yield _method(experiment)
    if start.finished(experiment, hashes, directory, checkpoints):
        yield f"Directory: {directory} holds this run, finished: there is nothing left to do."
        return
    done = 0
    if ownership.holds(directory, experiment.config, hashes):
        progress = restore(checkpoints)
        start.refuse_older(progress, directory)
        done = sum(steps[: progress.count]) + checkpoints.steps_inside(progress.count)
        yield f"Directory: {directory} holds this run behind {progress.count} tasks and {done:,} steps."
    else:
        yield f"Directory: {directory}, where this run has not begun."
    yield ""
    yield from _tasks(experiment, steps)
    yield ""
    leaves = jax.tree.leaves(experiment.backbone.params)
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    yield f"Backbone: {sum(leaf.size for leaf in leaves):,} numbers, {room(here)} on each device."
    if not any(steps):
        yield "Nothing is trained."
        return
    one = measured(experiment)
    yield f"A task trains {one.numbers:,} numbers."
    yield (
        f"A step of the first task: {one.seconds:.3g} s, {one.flops / 1e9:.3g} GFLOP; of each device's memory"
        f" {room(one.arguments)} of arguments, {room(one.rest)} of results and temporaries"
        f" (compiled in {one.compiling:.1f} s)."
    )
    left = sum(steps) - done
    yield f"Training: {left:,} steps, {duration(left * one.seconds)}, {left * one.flops / 1e12:.3g} TFLOP."
    yield LEAVES_OUT


def _method(experiment: Experiment) -> str:
    """What would run on which devices."""
    config, devices = experiment.config, experiment.mesh.devices.flat
    axes = ", ".join(f"{name} {size}" for name, size in experiment.mesh.shape.items())
    kinds = sorted({device.device_kind for device in devices})
    method = f"{experiment.method.name} (preset {config.preset})"
    return f"Method {method} on {len(devices)} x {' and '.join(kinds)} ({axes})."


def _tasks(experiment: Experiment, steps: list[int]) -> Iterator[str]:
    """A table of the stream."""
    problem = experiment.problem
    names = list(problem.items(experiment.stream.tasks[0].val))
    yield f"| task | training examples | {' | '.join(f'validation {problem.sides[name]}' for name in names)} | steps |"
    yield f"|{' --- |' * (3 + len(names))}"
    for task, count in zip(experiment.stream.tasks, steps, strict=True):
        items = problem.items(task.val)
        cells = [f"{problem.examples(task.train):,}", *(f"{items[name]:,}" for name in names), f"{count:,}"]
        yield f"| {task.name} | {' | '.join(cells)} |"


def measured(experiment: Experiment) -> Steps:
    """A few steps of the first task at a learning rate of 0, on its own first batches."""
    options, frozen, seed = experiment.training, experiment.backbone.params, experiment.config.seed
    task = context(experiment, experiment.evaluator(), Progress())
    key = jax.random.fold_in(jax.random.key(seed), 0)
    trainable, constants = experiment.method.begin(key, {}, frozen, task)
    chain = optimizer.make_optimizer(options)
    made = step.make_step(experiment.problem, experiment.method, chain, experiment.mesh, options.microbatch)
    state, constants = made.start(trainable), mesh.put_replicated(constants, experiment.mesh)
    first, again, calls = [], [], 0
    for rows in task.batches(TIMED):
        for spent in (first, again):
            began = time.perf_counter()
            state, _ = made.run(state, frozen, constants, rows, key_of(seed, 0), jnp.float32(0))
            jax.block_until_ready(state)
            spent.append(time.perf_counter() - began)
            calls += 1
    sizes = [program.run.memory_analysis() for program in made.run.programs.values()]
    return Steps(
        numbers=sum(leaf.size for leaf in jax.tree.leaves(trainable)),
        compiling=max(0.0, sum(first) - sum(again)),
        seconds=statistics.mean(again),
        flops=made.run.flops // calls,
        arguments=max(size.argument_size_in_bytes for size in sizes),
        rest=max(s.output_size_in_bytes - s.alias_size_in_bytes + s.temp_size_in_bytes for s in sizes),
    )
