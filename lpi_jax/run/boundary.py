"""What a run leaves at a task boundary, and how a later start takes it up again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpi_jax.data.stream import Split
from lpi_jax.experiment.progress import Progress
from lpi_jax.experiment.reuse import RESULTS
from lpi_jax.files import RESUME, write_json, writing
from lpi_jax.parallel import processes
from lpi_jax.problems import saved
from lpi_jax.problems.base import Evaluator
from lpi_jax.run.results import SCHEMA
from lpi_jax.workdir.checkpoint import Checkpoints


def save(checkpoints: Checkpoints, directory: Path, evaluator: Evaluator, progress: Progress) -> None:
    """The task boundary on disk: features first, so that a boundary checkpoint always finds its own.

    Those of boundaries before go: where a boundary is taken up again, they are computed again.
    """
    count = progress.count
    checkpoints.require_place()
    evaluator.save(_features(directory, count))
    checkpoints.save_task(count, progress.memory, progress.meta())

    def leave_only_the_newest() -> None:
        with writing(directory, RESUME):
            saved.keep_only(_features(directory, count))

    processes.agreed(leave_only_the_newest)


def refill(directory: Path, evaluator: Evaluator, splits: Sequence[Split], progress: Progress) -> None:
    """The evaluator as it was after the last finished task; where its file was deleted, computed again.

    Nothing where no task is finished, or none is left to be measured.

    Args:
      splits: the validation splits of all tasks.
    """
    if not 0 < progress.count < len(splits):
        return
    path, seen = _features(directory, progress.count), splits[: progress.count]
    if processes.agreed(path.exists):
        evaluator.restore(path, seen)
        return
    for split in seen:
        evaluator.add(split)
    evaluator.follow(progress.memory, progress.count)


def publish(directory: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Writes the results, and returns them."""

    def write() -> None:
        with writing(directory, RESUME):
            write_json(directory / RESULTS, results)

    processes.agreed(write)
    return results


def published(directory: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """The results that a run has left behind these tasks, its last; None where they are missing, damaged or older."""

    def read() -> dict[str, Any] | None:
        try:
            results = json.loads((directory / RESULTS).read_bytes())
            state = (results["schema"], results["tasks"], results["tasks_to_come"])
            return results if state == (SCHEMA, list(names), []) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    return processes.agreed(read)


def _features(directory: Path, count: int) -> Path:
    return directory / "features" / f"task_{count:03d}.json"
