"""Opens what a run has trained."""

from pathlib import Path
from typing import Any

from lpi_jax import paths
from lpi_jax.config import records
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import assemble
from lpi_jax.experiment.progress import restore
from lpi_jax.parallel import compilation, devices
from lpi_jax.workdir import checkpoint, ownership


def load(directory: str | Path) -> Any:
    """The model a run has trained so far, from its newest task boundary; on one device, wherever it was trained.

    Writes nothing: the run may be at work, its directory read-only.

    Returns:
      What the run's problem makes of it; of retrieval a `lpi_jax.problems.retrieval.retriever.Retriever`, of
      instruction following a `lpi_jax.problems.instruction.answerer.Answerer`.

    Raises:
      UserError: the directory holds no run, or none with a finished task, its backbone is not what it was, or JAX
        has no device to run it on.
    """
    directory = paths.local(directory, "the run's directory")
    devices.available()
    record = ownership.read(directory)
    config = records.configuration(record, directory)
    config.devices = config.fsdp = 1
    compilation.keep_compiled(config.compilation_cache)
    experiment = assemble(config, streamed=False)
    if experiment.backbone.hashes["backbone"] != record.get("backbone"):
        raise UserError(
            f"backbone {config.backbone} is not the one that {directory} was trained on: its weights differ"
        )
    progress = restore(checkpoint.Checkpoints(directory))
    if not progress.count:
        raise UserError(f"{directory} has no finished task yet")
    return experiment.problem.served(
        experiment.method, experiment.backbone.params, experiment.mesh, progress.memory, progress.names
    )
