"""A trained run as a model: pictures and captions in, routed features out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jax import Array
from ml_collections import ConfigDict

from lpi_jax import build, checkpoint, continual, routing, workdir
from lpi_jax.errors import UserError
from lpi_jax.memory import Memory

if TYPE_CHECKING:
    from PIL.Image import Image


class Retriever:
    """What `load` returns: each item is encoded under the prompts of the task whose centre is nearest.

    Attributes:
      tasks: names of the tasks it has learnt.
    """

    def __init__(self, system: build.System, memory: Memory, asks_with_placeholders: bool) -> None:
        self._system, self._memory = system, memory
        self._asking = system.method.placeholders if asks_with_placeholders else 0
        self._prompts = [system.method.prompts(memory.trained_of(task)) for task in range(memory.count)]
        self.tasks = memory.names

    def encode_image(self, images: "np.ndarray | Image | Sequence[np.ndarray | Image]") -> np.ndarray:
        """Features of pictures.

        Args:
          images: [B, H, W, 3] uint8 RGB of any size, one PIL image, or a sequence of arrays [H, W, 3] and PIL images.

        Returns:
          [B, E] float32, L2-normalised.
        """
        transform = self._system.eval_transform
        pictures = [transform(_rgb(image), (0, i)) for i, image in enumerate(_several(images))]
        return self._routed(
            len(pictures),
            self._memory.image_centres,
            asking=self._system.encoder.images(pictures.__getitem__, range(len(pictures))),
            prompts=[own.visual for own in self._prompts],
            encode=lambda items, own: self._system.encoder.images(pictures.__getitem__, items, own),
        )

    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        """Features of captions: a sequence of B strings -> [B, E] float32, L2-normalised."""
        if isinstance(captions, str):
            captions = [captions]
        for caption in captions:
            if not caption.strip():
                raise UserError(f"the caption {caption!r} is empty; expected at least one word")
        asking = self._system.captions(captions, self._asking)
        ids = self._system.captions(captions, self._system.method.placeholders)
        return self._routed(
            len(ids),
            self._memory.text_centres,
            asking=self._system.encoder.texts(asking),
            prompts=[own.textual for own in self._prompts],
            encode=lambda items, own: self._system.encoder.texts(ids[items], own),
        )

    def _routed(
        self,
        count: int,
        centres: np.ndarray,
        asking: np.ndarray,
        prompts: list[Array | None],
        encode: Callable[[np.ndarray, Array], np.ndarray],
    ) -> np.ndarray:
        if not count:
            return asking
        tasks = routing.route(asking, centres)
        features = np.empty_like(asking)
        for task in np.unique(tasks):
            items, own = np.flatnonzero(tasks == task), prompts[task]
            features[items] = asking[items] if own is None else encode(items, own)
        return features


def load(directory: str | Path) -> Retriever:
    """The model a run has trained so far, from its newest task boundary.

    Raises:
      UserError: the directory holds no run, or none with a finished task.
    """
    directory = Path(directory)
    config = ConfigDict(workdir.read(directory)["config"])
    system = build.system(config)
    checkpoints = checkpoint.Checkpoints(directory)
    try:
        memory = continual.restore(checkpoints, config, system).memory
    finally:
        checkpoints.close()
    if not memory.count:
        raise UserError(f"{directory} has no finished task yet")
    return Retriever(system, memory, config.routing.caption == "placeholders")


def _several(images) -> Sequence:
    return images if isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4 else [images]


def _rgb(image) -> np.ndarray:
    array = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB"))
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise UserError(f"a picture is {array.dtype} {array.shape}, expected uint8 [height, width, 3]")
    return array
