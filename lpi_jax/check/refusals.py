"""What a run would refuse before it claims its directory, all at once.

A run meets these one by one, in `experiment.assemble` and `experiment.checks`; here the same functions are asked in the
same order, without the backbone's tensors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.data import held_out
from lpi_jax.data.sources import registry
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.experiment import checks, reuse
from lpi_jax.experiment.experiment import check_train_batches, method_of, resolved
from lpi_jax.methods.registry import METHODS
from lpi_jax.options import chosen
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems import registry as problems
from lpi_jax.train import optimizer


def refusals(config: ConfigDict, look: Any, stream: Stream) -> list[str]:
    """Every sentence with which a run would end before it claims its directory, but for what takes its whole backbone.

    Args:
      config: checked. look: what is known of the backbone (`look` of the problem's module). stream: the run's.
    """
    sentences = list(look.refused)

    def ask(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except UserError as error:
            sentences.append(str(error))

    ask(partial(look.check, config))
    mesh = ask(partial(meshes.make_mesh, config.devices, config.fsdp))
    if mesh:
        ask(partial(check_train_batches, config, mesh))
        ask(partial(meshes.check_batch, "config.eval.batch", config.eval.batch, mesh))
    method = ask(partial(method_of, config, look.sites)) if look.sites else None
    if method:
        ask(lambda: method.fits(look.shapes))
    if look.image_size:
        ask(partial(registry.check_cache, config.data.to_dict(), look.image_size))
    if config.reuse:
        ask(partial(reuse.check, resolved(config, method) if method else config, stream))
    elif METHODS[config.method.name].Options.trains:
        # Prompts that do not fit, or towers that are not known, are no reason to keep silent of the rest.
        method = method or method_of(config, look.spacious)
        training, devices = chosen(optimizer.Options, config.train), mesh.size if mesh else 1
        names = [task.name for task in stream.tasks]
        trained = ask(partial(held_out.apart, stream, training.held_out, config.seed)) or stream
        examples = [problems.module(config.problem.name).examples(task.train) for task in trained.tasks]
        ask(partial(optimizer.make_optimizer, training))
        ask(partial(method.check, names))
        ask(partial(checks.check_held_out, training, method))
        ask(partial(checks.check_batches, training, method, names, examples, devices))
    return sentences
