"""A trained run as a model: images and captions in, features under the adapters that they are assigned."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image

from lpi_jax.data import transforms
from lpi_jax.errors import UserError
from lpi_jax.methods.base import NOTHING, Method
from lpi_jax.problems.given_images import ImageLike, rgb
from lpi_jax.problems.retrieval.adapters import Adapters, Group, encoded
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.encoder import Encoder, Told
from lpi_jax.problems.retrieval.options import SCORES, Measured
from lpi_jax.problems.retrieval.score import Scored, matrix, scored, uses_prompts, vectors
from lpi_jax.types import Tree


class Retriever:
    """What `lpi_jax.load` returns: each item is encoded under the adapter that the method assigns to it.

    Images are resized and centre-cropped, also where the run itself measured on random crops: what an item becomes
    depends on nothing but the item.

    Args:
      encoder: the towers. method: what assigns. captions: -> token ids.
      memory: of the run. image_size: side of the towers' input, pixels. measured: how the run is measured.

    Attributes:
      tasks: names of the tasks it has learnt.
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        captions: Captions,
        memory: Tree,
        tasks: tuple[str, ...],
        *,
        image_size: int,
        measured: Measured,
    ) -> None:
        self._encoder, self._method, self._tokenize, self._memory = encoder, method, captions, memory
        self._image_size, self._score = image_size, measured.score
        self._asking = method.reserve.get("text", 0) if measured.asks_with_placeholders else 0
        self._adapters = Adapters(method, memory, encoder.frozen)
        self.tasks = tasks

    def prepare(self, image: ImageLike) -> np.ndarray:
        """An image as the tower sees it: [S, S, 3] uint8, of which `encode_image` makes what it makes of the image.

        Args:
          image: one of those that `encode_image` takes.

        Raises:
          UserError: as for `encode_image`.
        """
        return transforms.resize_and_crop(rgb(image), self._image_size)

    def encode_image(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Features of images.

        Args:
          images: [B, H, W, 3] uint8 RGB of any size, one image, or several of any sizes: arrays [H, W, 3], and files
            (their paths) and PIL images, which are read as the images of a stream are (upright, transparency on
            white).

        Returns:
          [B, E] float32, L2-normalised.

        Raises:
          UserError: something else than such images, or a file that is missing, damaged or too large.
        """
        return self.index_images(images, "prompted").features

    def index_images(self, images: ImageLike | Iterable[ImageLike], score: str = "") -> Scored:
        """Images as `scores` needs them, to be kept.

        Args:
          images: as for `encode_image`. score: which parts; "": those that the run measures by (`eval.score`).

        Returns:
          Features [B, E'] float32 and, with a prior, posteriors [B, T + 1]. `vectors` makes plain vectors of them.

        Raises:
          UserError: as `encode_image`, or another score.
        """
        prepared = [self.prepare(image) for image in _several(images)]
        numbers = np.arange(len(prepared))
        return self._adapted(
            "image",
            "vision",
            self._encoder.plain_images(prepared.__getitem__, numbers),
            lambda items, group: self._encoder.images(prepared.__getitem__, items, group),
            score,
        )

    def encode_text(self, captions: str | Iterable[str]) -> np.ndarray:
        """Features of captions: B strings (or one) -> [B, E] float32, L2-normalised.

        Raises:
          UserError: not a string, or one without a word or with half a character.
        """
        return self.index_texts(captions, "prompted").features

    def index_texts(self, captions: str | Iterable[str], score: str = "") -> Scored:
        """Captions as `scores` needs them; as `index_images`. Raises UserError as `encode_text`."""
        words = _captions(captions)
        plain_ids = self._tokenize(words, 0)
        ids = self._tokenize(words, self._method.reserve.get("text", 0))
        told = self._encoder.plain_texts(plain_ids)
        if self._asking:
            told = told._replace(asking=self._encoder.plain_texts(self._tokenize(words, self._asking)).asking)
        return self._adapted(
            "text",
            "text",
            told,
            lambda items, group: self._encoder.texts(ids[items], group, plain_ids[items]),
            score,
        )

    def scores(self, queries: Scored, items: Scored) -> np.ndarray:
        """[Q, N] float32: what each of some texts scores with each of some images, or images with texts.

        Args:
          queries, items: from `index_texts` and `index_images`, with the same parts.

        Raises:
          UserError: they have other parts.
        """
        if [part is None for part in queries] != [part is None for part in items]:
            raise UserError("queries and items were indexed with different scores; expected the same score for both")
        return matrix(queries, items, self._encoder.logit_scale)

    def vectors(self, items: Scored, asking: bool = False, task: int | None = None) -> np.ndarray:
        """[N, E'] float32 for an index that knows inner products alone; asking: of the queries.

        With the score `matched` there is an index for the queries of each task (`items.adapters`), of items with `task`
        of -1 (none), 0, 1, ... See `score.vectors`. Raises UserError for `matched` items without one.
        """
        return vectors(items, self._encoder.logit_scale, asking, task)

    def _adapted(
        self,
        side: str,
        site: str,
        told: Told,
        encode: Callable[[np.ndarray, Group], np.ndarray],
        score: str,
    ) -> Scored:
        """Items under the assigned adapters: the same steps as in the evaluation (`gallery.Side`).

        Args:
          told: of the items without any. encode: (items, group) -> features.
        """
        plain, score = told.features, score or self._score
        if score not in SCORES:
            raise UserError(f"score is {score!r}, expected one of {', '.join(SCORES)}")
        assigned = self._method.assign(self._memory, {side: told.asking}, NOTHING)[side]
        features = encoded(plain, assigned.ids, self._adapters, site, encode) if uses_prompts(score) else plain
        return scored(features, plain, assigned.posterior, assigned.ids, score)


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
