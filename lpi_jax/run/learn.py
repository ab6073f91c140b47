"""Learning one task of a run: where to begin, what to log, when to save, and what to remember afterwards."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import jax
import numpy as np
from ml_collections import ConfigDict

from lpi_jax.data import loader
from lpi_jax.data.stream import Stream, Task
from lpi_jax.errors import UserError
from lpi_jax.experiment import assemble
from lpi_jax.methods import memory as memories
from lpi_jax.methods import routing, similarity
from lpi_jax.methods.base import Finished
from lpi_jax.methods.memory import Memory
from lpi_jax.models.tokenizer import trim
from lpi_jax.parallel import mesh, processes
from lpi_jax.run.log import Log
from lpi_jax.train import step as train
from lpi_jax.types import Tree
from lpi_jax.workdir import checkpoint

TERMINATED = 128 + signal.SIGTERM


def steps_per_task(config: ConfigDict, system: assemble.System, stream: Stream) -> list[int]:
    """Training steps of each task; 0 for a method that trains nothing.

    Raises:
      UserError: a task cannot fill a batch, or optimizer or table of similarities do not fit. Learning would meet
        these only later, after the run's directory has been claimed.
    """
    if not jax.tree.leaves(abstract_tree(system)):
        return [0] * len(stream.tasks)
    train.make_optimizer(config.train.optimizer, config.train.optimizer_args)
    check_similarity(config, stream)
    check_tasks(config, stream, system.mesh.size)
    batch, epochs = config.train.batch, config.train.epochs
    return [epochs * loader.steps_per_epoch(len(task.train.pairs), batch) for task in stream.tasks]


def check_similarity(config: ConfigDict, stream: Stream) -> None:
    """Raises UserError unless the table of similarities, if there is one, can be read and knows every task."""
    if config.loss.similarity != "text":
        similarity.from_table(config.loss.similarity, [task.name for task in stream.tasks])


def check_tasks(config: ConfigDict, stream: Stream, devices: int) -> None:
    """Raises UserError, naming the smallest task, unless every task fills a batch, which is split over `devices`.

    The batch is not fitted to the data: it decides how many negatives a pair has, and two runs would not be comparable.
    """
    pairs, name = min(((len(task.train.pairs), task.name) for task in stream.tasks), key=lambda pair: pair[0])
    if pairs < config.train.batch:
        fitting = pairs // devices * devices
        remedy = f"--config.train.batch={fitting}" if fitting else f"at most --config.devices={pairs}"
        raise UserError(
            f"task {name!r} has {pairs} training captions, too few for a batch: config.train.batch is"
            f" {config.train.batch}; use {remedy}"
        )


def abstract_tree(system: assemble.System) -> Tree:
    """Shapes and dtypes of one task's trainable tree."""
    first = Finished(None, np.ones((1, 1), np.float32))
    return jax.eval_shape(lambda key: system.method.init(key, first), jax.random.key(0))


class Learner:
    """Trains the tasks of a run one by one, all with one compiled step.

    Args:
      steps: of every task, from `steps_per_task`.
      stop: set when the run is asked to end: the state is saved and the process exits.
    """

    def __init__(
        self,
        config: ConfigDict,
        system: assemble.System,
        checkpoints: checkpoint.Checkpoints,
        log: Log,
        steps: list[int],
        stop: threading.Event,
    ) -> None:
        self._config, self._system, self._checkpoints, self._log = config, system, checkpoints, log
        self._steps, self._stop = steps, stop
        self._compiled = False
        self._optimizer = train.make_optimizer(config.train.optimizer, config.train.optimizer_args)
        self._step = train.make_step(system.model, system.method, self._optimizer, system.mesh, system.mean, system.std)

    def learn(self, task: Task, number: int, memory: Memory) -> Tree:
        """The trained tree of task `number` (from 0), as host arrays; its initial tree where there is nothing to train.

        Goes on from the newest state saved inside this task, if there is one.
        """
        config, system = self._config, self._system
        finished = Finished(memory.trained, processes.copied(task_similarity(config, system, memory, task)))
        trainable = system.method.init(jax.random.fold_in(jax.random.key(config.seed), number), finished)
        steps = self._steps[number]
        if not steps:
            return jax.tree.map(np.asarray, trainable)
        state = train.start(trainable, self._optimizer, system.mesh)
        saved = self._checkpoints.load_inside(number, jax.tree.map(np.asarray, state))
        if saved is not None:
            state = mesh.put_replicated(saved, system.mesh)
        done = int(state.step)
        self._log.catch_up(sum(self._steps[:number]) + done)
        if not self._compiled:
            self._log.says(number, task.name, "compiling", stays=True)
        context = system.method.context(finished, memories.capacity(memory.count + 1))
        batches = loader.training_batches(
            loader.remembered(task.train, config.data.cache_mb << 19),
            self._token_ids(task),
            trim,
            system.train_transform,
            batch=config.train.batch,
            seed=config.seed,
            task=number,
            first_step=done,
            last_step=steps,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
        epochs = config.train.epochs
        rate = train.learning_rate(config.train.lr, config.train.schedule, steps // epochs, epochs)
        with closing(batches):
            state = train.fit(
                state,
                self._step,
                system.backbone,
                mesh.put_replicated(context, system.mesh),
                batches,
                rate,
                system.mesh,
                lambda *after: self._after_step(task, number, *after),
            )
        trained = jax.tree.map(np.asarray, state.trainable)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained)):  # the last step's loss saw it not yet
            raise UserError(
                f"the last step of task {task.name!r} ended in numbers that are not finite; config.train.lr of"
                f" {config.train.lr} may be too large"
            )
        return trained

    def _after_step(
        self,
        task: Task,
        number: int,
        state: train.TrainState,
        done: int,
        terms: dict[str, jax.Array],
        waited: float,
    ) -> None:
        """Log, then checkpoint, then end if asked to."""
        settings, steps = self._config.train, self._steps[number]
        total = sum(self._steps[:number]) + done
        per_epoch = steps // settings.epochs
        epoch = (done - 1) // per_epoch + 1
        self._compiled = True
        self._log.says(number, task.name, f"epoch {epoch}/{settings.epochs}")
        self._log.advance(waited)
        logged = done % settings.log_every == 0 or done == steps
        if logged:
            values = {name: float(value) for name, value in terms.items()}
            position = {"task_name": task.name, "epoch": epoch}
            # The first alone, and all end if it cannot.
            processes.agreed(lambda: self._log.terms(total, position, values))
            if not np.isfinite(values["loss"]):
                raise UserError(
                    f"the loss is {values['loss']} in task {task.name!r} after {done} steps; config.train.lr of"
                    f" {settings.lr} may be too large"
                )
        if done % per_epoch == 0:
            self._log.ends_epoch()
        if done == steps:
            return
        # Several processes must agree when to stop, and wait for one another where they do: not after every step.
        stopping = (logged or jax.process_count() == 1) and processes.anywhere(self._stop.is_set())
        if stopping or done % settings.checkpoint_every == 0:
            self._checkpoints.save_inside(number, done, state)
        if stopping:
            self._log.prints(f"terminated inside task {task.name}; the same command goes on from step {total}")
            sys.exit(TERMINATED)

    def _token_ids(self, task: Task) -> list[np.ndarray]:
        """Per picture its captions' ids [captions, context], behind the method's placeholders."""
        words = [caption for captions in task.train.captions for caption in captions]
        ids = self._system.captions(words, self._system.method.placeholders)
        ends = np.cumsum([len(captions) for captions in task.train.captions])
        return np.split(ids, ends[:-1])


class Reused:
    """Takes what another run has trained instead of training: for measuring it once more in another way.

    Prompts of finished tasks never change, so the other run's last memory holds those of every stage.

    Args:
      source: the other run's memory, of the same tasks (`check_reused`).
    """

    def __init__(self, source: Memory) -> None:
        self._source = source

    def learn(self, task: Task, number: int, memory: Memory) -> Tree:
        """The trained tree of task `number` (from 0)."""
        return self._source.trained_of(number)


def check_reused(there: Sequence[str], stream: Stream, directory: str) -> None:
    """Raises UserError unless the tasks that the run in `directory` has finished begin with those of the stream."""
    for number, (task, other) in enumerate(zip(stream.tasks, there, strict=False), 1):
        if task.name != other:
            raise UserError(f"task {number} is {task.name!r} here and {other!r} in the run {directory}")
    if len(there) < len(stream.tasks):
        raise UserError(
            f"config.reuse is {directory!r}, a run that has finished {len(there)} of the {len(stream.tasks)} tasks so"
            " far; start again when it is done"
        )


def task_similarity(
    config: ConfigDict, system: assemble.System, memory: Memory, task: Task | None = None
) -> np.ndarray:
    """[T, T] float32 cosines of the meanings of the finished tasks and, if given, of `task` as the last."""
    if config.loss.similarity != "text":
        return similarity.from_table(config.loss.similarity, (*memory.names, *([task.name] if task else [])))
    new = [description(system, task)[None]] if task else []
    return similarity.cosines(np.concatenate([memory.descriptions, *new]))


def description(system: assemble.System, task: Task) -> np.ndarray:
    """[E] float32: what the frozen text tower makes of a task's description."""
    return system.encoder.texts(system.captions([task.description], 0))[0]


def remember(
    config: ConfigDict, system: assemble.System, memory: Memory, task: Task, number: int, trained: Tree
) -> Memory:
    """The memory with one more finished task: its trained tree, and the centres that will route to it."""
    split, transform = task.train, system.eval_transform
    pictures = system.encoder.images(lambda i: transform(split.load(i), (config.seed, number, i)), range(len(split)))
    placeholders = system.method.placeholders if config.routing.caption == "placeholders" else 0
    words = [caption for captions in split.captions for caption in captions]
    captions = system.encoder.texts(system.captions(words, placeholders))
    k, seed = config.routing.centres, config.seed
    # The first process's centres: another processor may round otherwise.
    centres = processes.copied([routing.kmeans(found, k, seed) for found in (pictures, captions)])
    return memories.remember(memory, task.name, trained, *centres, description(system, task))


@contextmanager
def terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs, so that the state is saved before the end."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
