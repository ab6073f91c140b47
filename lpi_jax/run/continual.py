"""The continual run: for each task train, remember, evaluate, checkpoint.

What happens at a start, in this order:
  1. find the devices; build backbone, method and stream; refuse what cannot work before anything is written;
  2. end with its results where the run is finished; until here nothing is written;
  3. take the run's directory for as long as this start lasts, and claim it or find that it is ours;
  4. go on behind the newest task boundary: memory, results so far, features of the items;
  5. inside the next task, go on from the newest train state, if there is one.
Everything else (data order, crops, initial prompts) is a function of the seed, so a killed run ends with the same bits.
"""

import sys
import threading
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax import paths
from lpi_jax.data import loader
from lpi_jax.data.stream import Split
from lpi_jax.experiment import checks, reuse
from lpi_jax.experiment.experiment import Experiment, assemble
from lpi_jax.experiment.progress import Progress, restore
from lpi_jax.methods.base import TaskContext
from lpi_jax.parallel import compilation, lock, mesh, processes
from lpi_jax.problems.base import Evaluator
from lpi_jax.run import boundary, guard, results, start
from lpi_jax.run.log import Log
from lpi_jax.run.signals import TERMINATED, terminated
from lpi_jax.run.task import Reused, Trainer, context
from lpi_jax.types import Tree
from lpi_jax.workdir import ownership
from lpi_jax.workdir.checkpoint import Checkpoints


def run(config: ConfigDict, directory: str | Path) -> dict[str, Any]:
    """Learns the configured stream task by task, or goes on where an earlier start was interrupted.

    Args:
      config: a preset of `lpi_jax.config`, changed as wished.
      directory: the run's own; a finished run returns its results at once, and writes nothing.

    Returns:
      The results, as in results.json.

    Raises:
      UserError: something the user can mend; nothing is half-written.
      SystemExit: after SIGTERM, once the state is saved.
    """
    configs.check(config)
    config, directory = paths.in_config(config), paths.local(directory, "--workdir")
    with lock.Lock(directory) as held:
        return _run(config, directory, held)


def _run(config: ConfigDict, directory: Path, held: lock.Lock) -> dict[str, Any]:
    compilation.keep_compiled(config.compilation_cache)
    start.meet(config, directory)
    experiment = assemble(config)
    hashes = start.made_from(experiment)
    reused = Reused(experiment, reuse.memory_of_run(experiment)) if config.reuse else None
    steps = steps_of(experiment)
    mesh.connect(experiment.mesh)
    checkpoints = Checkpoints(directory, config.train.checkpoints_kept)
    if done := start.finished(experiment, hashes, directory, checkpoints):
        return done

    processes.agreed(held.take)
    changed = processes.agreed(lambda: ownership.claim(directory, experiment.config, hashes))
    checkpoints.prepare()
    progress = restore(checkpoints)
    start.refuse_older(progress, directory)
    evaluator, splits = experiment.evaluator(), _validation(experiment)
    evaluator.expect(splits)
    boundary.refill(directory, evaluator, splits, progress)
    log = start.log(experiment, directory, steps, progress, checkpoints.steps_inside(progress.count))
    try:
        start.tell(experiment, log, changed)
        with terminated() as stop:
            trainer = reused or Trainer(experiment, checkpoints, log, steps, stop)
            for split in splits[progress.count :]:
                task = context(experiment, evaluator, progress)
                with progress.timed("training"):
                    trained = trainer.train(task, progress.memory)
                    progress.flops.append(trainer.flops)
                    trained = guard.better(experiment, evaluator, task, trained, log)
                log.says(task.number, task.names[-1], "evaluation")
                with progress.timed("evaluation"):
                    finish(experiment, evaluator, progress, task, trained, split)
                boundary.save(checkpoints, directory, evaluator, progress)
                summary = boundary.publish(directory, results.summarise(experiment, steps, progress))
                start.tell_results(log, summary, steps, progress)
                _end_if_asked(log, stop, progress, len(splits))
    finally:
        log.close()
    # Written once more: a run killed between checkpoint and results finds them here.
    return boundary.publish(directory, results.summarise(experiment, steps, progress))


def _end_if_asked(log: Log, stop: threading.Event, progress: Progress, tasks: int) -> None:
    """Exits after SIGTERM, unless that was the last task."""
    if processes.anywhere(stop.is_set()) and progress.count < tasks:
        log.prints(f"terminated after task {progress.names[-1]}; the same command goes on from there")
        sys.exit(TERMINATED)


def finish(
    experiment: Experiment, evaluator: Evaluator, progress: Progress, task: TaskContext, trained: Tree, split: Split
) -> None:
    """Remembers a trained task, and measures: the new task as it was met before, then everything seen, after.

    Args:
      progress: gets the task. split: its validation items.
    """
    before, after = progress.memory, experiment.method.finish(progress.memory, trained, task)
    evaluator.add(split)
    evaluator.follow(before, progress.count)
    arrival = evaluator.measure(first=progress.count)
    progress.names, progress.memory = task.names, after
    evaluator.follow(after, progress.count)
    controls = evaluator.controls()
    progress.measured(
        {
            "arrival": arrival,
            "values": evaluator.measure(),
            "controls": {control.name: {**control._asdict(), "values": row} for control, row in controls.items()},
            "chance": evaluator.chance(),
            "intervals": evaluator.intervals(),
            **evaluator.future(),
            "probes": evaluator.probed(),
            "routing": evaluator.routing(progress.count),
        }
    )
    splits = (experiment.stream.tasks[task.number].train, split)
    progress.cut += sum(experiment.problem.cut(part, experiment.method.reserve) for part in splits)


def steps_of(experiment: Experiment) -> list[int]:
    """Training steps of each task, none where a run is reused. Raises UserError for what training would refuse."""
    tasks = experiment.stream.tasks
    if experiment.config.reuse:
        return [0] * len(tasks)
    names, examples = zip(*((task.name, experiment.problem.examples(task.train)) for task in tasks), strict=True)
    return checks.steps_per_task(experiment.training, experiment.method, names, examples, experiment.mesh.size)


def _validation(experiment: Experiment) -> list[Split]:
    """The validation splits of all tasks, which share half of the memory for decoded images."""
    tasks = experiment.stream.tasks
    cache = (experiment.config.data.cache_mb << 19) // len(tasks)
    return [loader.remembered(task.val, cache) for task in tasks]
