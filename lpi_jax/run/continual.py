"""The continual run: for each task learn, remember, evaluate, checkpoint.

What happens at a start, in this order:
  1. find the devices; build backbone, method and stream; refuse what cannot work before anything is written;
  2. end with its results where the run is finished; until here nothing is written;
  3. take the run's directory for as long as this start lasts, and claim it or find that it is ours;
  4. go on behind the newest task boundary: memory, results so far, gallery features;
  5. inside the next task, go on from the newest train state, if there is one.
Everything else (data order, crops, initial prompts) is a function of the seed, so a killed run ends with the same bits.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax import paths
from lpi_jax.config import records
from lpi_jax.data import loader
from lpi_jax.data.builder import TOLD
from lpi_jax.data.stream import Split, Stream
from lpi_jax.errors import UserError
from lpi_jax.experiment import assemble
from lpi_jax.files import RESUME, write_json, writing
from lpi_jax.methods import memory as memories
from lpi_jax.methods import similarity
from lpi_jax.methods.memory import Memory
from lpi_jax.parallel import compilation, devices, lock, mesh, processes
from lpi_jax.problems.retrieval import evaluate
from lpi_jax.problems.retrieval.gallery import Gallery
from lpi_jax.run import learn, results
from lpi_jax.run.log import Log, Silence
from lpi_jax.run.results import Progress
from lpi_jax.types import Tree
from lpi_jax.workdir import checkpoint, ownership

RESULTS = "results.json"


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
    if config.distributed:
        processes.start()
    devices.available()
    # First, because what is asked of all follows from it.
    processes.refuse_differences({"configuration": config.to_dict()})
    processes.agreed(lambda: ownership.refuse_foreign(directory))
    processes.agreed(lambda: lock.refuse_held(directory))
    system = assemble.system(config)
    config = assemble.resolved(config, system.model.config)
    stream = assemble.stream(config, system.model.config.image_size)
    sources = made_from(config, system, stream)
    processes.refuse_differences(sources)
    reused = _reused(config, system, stream) if config.reuse else None
    steps = learn.steps_per_task(config, system, stream) if reused is None else [0] * len(stream.tasks)
    mesh.connect(system.mesh)
    checkpoints = checkpoint.Checkpoints(directory, config.train.checkpoints_kept)
    if processes.agreed(lambda: ownership.holds(directory, config, sources)):
        names = list(restore(checkpoints, config, system).memory.names)
        if len(names) == len(stream.tasks) and (found := published(directory, names)):
            return found
    processes.agreed(held.take)
    changed = processes.agreed(lambda: ownership.claim(directory, config, sources))
    checkpoints.prepare()
    progress = restore(checkpoints, config, system)
    finished = progress.memory.count
    cache = (config.data.cache_mb << 19) // len(stream.tasks)  # half of it; the other half is for training
    vals = [loader.remembered(task.val, cache) for task in stream.tasks]
    gallery = assemble.gallery(config, system)
    if 0 < finished < len(vals):
        refill(gallery, _features(directory, finished), vals[:finished], progress.memory)

    done = sum(steps[:finished]) + checkpoints.steps_inside(finished)
    log = Silence()

    def begin_log() -> None:
        nonlocal log
        evaluations = [seconds["evaluation"] for seconds in progress.seconds]
        log = Log(directory, sum(steps), done, config.train.batch, len(steps), evaluations)

    processes.agreed(begin_log)
    if changed:
        log.prints(changed)
    if system.model.config.assumed:
        log.prints(f"backbone {system.model.config.assumed}")
    if stream.skipped:
        counts = ", ".join(f"{count} {kind}" for kind, count in stream.skipped.items())
        log.prints(f"bad examples left out: {counts}; python -m lpi_jax.data.check tells which")
    for remark in stream.remarks[:TOLD]:
        log.prints(f"note: {remark}")
    try:
        with learn.terminated() as stop:
            learner = reused or learn.Learner(config, system, checkpoints, log, steps, stop)
            for number, task in list(enumerate(stream.tasks))[finished:]:
                began = time.monotonic()
                trained = learner.learn(task, number, progress.memory)
                learnt = time.monotonic()

                log.says(number, task.name, "evaluation")
                before = progress.memory
                progress.memory = learn.remember(config, system, before, task, number, trained)
                progress.measured(measure(config, gallery, before, progress.memory, vals[number]))
                ended = time.monotonic()
                log.evaluated(ended - learnt)

                progress.seconds.append({"training": learnt - began, "evaluation": ended - learnt})
                progress.cut += sum(captions_cut(system, split) for split in (task.train, task.val))
                save(checkpoints, directory, gallery, progress)
                found = publish(directory, results.summarise(config, system, stream, steps, progress))
                log.scalars(sum(steps[: number + 1]) or number + 1, results.scalars(found))
                log.prints(results.line(found))
                if processes.anywhere(stop.is_set()) and progress.memory.count < len(stream.tasks):
                    log.prints(f"terminated after task {task.name}; the same command goes on from there")
                    sys.exit(learn.TERMINATED)
    finally:
        log.close()
    # Written once more: a run killed between checkpoint and results finds them here.
    return publish(directory, results.summarise(config, system, stream, steps, progress))


def publish(directory: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Writes the results, and returns them."""

    def write() -> None:
        with writing(directory, RESUME):
            write_json(directory / RESULTS, found)

    processes.agreed(write)
    return found


def published(directory: Path, names: list[str]) -> dict[str, Any] | None:
    """The results that a run has left behind these tasks, its last; None where they are missing, damaged or older."""

    def read() -> dict[str, Any] | None:
        try:
            found = json.loads((directory / RESULTS).read_bytes())
            return found if (found["tasks"], found["tasks_to_come"]) == (names, []) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    return processes.agreed(read)


def made_from(config: ConfigDict, system: assemble.System, stream: Stream) -> dict[str, str]:
    """Hashes of what the run reads beside its configuration."""
    found = {"stream": stream.fingerprint, "backbone": system.sha256, "tokenizer": system.tokenizer_sha256}
    if config.loss.similarity != "text":
        found["similarity"] = similarity.fingerprint(config.loss.similarity)
    if config.reuse:
        found["reuse"] = processes.agreed(lambda: records.fingerprint(ownership.read(Path(config.reuse))))
    return found


def captions_cut(system: assemble.System, split: Split) -> int:
    """How many of a split's captions lose their end when the method encodes them."""
    words = [caption for captions in split.captions for caption in captions]
    return system.captions.count_cut(words, system.method.placeholders)


def measure(config: ConfigDict, gallery: Gallery, before: Memory, after: Memory, val: Split) -> dict[str, Any]:
    """One stage's record: the new task as it was met before learning it, then everything seen, after."""
    gallery.add(val)
    gallery.follow(before)
    arrival = evaluate.recall_row(gallery, after.count, config.eval.gallery, first=before.count)
    gallery.follow(after)
    return {"arrival": arrival, **evaluate.stage(gallery, after.count, config.eval.gallery)}


def save(checkpoints: checkpoint.Checkpoints, directory: Path, gallery: Gallery, progress: Progress) -> None:
    """The task boundary on disk: features first, so that a boundary checkpoint always finds its own.

    Those of boundaries before go: where a boundary is taken up again, they are computed again.
    """
    count = progress.memory.count
    checkpoints.require_place()
    gallery.save(_features(directory, count))
    meta = {
        "names": list(progress.memory.names),
        "stages": progress.stages,
        "seconds": progress.seconds,
        "cut": progress.cut,
    }
    checkpoints.save_task(count, progress.memory.arrays(), meta)

    def leave_only_the_newest() -> None:
        with writing(directory, RESUME):
            for path in _features(directory, count).parent.glob("task_*.npz"):
                if path != _features(directory, count):
                    path.unlink(missing_ok=True)

    processes.agreed(leave_only_the_newest)


def refill(gallery: Gallery, path: Path, vals: list[Split], memory: Memory) -> None:
    """The gallery as it was after the last finished task; where its file was deleted, computed again."""
    if processes.agreed(path.exists):
        gallery.restore(path, vals)
        return
    for val in vals:
        gallery.add(val)
    gallery.follow(memory)


def restore(checkpoints: checkpoint.Checkpoints, config: ConfigDict, system: assemble.System) -> Progress:
    """What the newest boundary checkpoint holds; the empty progress before the first. Writes nothing."""
    nothing = memories.empty(config.routing.centres, system.encoder.embed_dim)
    one = jax.tree.map(lambda leaf: np.empty((0, *leaf.shape), leaf.dtype), learn.abstract_tree(system))
    stacked: Tree = {**nothing.arrays(), "trained": one}
    found = None
    while found is None:  # a run that is at work may delete a boundary behind a newer one while it is read
        count = checkpoints.finished_tasks()
        if not count:
            return Progress(nothing)
        expected = jax.tree.map(lambda leaf, count=count: np.empty((count, *leaf.shape[1:]), leaf.dtype), stacked)
        found = checkpoints.load_task(count, expected)
    arrays, meta = found
    try:
        memory = Memory(tuple(meta["names"]), **arrays)
        return Progress(memory, meta["stages"], meta["seconds"], meta["cut"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {count} of this run lacks {error}; delete it to go on from the one before"
        ) from error


def reusable(config: ConfigDict) -> dict[str, Any]:
    """The record of the run in the folder `config.reuse`.

    Raises:
      UserError: there is no run, or its prompts are not of the kind that `config`, resolved, asks for.
    """
    there = ownership.read(Path(config.reuse))
    theirs, own = (configs.flat(one) for one in (records.configuration(there, config.reuse), config))
    for key in own:
        if (key == "method" or key.startswith("prompt.")) and theirs[key] != own[key]:
            raise UserError(
                f"config.reuse is {config.reuse!r}, a run with config.{key} {theirs[key]!r} instead of {own[key]!r};"
                f" use --config.{key}={theirs[key]}"
            )
    return there


def check_reusable(config: ConfigDict, stream: Stream) -> None:
    """Raises UserError where `reusable` does, or where the run's results so far are not of the stream's tasks."""
    reusable(config)
    try:
        names = [str(name) for name in json.loads((Path(config.reuse) / RESULTS).read_bytes())["tasks"]]
    except (OSError, ValueError, KeyError, TypeError):  # before its first task ends there are none
        names = []
    learn.check_reused(names, stream, config.reuse)


def _reused(config: ConfigDict, system: assemble.System, stream: Stream) -> learn.Reused:
    """What the run in the folder `config.reuse` has trained, if it was trained on this backbone and these tasks."""
    there = processes.agreed(lambda: reusable(config))
    if there.get("backbone") != system.sha256:
        raise UserError(f"config.reuse is {config.reuse!r}, a run on another backbone than config.backbone")
    checkpoints = checkpoint.Checkpoints(Path(config.reuse))
    memory = restore(checkpoints, records.configuration(there, config.reuse), system).memory
    learn.check_reused(memory.names, stream, config.reuse)
    return learn.Reused(memory)


def _features(directory: Path, count: int) -> Path:
    return directory / "features" / f"task_{count:03d}.npz"
