"""Training one task of a run: where to begin, what to log, and when to save."""

import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import jax
import numpy as np

from lpi_jax.data import batches, loader
from lpi_jax.experiment import checks
from lpi_jax.experiment.experiment import Experiment
from lpi_jax.experiment.progress import Progress
from lpi_jax.methods.base import TaskContext
from lpi_jax.parallel import mesh, processes
from lpi_jax.problems.base import Evaluator
from lpi_jax.run.finite import Watch
from lpi_jax.run.log import Log
from lpi_jax.run.signals import TERMINATED
from lpi_jax.train import optimizer, step
from lpi_jax.types import Tree
from lpi_jax.workdir.checkpoint import Checkpoints

_KEYS = 1 << 31  # the keys of training steps stand apart from those of initial trees


def context(experiment: Experiment, evaluator: Evaluator, progress: Progress) -> TaskContext:
    """What the method may know of the task that follows those in `progress`."""
    number = progress.count
    task, config = experiment.stream.tasks[number], experiment.config

    def some_batches(count: int) -> Iterator[Tree]:
        source = experiment.problem.source(task.train, experiment.method)
        plan = batches.Plan({number: source}, number, experiment.training.batch_of(number), config.seed)
        rows = batches.training_batches(plan, 0, count, jax.process_index(), jax.process_count())
        with closing(rows):
            for batch in rows:
                yield mesh.put_rows(batch, experiment.mesh)

    return TaskContext(
        number=number,
        names=(*progress.names, task.name),
        meaning=evaluator.meaning(task.description),
        examples=experiment.problem.examples(task.train),
        seed=config.seed,
        features=lambda: evaluator.features(task.train, number),
        batches=some_batches,
        gradient=lambda trainable, constants, batch: experiment.gradient(
            trainable, constants, experiment.backbone.params, batch, key_of(config.seed, number)
        ),
        last=number + 1 == len(experiment.stream.tasks),
    )


def key_of(seed: int, number: int) -> jax.Array:
    """The random key of a task's steps, a scalar."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _KEYS), number)


class Trainer:
    """Trains the tasks of a run one by one, all with one compiled step.

    Args:
      steps: of every task, from `checks.steps_per_task`.
      stop: set when the run is asked to end: the state is saved and the process exits.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        log: Log,
        steps: list[int],
        stop: threading.Event,
    ) -> None:
        self._experiment, self._checkpoints, self._log = experiment, checkpoints, log
        self._steps, self._stop, self._options = steps, stop, experiment.training
        self._compiled, self._watch = False, Watch(self._options.lr)
        self._before = 0  # operations of steps that are not this task's, or negative: that an earlier start took
        if any(steps):
            chain = optimizer.make_optimizer(self._options)
            parts = self._options.microbatch
            self._step = step.make_step(experiment.problem, experiment.method, chain, experiment.mesh, parts)

    @property
    def flops(self) -> int:
        """Floating point operations that the steps of the newest task took, over all devices."""
        return self._step.run.flops - self._before if any(self._steps) else 0

    def train(self, task: TaskContext, memory: Tree) -> Tree:
        """The trained tree of a task, as host arrays; its initial tree where there is nothing to train.

        Goes on from the newest state saved inside this task, if there is one.
        """
        experiment, number = self._experiment, task.number
        key = jax.random.fold_in(jax.random.key(experiment.config.seed), number)
        frozen = experiment.backbone.params
        trainable, constants = experiment.method.begin(key, memory, frozen, task)
        steps = self._steps[number]
        if not steps:
            self._before = self._step.run.flops if any(self._steps) else 0
            return jax.tree.map(np.asarray, trainable)
        self._watch.begin()
        state = self._step.start(trainable)
        saved = self._checkpoints.load_inside(number, jax.tree.map(np.asarray, state))
        if saved is not None:
            state = mesh.put_replicated(saved, experiment.mesh)
        done = int(state.step)
        self._before = self._step.run.flops - self._checkpoints.flops_inside(number)
        self._log.catch_up(sum(self._steps[:number]) + done, self._options.batch_of(number))
        if not self._compiled:
            self._log.says(number, task.names[-1], "compiling", stays=True)
        per_epoch = checks.epoch_of(self._options, experiment.method, number, task.examples)
        rate = optimizer.learning_rate(self._options, per_epoch)
        constants = mesh.put_replicated(constants, experiment.mesh)
        plan = step.Task(frozen, constants, key_of(experiment.config.seed, number), rate)
        with closing(self._batches(number, memory, done)) as rows:
            after_step = lambda *after: self._after_step(task.names[-1], number, per_epoch, *after)  # noqa: E731
            state = step.fit(state, self._step, plan, rows, after_step)
        trained = jax.tree.map(np.asarray, state.trainable)
        self._watch.refuse(task.names[-1], steps, trained)
        return trained

    def _batches(self, number: int, memory: Tree, done: int) -> Iterator[Tree]:
        """This process's rows of the batches of a task, from step `done` on."""
        experiment = self._experiment
        method, config = experiment.method, experiment.config
        buffer = method.replay(memory)
        cache = config.data.cache_mb << 19
        sources = {
            task: experiment.problem.source(loader.remembered(split.train, cache if task == number else 0), method)
            for task, split in enumerate(experiment.stream.tasks[: number + 1])
            if task == number or (buffer[:, 0] == task).any()
        }
        size = self._options.batch_of(number)
        plan = batches.Plan(sources, number, size, config.seed, method.replayed, buffer)
        return batches.training_batches(plan, done, self._steps[number], jax.process_index(), jax.process_count())

    def _after_step(
        self,
        name: str,
        number: int,
        per_epoch: int,
        state: step.TrainState,
        done: int,
        terms: dict[str, jax.Array],
        waited: float,
    ) -> None:
        """Log, then checkpoint, then end if asked to."""
        options, steps = self._options, self._steps[number]
        total = sum(self._steps[:number]) + done
        epoch = (done - 1) // per_epoch + 1
        self._compiled = True
        self._log.says(number, name, f"epoch {epoch}/{steps // per_epoch}")
        self._log.advance(waited)
        logged, saved = done % options.log_every == 0 or done == steps, done % options.checkpoint_every == 0
        self._watch.look(name, done, terms, now=logged or saved)
        if logged:
            self._log_terms(name, total, epoch, terms)
        if done % per_epoch == 0:
            self._log.ends_epoch()
        if done == steps:
            return
        # Several processes must agree when to stop, and wait for one another where they do: not after every step.
        stopping = (logged or jax.process_count() == 1) and processes.anywhere(self._stop.is_set())
        if stopping or saved:
            self._watch.refuse(name, done, jax.tree.map(np.asarray, state.trainable))
            self._checkpoints.save_inside(number, done, state, self.flops)
        if stopping:
            self._log.prints(f"terminated inside task {name}; the same command goes on from step {total}")
            sys.exit(TERMINATED)

    def _log_terms(self, name: str, total: int, epoch: int, terms: dict[str, jax.Array]) -> None:
        values = {term: float(value) for term, value in terms.items()}
        position = {"task_name": name, "epoch": epoch}
        # The first alone, and all end if it cannot.
        processes.agreed(lambda: self._log.terms(total, position, values, self._step.run.flops))


class Reused:
    """Takes what another run has trained instead of training: for measuring it once more in another way.

    Args:
      method: one that keeps every task's tree. memory: the other run's, of the same tasks (`reuse.memory_of_run`).

    Attributes:
      flops: as that of a trainer.
    """

    flops = 0

    def __init__(self, experiment: Experiment, memory: Tree) -> None:
        self._method, self._memory = experiment.method, memory

    def train(self, task: TaskContext, memory: Tree) -> Tree:
        """The trained tree of a task."""
        return self._method.view(self._memory, task.number)[0]
