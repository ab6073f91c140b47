"""The continual run: for each task learn, remember, evaluate, checkpoint.

What happens at a start, in this order:
  1. build backbone, method and stream; refuse what cannot work before anything is written;
  2. claim the run's directory, or find that it is ours;
  3. go on behind the newest task boundary: memory, results so far, gallery features;
  4. inside the next task, go on from the newest train state, if there is one.
Everything else (data order, crops, initial prompts) is a function of the seed, so a killed run ends with the same bits.
"""

import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpi_jax import build, checkpoint, evaluate, mesh, routing, similarity, train, workdir
from lpi_jax import config as configs
from lpi_jax import memory as memories
from lpi_jax.data import loader
from lpi_jax.data.stream import Stream, Task
from lpi_jax.errors import UserError
from lpi_jax.files import write_json
from lpi_jax.gallery import Gallery
from lpi_jax.log import Log
from lpi_jax.memory import Memory
from lpi_jax.methods.base import Finished, Tree
from lpi_jax.models.tokenizer import trim

TERMINATED = 128 + signal.SIGTERM


@dataclass
class Progress:
    """What the finished tasks left: kept in the boundary checkpoint, together with the memory.

    Attributes:
      memory: prompts, centres and descriptions. stages: what was measured after each task.
      cut: captions longer than the context. seconds: spent on each task, by kind of work.
    """

    memory: Memory
    stages: list[dict[str, Any]] = field(default_factory=list)
    cut: int = 0
    seconds: list[dict[str, float]] = field(default_factory=list)


def run(config: ConfigDict, directory: str | Path) -> dict[str, Any]:
    """Learns the configured stream task by task, or goes on where an earlier start was interrupted.

    Args:
      config: a preset of `lpi_jax.config`, changed as wished.
      directory: the run's own; a finished run returns its results at once.

    Returns:
      The results, as in results.json.

    Raises:
      UserError: something the user can mend; nothing is half-written.
      SystemExit: after SIGTERM, once the state is saved.
    """
    configs.check(config)
    directory = Path(directory)
    system = build.system(config)
    stream = build.stream(config, system.model.config.image_size)
    steps = steps_per_task(config, system, stream)
    workdir.claim(directory, config, {"stream": stream.fingerprint, "backbone": system.sha256})

    cache = config.data.cache_mb << 19  # half for the training, half for the validation pictures
    vals = [loader.remembered(task.val, cache // len(stream.tasks)) for task in stream.tasks]
    gallery = Gallery(
        system.encoder,
        system.method,
        system.captions,
        system.eval_transform,
        seed=config.seed,
        oracle=config.task_id == "oracle",
        asks_with_placeholders=config.routing.caption == "placeholders",
    )
    checkpoints = checkpoint.Checkpoints(directory)
    progress = restore(checkpoints, config, system)
    count = progress.memory.count
    if count > len(stream.tasks):
        raise UserError(f"{directory} remembers {count} tasks, but the stream has {len(stream.tasks)}")
    if count:
        gallery.restore(_features(directory, count), vals[:count])
    system.captions.cut = progress.cut

    step = train.make_step(
        system.model, system.method, train.make_optimizer(config.train.optimizer, config.train.optimizer_args),
        system.mesh, system.mean, system.std,
    )
    log = Log(directory, sum(steps), sum(steps[:count]), config.train.batch)
    try:
        with terminated() as stop:
            for number in range(count, len(stream.tasks)):
                task = stream.tasks[number]
                clock = time.monotonic()
                learner = Learner(config, system, checkpoints, log, step, stop, sum(steps[:number]))
                trained = learner.learn(task, number, steps[number], progress.memory)
                learnt = time.monotonic()
                log.says(f"task {number + 1}/{len(stream.tasks)} {task.name}: evaluating")
                before = progress.memory
                progress.memory = remember(config, system, before, task, number, trained)
                progress.stages.append(measure(config, gallery, before, progress.memory, vals[number]))
                progress.cut = system.captions.cut
                done = time.monotonic()
                progress.seconds.append({"training": learnt - clock, "evaluation": done - learnt})
                save(checkpoints, directory, gallery, progress)
                results = summarise(config, system, stream, progress, steps)
                write_json(directory / "results.json", results)
                tell(log, results, sum(steps[: number + 1]))
    finally:
        log.close()
        checkpoints.close()
    results = summarise(config, system, stream, progress, steps)
    if not (directory / "results.json").exists():
        write_json(directory / "results.json", results)
    return results


def steps_per_task(config: ConfigDict, system: build.System, stream: Stream) -> list[int]:
    """Training steps of each task; 0 for a method that trains nothing. UserError where a task cannot fill a batch."""
    first = Finished(None, np.ones((1, 1), np.float32))
    if not jax.tree.leaves(jax.eval_shape(lambda key: system.method.init(key, first), jax.random.key(0))):
        return [0] * len(stream.tasks)
    steps = []
    for task in stream.tasks:
        pairs = len(task.train.pairs)
        if pairs < config.train.batch:
            raise UserError(
                f"task {task.name!r} has {pairs} training captions, too few for config.train.batch of {config.train.batch}"
            )
        steps.append(config.train.epochs * loader.steps_per_epoch(pairs, config.train.batch))
    return steps


@dataclass
class Learner:
    """Trains single tasks of a run; holds what does not change from task to task."""

    config: ConfigDict
    system: build.System
    checkpoints: checkpoint.Checkpoints
    log: Log
    step: train.Step
    stop: threading.Event
    steps_before: int

    def learn(self, task: Task, number: int, steps: int, memory: Memory) -> Tree:
        """The trained tree of a task, as host arrays; the initial tree where there is nothing to train."""
        config, system = self.config, self.system
        finished = Finished(memory.trained, task_similarity(config, system, memory, task))
        trainable = system.method.init(jax.random.fold_in(jax.random.key(config.seed), number), finished)
        if not steps:
            return jax.tree.map(np.asarray, trainable)
        optimizer = train.make_optimizer(config.train.optimizer, config.train.optimizer_args)
        state = train.start(trainable, optimizer, system.mesh)
        state = self.checkpoints.load_inside(number, checkpoint.abstract(state)) or state
        done = int(state.step)
        context = system.method.context(finished, capacity(memory.count + 1))

        split = loader.remembered(task.train, self.config.data.cache_mb << 19)
        batches = loader.training_batches(
            split,
            self._token_ids(task),
            trim,
            system.train_transform,
            batch=config.train.batch,
            seed=config.seed,
            task=number,
            first_step=done,
            last_step=steps,
        )
        per_epoch = steps // config.train.epochs
        schedule = (config.train.lr, config.train.schedule)
        self.log.catch_up(self.steps_before + done)

        def after_step(state: train.TrainState, done: int, terms: dict[str, jax.Array]) -> None:
            total = self.steps_before + done
            self.log.advance()
            if done % config.train.log_every == 0 or done == steps:
                epoch = (done - 1) // per_epoch + 1
                self.log.says(f"task {number + 1} {task.name} epoch {epoch}/{config.train.epochs}")
                position = {"task": task.name, "epoch": epoch}
                self.log.terms(total, position, {name: float(value) for name, value in terms.items()})
            stopping = self.stop.is_set() and done < steps
            if stopping or (done % config.train.checkpoint_every == 0 and done < steps):
                self.checkpoints.save_inside(number, done, state)
            if stopping:
                self.log.prints(f"terminated inside task {task.name}; the same command goes on from step {total}")
                sys.exit(TERMINATED)

        state = train.fit(
            state,
            self.step,
            system.backbone,
            mesh.put_replicated(context, system.mesh),
            batches,
            lambda done: train.learning_rate(*schedule, done, per_epoch, config.train.epochs),
            system.mesh,
            after_step,
        )
        return jax.tree.map(np.asarray, state.trainable)

    def _token_ids(self, task: Task) -> list[np.ndarray]:
        """Per picture its captions' ids [captions, context], behind the method's placeholders."""
        words = [caption for captions in task.train.captions for caption in captions]
        ids = self.system.captions(words, self.system.method.placeholders)
        ends = np.cumsum([len(captions) for captions in task.train.captions])
        return np.split(ids, ends[:-1])


def capacity(tasks: int) -> int:
    """Room for so many tasks in a method's constants: grows in doublings, so that few steps are ever compiled."""
    return max(16, 1 << (tasks - 1).bit_length())


def task_similarity(config: ConfigDict, system: build.System, memory: Memory, task: Task) -> np.ndarray:
    """[T + 1, T + 1] float32 cosines of the meanings of the finished tasks and, last, this one."""
    if config.loss.similarity == "text":
        return similarity.cosines(np.concatenate([memory.descriptions, description(system, task)[None]]))
    return similarity.from_table(config.loss.similarity, (*memory.names, task.name))


def description(system: build.System, task: Task) -> np.ndarray:
    """[E] float32: what the frozen text tower makes of a task's description."""
    return system.encoder.texts(system.captions([task.description], 0))[0]


def remember(
    config: ConfigDict, system: build.System, memory: Memory, task: Task, number: int, trained: Tree
) -> Memory:
    """The memory with one more finished task: its trained tree, and the centres that will route to it."""
    split, transform = task.train, system.eval_transform
    pictures = system.encoder.images(lambda i: transform(split.load(i), (config.seed, number, i)), range(len(split)))
    placeholders = system.method.placeholders if config.routing.caption == "placeholders" else 0
    words = [caption for captions in split.captions for caption in captions]
    captions = system.encoder.texts(system.captions(words, placeholders))
    k, seed = config.routing.centres, config.seed
    return memories.remember(
        memory,
        task.name,
        trained,
        routing.kmeans(pictures, k, seed),
        routing.kmeans(captions, k, seed),
        description(system, task),
    )


def measure(config: ConfigDict, gallery: Gallery, before: Memory, after: Memory, val: Any) -> dict[str, Any]:
    """One stage's record: the new task as it was met before learning it, then everything seen, after."""
    gallery.add(val)
    gallery.follow(before)
    arrival = evaluate.recall_row(gallery, after.count, config.eval.gallery)
    gallery.follow(after)
    return {"arrival": arrival, **evaluate.stage(gallery, after.count, config.eval.gallery)}


def save(checkpoints: checkpoint.Checkpoints, directory: Path, gallery: Gallery, progress: Progress) -> None:
    """The task boundary on disk: features first, so that a boundary checkpoint always finds its own."""
    count = progress.memory.count
    gallery.save(_features(directory, count))
    meta = {
        "names": list(progress.memory.names),
        "stages": progress.stages,
        "cut": progress.cut,
        "seconds": progress.seconds,
    }
    checkpoints.save_task(count, progress.memory.arrays(), meta)
    _features(directory, count - 1).unlink(missing_ok=True)


def restore(checkpoints: checkpoint.Checkpoints, config: ConfigDict, system: build.System) -> Progress:
    """What the newest boundary checkpoint holds; the empty progress before the first."""
    nothing = memories.empty(config.routing.centres, system.encoder.embed_dim)
    count = checkpoints.finished_tasks()
    if not count:
        return Progress(nothing)

    def expected(meta: dict[str, Any]) -> Tree:
        first = Finished(None, np.ones((1, 1), np.float32))
        one = jax.eval_shape(lambda key: system.method.init(key, first), jax.random.key(0))
        arrays = {**nothing.arrays(), "trained": jax.tree.map(lambda leaf: np.empty((0, *leaf.shape), leaf.dtype), one)}
        return jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), arrays)

    arrays, meta = checkpoints.load_task(count, expected)
    return Progress(Memory(tuple(meta["names"]), **arrays), meta["stages"], meta["cut"], meta["seconds"])


def summarise(
    config: ConfigDict, system: build.System, stream: Stream, progress: Progress, steps: list[int]
) -> dict[str, Any]:
    """results.json: everything but `seconds` and `peak_memory_mb` is a function of the configuration."""
    memory = progress.memory
    numbers = sum(leaf.size for leaf in jax.tree.leaves(memory.trained))
    return {
        "method": config.method,
        "preset": config.preset,
        "task_id": config.task_id,
        "stream": {"name": stream.name, "sha256": stream.fingerprint, "notes": dict(stream.notes)},
        "tasks": list(memory.names),
        "tasks_to_come": [task.name for task in stream.tasks[memory.count :]],
        "protocol": evaluate.protocol(
            config.eval.gallery,
            config.task_id == "oracle",
            config.eval.transform,
            config.routing.caption == "placeholders",
        ),
        **evaluate.report(progress.stages),
        "similarity": similarity.cosines(memory.descriptions).tolist(),
        "parameters": {
            "per_task": numbers // memory.count,
            "trained": numbers,
            "backbone": sum(leaf.size for leaf in jax.tree.leaves(system.backbone)),
            "backbone_source": config.backbone,
            "backbone_sha256": system.sha256,
        },
        "counts": {
            "train_pictures": [len(task.train) for task in stream.tasks],
            "train_captions": [len(task.train.pairs) for task in stream.tasks],
            "val_pictures": [len(task.val) for task in stream.tasks],
            "val_captions": [len(task.val.pairs) for task in stream.tasks],
            "steps": steps,
            "captions_left_out_per_epoch": [
                len(task.train.pairs) % config.train.batch if own else 0
                for task, own in zip(stream.tasks, steps, strict=True)
            ],
            "captions_cut": progress.cut,
            "skipped": dict(stream.skipped),
        },
        "seconds": progress.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def tell(log: Log, results: dict[str, Any], step: int) -> None:
    """One line after each task, and the averages as TensorBoard events."""
    recall, routed = results["recall"], results["routing_accuracy"]
    values = {
        f"eval/{direction}/R@{k}": recall[direction][k]["final_average"] for direction in recall for k in recall[direction]
    }
    log.scalars(step, values)
    log.prints(
        f"after {results['tasks'][-1]}: R@1 image to text {values['eval/image_to_text/R@1']:.1f} %,"
        f" text to image {values['eval/text_to_image/R@1']:.1f} %"
        f" (zero-shot {results['zero_shot']['image_to_text']['1']['final_average']:.1f},"
        f" {results['zero_shot']['text_to_image']['1']['final_average']:.1f});"
        f" routed right: images {routed['image']['final_average']:.1f} %, captions {routed['text']['final_average']:.1f} %"
    )


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


def _features(directory: Path, count: int) -> Path:
    return directory / "features" / f"task_{count:03d}.npz"
