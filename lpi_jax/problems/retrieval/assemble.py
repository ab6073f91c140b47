"""From a configuration to the retrieval problem and its frozen backbone, or a sentence that says what does not fit."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lpi_jax.data import captioned, transforms
from lpi_jax.data.captioned import Captioned
from lpi_jax.data.loader import Transform
from lpi_jax.data.sources.registry import CAPTIONS
from lpi_jax.data.stream import Split
from lpi_jax.errors import UserError
from lpi_jax.methods.base import Site
from lpi_jax.models import hub, weights
from lpi_jax.models.clip import CLIP, CLIPConfig, param_shapes
from lpi_jax.models.kept import kept
from lpi_jax.models.published import CLIPS
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel import placement
from lpi_jax.problems.base import Backbone, Planned
from lpi_jax.problems.retrieval import planned as shapes
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.problems.retrieval.problem import Retrieval, sites
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.types import Tree

SAID = CAPTIONS
_MANY = 1 << 20
BUNDLED = Path(__file__).parents[2] / "assets" / "tiny_clip"
PIXELS = {
    "clip": (transforms.CLIP_MEAN, transforms.CLIP_STD),
    "imagenet": (transforms.IMAGENET_MEAN, transforms.IMAGENET_STD),
}


def build(config: ConfigDict, mesh: Mesh) -> tuple[Retrieval, Backbone]:
    """The problem and its backbone, the weights on the mesh. Raises UserError for what does not fit together."""
    meshes.check_batch("config.eval.batch", config.eval.batch, mesh)
    source = BUNDLED if config.backbone == "bundled" else config.backbone
    clip, params = weights.load(source, weights.Towers(**config.towers.to_dict()))
    tokenizer = Tokenizer.load(config.tokenizer or source)
    check_tokenizer(config, clip, tokenizer)
    problem = retrieval(config, clip, tokenizer)
    hashes = {"backbone": weights.fingerprint(params), "tokenizer": tokenizer.fingerprint()}
    placed = placement.put_backbone(params, mesh, partial(kept, dtype=config.dtype))
    return problem, Backbone(placed, hashes, clip.assumed, clip.image_size)


def retrieval(config: ConfigDict, clip: CLIPConfig, tokenizer: Tokenizer) -> Retrieval:
    """The problem for towers of these sizes."""
    model = CLIP(
        clip,
        dtype=jnp.dtype(config.dtype),
        injection=config.method.injection,
        precision=config.matmul_precision,
        remat=config.train.remat,
    )
    mean, std = PIXELS[config.pixels]
    crop, flip = tuple(config.data.crop_scale), config.data.flip
    return Retrieval(
        towers=Towers(model, mean, std),
        captions=Captions(tokenizer, clip.context_length, config.data.max_words),
        train_transform=Transform(clip.image_size, config.data.train_transform, crop, flip),
        eval_transform=Transform(clip.image_size, config.eval.transform, crop, flip),
        apart=config.problem.equal_texts == "apart",
        measured=Measured(
            batch=config.eval.batch,
            galleries=config.eval.gallery,
            oracle=config.task_id == "oracle",
            score=config.eval.score,
            apart=config.eval.equal_texts == "apart",
            future=config.eval.future,
            rule=config.routing.rule,
            looks_at=config.routing.features,
            asks_with_placeholders=config.routing.caption == "placeholders",
            seed=config.seed,
        ),
    )


def check_tokenizer(config: ConfigDict, clip: CLIPConfig, tokenizer: Tokenizer) -> None:
    """Raises UserError unless the text tower embeds every token and pools where the tokenizer ends a caption."""
    if tokenizer.vocab_size > clip.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens but backbone {config.backbone} embeds only"
            f" {clip.vocab_size}; choose another by --config.tokenizer=DIR"
        )
    if clip.end_of_text not in (None, tokenizer.vocab_size - 1):
        raise UserError(
            f"the tokenizer ends captions with id {tokenizer.vocab_size - 1} but backbone {config.backbone} pools them"
            f" at id {clip.end_of_text}; choose another by --config.tokenizer=DIR"
        )


def examples(split: Split) -> int:
    """How many training examples a split has: each caption is one."""
    return len(captioned.spoken(split))


def texts(record: Captioned) -> tuple[str, ...]:
    """What is said of an image: its captions."""
    return record.captions


class Look(NamedTuple):
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

    @property
    def image_size(self) -> int | None:
        """Side of the backbone's input, pixels."""
        return self.clip.image_size if self.clip else None

    @property
    def sites(self) -> Mapping[str, Site] | None:
        """Where prompts may enter."""
        return sites(self.clip) if self.clip else None

    @property
    def spacious(self) -> Mapping[str, Site]:
        """Towers with room for any prompts: for what is asked of a method whatever the backbone."""
        return {name: Site(layers=_MANY, width=1, room=_MANY) for name in ("vision", "text")}

    @property
    def shapes(self) -> Tree:
        """The towers' parameters without their numbers."""
        return param_shapes(self.clip)

    def count_cut(self, config: ConfigDict, reserve: Mapping[str, int]) -> Callable[[Split], int] | None:
        """A split -> how many of its captions the text tower cannot take whole behind `reserve`; None: unknown."""
        placeholders = reserve.get("text", 0)
        if self.clip is None or self.tokenizer is None or placeholders + 2 >= self.clip.context_length:
            return None
        captions = Captions(self.tokenizer, self.clip.context_length, config.data.max_words)
        return lambda split: captions.count_cut(captioned.spoken(split), placeholders)

    def check(self, config: ConfigDict) -> None:
        """Raises UserError where tokenizer and towers do not fit together."""
        if self.clip and self.tokenizer:
            check_tokenizer(config, self.clip, self.tokenizer)


def planned(config: ConfigDict, mesh: Mesh) -> Planned:
    """The problem and its towers in shapes alone. Raises UserError where their sizes are not known here."""
    meshes.check_batch("config.eval.batch", config.eval.batch, mesh)
    seen = look(config)
    clip = seen.clip or CLIPS.get(str(config.backbone).partition("@")[0])
    if clip is None:
        raise UserError(f"the sizes of config.backbone {config.backbone} are not known: {seen.unknown}")
    problem = retrieval(config, clip, seen.tokenizer)
    frozen = placement.planned(param_shapes(clip), mesh, partial(kept, dtype=config.dtype))
    return Planned(
        problem,
        frozen,
        clip.embed_dim,
        lambda method: shapes.batch(clip, method, config.train.batch),
        lambda method, *trees: shapes.calls(problem, method, (frozen, mesh), trees, config.routing.features),
    )


def look(config: ConfigDict) -> Look:
    """The towers and the tokenizer that a configuration names, as far as they are on this machine."""
    source = BUNDLED if config.backbone == "bundled" else config.backbone
    parts: list[Any] = []
    unknown, refused = [], []
    sizes = partial(weights.config, towers=weights.Towers(**config.towers.to_dict()))
    for name, load in ((source, sizes), (config.tokenizer or source, Tokenizer.load)):
        parts.append(None)
        try:
            path = hub.at_hand(name)
            if path or not hub.is_hub_id(str(name)):  # which a run would fetch
                parts[-1] = load(path or Path(name))
        except UserError as error:
            refused.append(str(error))
        if parts[-1] is None:
            unknown.append(refused[-1] if path else f"{name} is not on this machine; a run would have to fetch it")
    return Look(*parts, "; ".join(dict.fromkeys(unknown)), tuple(dict.fromkeys(refused)))
