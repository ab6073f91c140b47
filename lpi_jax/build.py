"""From a configuration to the things a run is made of. The one place that knows methods by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lpi_jax import mesh as meshes
from lpi_jax.data import catalogue, preprocess
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Stream
from lpi_jax.encode import Encoder
from lpi_jax.errors import UserError
from lpi_jax.gallery import Gallery
from lpi_jax.methods.base import Method, Tree
from lpi_jax.methods.lpi import LPI, lpi
from lpi_jax.methods.zero_shot import zero_shot
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP, CLIPConfig
from lpi_jax.models.tokenizer import Tokenizer

BUNDLED = Path(__file__).parent / "assets" / "tiny_clip"
PIXELS = {
    "clip": (preprocess.CLIP_MEAN, preprocess.CLIP_STD),
    "imagenet": (preprocess.IMAGENET_MEAN, preprocess.IMAGENET_STD),
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
        cleaned = [preprocess.clean_caption(caption, self._max_words) for caption in captions]
        return self._tokenizer.encode(cleaned, placeholders, self._context_length)


class System(NamedTuple):
    """A frozen backbone on its devices, the method that prompts it, and how pictures and captions reach it."""

    model: CLIP
    backbone: Tree
    sha256: str
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
    clip_config, params = weights.load(source)
    tokenizer = Tokenizer.load(config.tokenizer or source)
    if tokenizer.vocab_size > clip_config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens but backbone {config.backbone} embeds only"
            f" {clip_config.vocab_size}"
        )
    mesh = meshes.make_mesh(config.devices)
    meshes.check_batch("config.train.batch", config.train.batch, mesh)
    model = CLIP(clip_config, dtype=jnp.dtype(config.dtype), injection=config.prompt.injection)
    backbone = meshes.put_replicated(params, mesh)
    mean, std = PIXELS[config.pixels]
    size, crop = clip_config.image_size, tuple(config.data.crop_scale)
    return System(
        model=model,
        backbone=backbone,
        sha256=weights.fingerprint(params),
        captions=Captions(tokenizer, clip_config.context_length, config.data.max_words),
        method=method(config, clip_config),
        mesh=mesh,
        mean=mean,
        std=std,
        encoder=Encoder(model, backbone, mesh, config.eval.batch, mean, std),
        train_transform=Transform(size, config.data.train_transform, crop, config.data.flip),
        eval_transform=Transform(size, config.eval.transform, crop, config.data.flip),
    )


def method(config: ConfigDict, clip: CLIPConfig) -> Method:
    """The method `config.method`, sized for a backbone."""
    if config.method == "zero_shot":
        return zero_shot()
    if config.method != "lpi":
        raise UserError(f"config.method is {config.method!r}, expected 'lpi' or 'zero_shot'")
    prompt, loss = config.prompt, config.loss
    for tower, own in (("vision", clip.vision), ("text", clip.text)):
        if prompt.depth > own.layers:
            raise UserError(f"config.prompt.depth is {prompt.depth}, but the {tower} tower has {own.layers} layers")
    if prompt.length + 3 > clip.context_length or prompt.length > clip.patches:
        raise UserError(
            f"config.prompt.length is {prompt.length}, too long for a context of {clip.context_length} tokens"
            f" and {clip.patches} patches"
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
    return catalogue.stream(config.data.to_dict(), image_size)
