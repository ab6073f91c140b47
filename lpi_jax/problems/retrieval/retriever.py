"""A trained run as a model: pictures and captions in, routed features out."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array
from PIL import Image

from lpi_jax import paths
from lpi_jax.config import records
from lpi_jax.data import pictures, transforms
from lpi_jax.errors import UserError, reason
from lpi_jax.experiment import assemble
from lpi_jax.methods import routing
from lpi_jax.methods.memory import Memory
from lpi_jax.parallel import compilation, devices
from lpi_jax.problems.retrieval.gallery import tables
from lpi_jax.run import continual
from lpi_jax.workdir import checkpoint, ownership

Picture = np.ndarray | Image.Image | str | os.PathLike[str]


class Retriever:
    """What `load` returns: each item is encoded under the prompts of the task whose centre is nearest.

    Pictures are resized and centre-cropped, also where the run itself measured on random crops: what an item becomes
    depends on nothing but the item.

    Attributes:
      tasks: names of the tasks it has learnt.
    """

    def __init__(self, system: assemble.System, memory: Memory, asks_with_placeholders: bool) -> None:
        self._system, self._memory = system, memory
        self._asking = system.method.placeholders if asks_with_placeholders else 0
        self._visual, self._textual = tables(system.method, memory)
        self.tasks = memory.names

    def prepare(self, image: Picture) -> np.ndarray:
        """A picture as the tower sees it: [S, S, 3] uint8, of which `encode_image` makes what it makes of the picture.

        Args:
          image: one of those that `encode_image` takes.

        Raises:
          UserError: as for `encode_image`.
        """
        return transforms.resize_and_crop(_rgb(image), self._system.model.config.image_size)

    def encode_image(self, images: Picture | Iterable[Picture]) -> np.ndarray:
        """Features of pictures.

        Args:
          images: [B, H, W, 3] uint8 RGB of any size, one picture, or several of any sizes: arrays [H, W, 3], and files
            (their paths) and PIL images, which are read as the pictures of a stream are (upright, transparency on
            white).

        Returns:
          [B, E] float32, L2-normalised.

        Raises:
          UserError: something else than such pictures, or a file that is missing, damaged or too large.
        """
        pictures = [self.prepare(image) for image in _several(images)]
        return self._routed(
            len(pictures),
            self._memory.image_centres,
            asking=self._system.encoder.images(pictures.__getitem__, range(len(pictures))),
            table=self._visual,
            encode=lambda tasks: self._system.encoder.images(
                pictures.__getitem__, range(len(pictures)), self._visual, tasks
            ),
        )

    def encode_text(self, captions: str | Iterable[str]) -> np.ndarray:
        """Features of captions: B strings (or one) -> [B, E] float32, L2-normalised.

        Raises:
          UserError: not a string, or one without a word or with half a character.
        """
        captions = _captions(captions)
        asking = self._system.captions(captions, self._asking)
        ids = self._system.captions(captions, self._system.method.placeholders)
        return self._routed(
            len(ids),
            self._memory.text_centres,
            asking=self._system.encoder.texts(asking),
            table=self._textual,
            encode=lambda tasks: self._system.encoder.texts(ids, self._textual, tasks),
        )

    def _routed(
        self,
        count: int,
        centres: np.ndarray,
        asking: np.ndarray,
        table: Array | None,
        encode: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        if not count or table is None:
            return asking
        return encode(routing.route(asking, centres))


def load(directory: str | Path) -> Retriever:
    """The model a run has trained so far, from its newest task boundary; on one device, wherever it was trained.

    Writes nothing: the run may be at work, its directory read-only.

    Raises:
      UserError: the directory holds no run, or none with a finished task, its backbone is not what it was, or JAX
        has no device to run it on.
    """
    directory = paths.local(directory, "the run's directory")
    devices.available()
    record = ownership.read(directory)
    config = records.configuration(record, directory)
    config.devices = 1
    compilation.keep_compiled(config.compilation_cache)
    system = assemble.system(config)
    if system.sha256 != record.get("backbone"):
        raise UserError(
            f"backbone {config.backbone} is not the one that {directory} was trained on: its weights differ"
        )
    memory = continual.restore(checkpoint.Checkpoints(directory), config, system).memory
    if not memory.count:
        raise UserError(f"{directory} has no finished task yet")
    return Retriever(system, memory, config.routing.caption == "placeholders")


def _several(images: Any) -> list[Any]:
    if isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) != 4:  # one of them
        return [images]
    try:
        return list(images)
    except TypeError as error:
        raise UserError(f"images is a {type(images).__name__}, expected arrays, PIL images or paths") from error


def _captions(captions: Any) -> list[str]:
    try:
        several = [captions] if isinstance(captions, str) else list(captions)
    except TypeError as error:
        raise UserError(f"captions is a {type(captions).__name__}, expected strings") from error
    for caption in several:
        if not isinstance(caption, str):
            raise UserError(f"a caption is a {type(caption).__name__}, expected a string")
        try:
            caption.encode()
            transforms.clean_caption(caption)
        except UnicodeEncodeError as error:
            raise UserError(
                f"the caption {caption!a:.80} holds half of a surrogate pair, expected whole characters"
            ) from error
        except ValueError as error:
            raise UserError(f"the caption {caption!r:.80} is empty; expected at least one word") from error
    return several


def _rgb(image: Any) -> Image.Image:
    """A picture in mode RGB, from an array, a PIL image or a file."""
    if isinstance(image, str | os.PathLike):
        return pictures.read_image(paths.local(image, "a picture"))
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UserError(f"a picture is {image.width} x {image.height} pixels, expected at least one")
        try:
            return pictures.as_seen(image)
        except Exception as error:  # an image that was opened but not loaded may be damaged, or of a grey without white
            raise UserError(f"a picture in mode {image.mode} cannot be used ({reason(error)})") from error
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise UserError(f"a picture is {array.dtype} {array.shape}, expected uint8 (height, width, 3)")
    return Image.fromarray(array)
