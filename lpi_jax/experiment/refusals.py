"""What a run would refuse before it claims its directory, all at once: what `lpi_jax.data.check` tells.

A run meets these one by one, in `build.system`, `learn.steps_per_task` and `continual.reusable`; here the same
functions are asked in the same order, without the backbone's tensors.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lpi_jax.config.options import TRAINING, flat
from lpi_jax.data.sources import registry
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.experiment import assemble
from lpi_jax.models import hub, weights
from lpi_jax.models.clip import CLIPConfig
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.parallel import mesh as meshes
from lpi_jax.run import continual, learn
from lpi_jax.train import step as train


class Towers(NamedTuple):
    """What of the backbone can be known without its tensors and without fetching it.

    Attributes:
      clip: sizes of the towers. tokenizer: the captions' way into them. None: not known.
      unknown: why something is not known; "" where all is.
      refused: why a run would not use it.
    """

    clip: CLIPConfig | None
    tokenizer: Tokenizer | None
    unknown: str
    refused: tuple[str, ...]


def look(config: ConfigDict) -> Towers:
    """The towers and the tokenizer that a configuration names, as far as they are on this machine."""
    source = assemble.BUNDLED if config.backbone == "bundled" else config.backbone
    found: list[Any] = []
    unknown, refused = [], []
    sizes = partial(weights.config, towers=weights.Towers(**config.towers.to_dict()))
    for name, load in ((source, sizes), (config.tokenizer or source, Tokenizer.load)):
        found.append(None)
        try:
            path = _at_hand(name)
            if path or not hub.is_hub_id(str(name)):  # which a run would fetch
                found[-1] = load(path or Path(name))
        except UserError as error:
            refused.append(str(error))
        if found[-1] is None:
            unknown.append(refused[-1] if path else f"{name} is not on this machine; a run would have to fetch it")
    return Towers(*found, "; ".join(dict.fromkeys(unknown)), tuple(dict.fromkeys(refused)))


def refusals(config: ConfigDict, towers: Towers, stream: Stream) -> list[str]:
    """Every sentence with which a run would end before it claims its directory, but for what takes its whole backbone.

    Args:
      config: checked. towers: from `look`. stream: the run's.
    """
    found = list(towers.refused)

    def ask(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except UserError as error:
            found.append(str(error))

    if towers.clip:
        config = assemble.resolved(config, towers.clip)
        if towers.tokenizer:
            ask(partial(assemble.check_tokenizer, config, towers.clip, towers.tokenizer))
    mesh = ask(partial(meshes.make_mesh, config.devices))
    if mesh:
        ask(partial(assemble.check_train_batch, config, mesh))
        ask(partial(meshes.check_batch, "config.eval.batch", config.eval.batch, mesh))
    if towers.clip:
        ask(partial(assemble.method, config, towers.clip))
        ask(partial(registry.check_cache, config.data.to_dict(), towers.clip.image_size))
    if config.reuse:
        ask(partial(continual.check_reusable, config, stream))
    if TRAINING.reads(flat(config)):
        ask(partial(train.make_optimizer, config.train.optimizer, config.train.optimizer_args))
        ask(partial(learn.check_similarity, config, stream))
        ask(partial(learn.check_tasks, config, stream, mesh.size if mesh else 1))
    return found


def _at_hand(path_or_hub_id: str | Path) -> Path | None:
    """Where a checkpoint lies on this machine; None if it would have to be downloaded, or is nowhere."""
    try:
        return hub.local_path(path_or_hub_id, fetch=False)
    except UserError:
        return None
