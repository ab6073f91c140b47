"""What a start does around the loop: whose directory is it, is the run finished already, and what is told."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.config import records
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import Experiment
from lpi_jax.experiment.progress import Progress, restore
from lpi_jax.parallel import devices, lock, peaks, processes
from lpi_jax.run import boundary, results
from lpi_jax.run.log import Log, Silence
from lpi_jax.workdir import ownership
from lpi_jax.workdir.checkpoint import Checkpoints

TOLD = 20  # remarks of a stream that are told, at most


def meet(config: ConfigDict, directory: Path) -> None:
    """Finds processes and devices, and refuses what cannot work whatever the stream holds."""
    if config.distributed:
        processes.start()
    devices.available()
    # First, because what is asked of all follows from it.
    processes.refuse_differences({"configuration": config.to_dict()})
    processes.agreed(lambda: ownership.refuse_foreign(directory))
    processes.agreed(lambda: lock.refuse_held(directory))


def made_from(experiment: Experiment) -> dict[str, str]:
    """Hashes of what the run reads beside its configuration, the same in all processes."""
    hashes = experiment.hashes
    if experiment.config.reuse:
        reused = Path(experiment.config.reuse)
        hashes["reuse"] = processes.agreed(lambda: records.fingerprint(ownership.read(reused)))
    processes.refuse_differences(hashes)
    return hashes


def finished(experiment: Experiment, hashes: dict[str, str], directory: Path, checkpoints: Checkpoints) -> Any:
    """The results of a run that has nothing left to do, or None. Raises UserError where it is another run's."""
    config = experiment.config
    if not processes.agreed(lambda: ownership.holds(directory, config, hashes)):
        return None
    names = restore(checkpoints).names
    return boundary.published(directory, names) if len(names) == len(experiment.stream.tasks) else None


def refuse_older(progress: Progress, directory: Path) -> None:
    """Raises UserError for a run that an earlier version began, which measured less than this one would go on with."""
    if any("controls" not in stage for stage in progress.stages):
        raise UserError(
            f"{directory} holds an unfinished run of an earlier version, which measured less; expected a new folder"
        )


def log(experiment: Experiment, directory: Path, steps: list[int], progress: Progress, inside: int) -> Log:
    """The log of this start, opened by the first process. inside: steps done inside the task that is taken up."""
    opened: Log = Silence()
    done = sum(steps[: progress.count]) + inside
    evaluations = [seconds["evaluation"] for seconds in progress.seconds]

    def begin() -> None:
        nonlocal opened
        opened = Log(directory, sum(steps), done, len(steps), evaluations, peaks.together(experiment.mesh.devices.flat))

    processes.agreed(begin)
    return opened


def tell(experiment: Experiment, log: Log, changed: str) -> None:
    """What is to be known before a run: another environment, what was assumed, what was left out."""
    stream = experiment.stream
    if changed:
        log.prints(changed)
    if experiment.backbone.assumed:
        log.prints(f"backbone {experiment.backbone.assumed}")
    if stream.skipped:
        counts = ", ".join(f"{count} {kind}" for kind, count in stream.skipped.items())
        log.prints(f"bad examples left out: {counts}; python -m lpi_jax.data.check tells which")
    for remark in stream.remarks[:TOLD]:
        log.prints(f"note: {remark}")


def tell_results(log: Log, summary: dict[str, Any], steps: list[int], progress: Progress) -> None:
    """What is to be known after a task."""
    log.evaluated(progress.seconds[-1]["evaluation"])
    log.scalars(sum(steps[: progress.count]) or progress.count, results.scalars(summary))
    log.prints(results.line(summary))
