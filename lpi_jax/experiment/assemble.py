"""From a configuration to the things a run is made of. The one place that knows methods by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lpi_jax.config.options import TRAINING, flat
from lpi_jax.data import transforms
from lpi_jax.data.loader import Transform
from lpi_jax.data.sources import registry
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.methods.base import Method
from lpi_jax.methods.lpi import LPI, lpi
from lpi_jax.methods.zero_shot import zero_shot
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP, CLIPConfig
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.gallery import Gallery
from lpi_jax.types import Tree

BUNDLED = Path(__file__).parents[1] / "assets" / "tiny_clip"
PIXELS = {
    "clip": (transforms.CLIP_MEAN, transforms.CLIP_STD),
    "imagenet": (transforms.IMAGENET_MEAN, transforms.IMAGENET_STD),
}


class Captions:
    """Captions as written -> token ids."""

    def __init__(self, tokenizer: Tokenizer, context_length: int, max_words: int) -> None:
        self._tokenizer, self._context_length, self._max_words = tokenizer, context_length, max_words

    def __call__(self, captions: Sequence[str], placeholders: int) -> np.ndarray:
        """[N, context] int32, with so many placeholder words in front."""
        return self._encode(captions, placeholders)[0]

    def count_cut(self, captions: Sequence[str], placeholders: int) -> int:
        """How many of the captions do not fit into the context behind so many placeholders, and lose their end."""
        return self._encode(captions, placeholders)[1]

    def _encode(self, captions: Sequence[str], placeholders: int) -> tuple[np.ndarray, int]:
        cleaned = [transforms.clean_caption(caption, self._max_words) for caption in captions]
        return self._tokenizer.encode(cleaned, placeholders, self._context_length)


class System(NamedTuple):
    """A frozen backbone on its devices, the method that prompts it, and how pictures and captions reach it."""

    model: CLIP
    backbone: Tree
    sha256: str
    tokenizer_sha256: str
    captions: Captions
    method: Method
    mesh: Mesh
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    encoder: Encoder
    train_transform: Transform
    eval_transform: Transform


def system(config: ConfigDict) -> System:
    """Loads the backbone and builds everything around it; UserError for what does not fit together."""
    source = BUNDLED if config.backbone == "bundled" else config.backbone
    clip_config, params = weights.load(source, weights.Towers(**config.towers.to_dict()))
    tokenizer = Tokenizer.load(config.tokenizer or source)
    check_tokenizer(config, clip_config, tokenizer)
    mesh = meshes.make_mesh(config.devices)
    check_train_batch(config, mesh)
    model = CLIP(
        clip_config, dtype=jnp.dtype(config.dtype), injection=config.prompt.injection, precision=config.matmul_precision
    )
    backbone = meshes.put_replicated(params, mesh)
    mean, std = PIXELS[config.pixels]
    size, crop = clip_config.image_size, tuple(config.data.crop_scale)
    return System(
        model=model,
        backbone=backbone,
        sha256=weights.fingerprint(params),
        tokenizer_sha256=tokenizer.fingerprint(),
        captions=Captions(tokenizer, clip_config.context_length, config.data.max_words),
        method=method(config, clip_config),
        mesh=mesh,
        mean=mean,
        std=std,
        encoder=Encoder(model, backbone, mesh, config.eval.batch, mean, std),
        train_transform=Transform(size, config.data.train_transform, crop, config.data.flip),
        eval_transform=Transform(size, config.eval.transform, crop, config.data.flip),
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


def check_train_batch(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError unless a training batch, where there will be one, splits evenly over the devices."""
    if TRAINING.reads(flat(config)):
        meshes.check_batch("config.train.batch", config.train.batch, mesh)


def resolved(config: ConfigDict, clip: CLIPConfig) -> ConfigDict:
    """A copy in which every size that is 0 because it follows from the backbone has its value.

    Length: the largest power of two up to the method's 16 that takes at most a third of the patches' number and a
    quarter of the context. Layers: the method's 9, or what the smaller tower has. Depth: all of them. ViT-B/16 gets the
    method's own numbers, the bundled backbone those of `config.for_tiny_backbone`.
    """
    config = config.copy_and_resolve_references()
    prompt, blocks = config.prompt, min(clip.vision.layers, clip.text.layers)
    room = max(1, min(16, clip.patches // 3, clip.context_length // 4))
    prompt.length = prompt.length or 1 << (room.bit_length() - 1)
    prompt.layers = prompt.layers or max(min(9, blocks), prompt.depth)
    prompt.depth = prompt.depth or min(prompt.layers, blocks)
    return config


def method(config: ConfigDict, clip: CLIPConfig) -> Method:
    """The method `config.method`, sized for a backbone. Raises UserError for prompts that do not fit into it."""
    if config.method == "zero_shot":
        return zero_shot()
    if config.method != "lpi":
        raise UserError(f"config.method is {config.method!r}, expected 'lpi' or 'zero_shot'")
    prompt, loss = resolved(config, clip).prompt, config.loss
    for tower, own in (("vision", clip.vision), ("text", clip.text)):
        if prompt.depth > own.layers:
            raise UserError(
                f"config.prompt.depth is {prompt.depth}, but the {tower} tower has {own.layers} layers; use"
                f" --config.prompt.depth={min(clip.vision.layers, clip.text.layers)}, or --config.prompt.depth=0 for as"
                " many as there are"
            )
    if prompt.length + 3 > clip.context_length or prompt.length > clip.patches:
        raise UserError(
            f"config.prompt.length is {prompt.length}, too long for a context of {clip.context_length} tokens"
            f" and {clip.patches} patches; use --config.prompt.length={min(clip.context_length - 3, clip.patches)} or"
            " less, or --config.prompt.length=0 to have it chosen"
        )
    return lpi(
        LPI(
            vision_width=clip.vision.width,
            text_width=clip.text.width,
            layers=prompt.layers,
            depth=prompt.depth,
            length=prompt.length,
            rank=prompt.rank,
            interaction=prompt.interaction,
            alignment=loss.alignment,
            alignment_weight=loss.alignment_weight,
            task=loss.task,
            task_weight=loss.task_weight,
            threshold=loss.threshold,
        )
    )


def gallery(config: ConfigDict, system: System) -> Gallery:
    """The empty gallery of a run."""
    return Gallery(
        system.encoder,
        system.method,
        system.captions,
        system.eval_transform,
        seed=config.seed,
        oracle=config.task_id == "oracle",
        asks_with_placeholders=config.routing.caption == "placeholders",
    )


def stream(config: ConfigDict, image_size: int) -> Stream:
    """The stream of `config.data`; pictures that are drawn are drawn at the backbone's `image_size`."""
    return registry.stream(config.data.to_dict(), image_size)
