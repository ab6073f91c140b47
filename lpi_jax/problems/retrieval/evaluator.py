"""How retrieval is measured: the gallery of all seen items, and recall from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.data import captioned
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.methods.base import Method
from lpi_jax.problems.base import Row
from lpi_jax.problems.retrieval import recall
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.gallery import Gallery
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.types import Tree


class RetrievalEvaluator:
    """`lpi_jax.problems.base.Evaluator` of retrieval.

    Args:
      encoder: the towers. method: which adapter each item gets. captions: -> token ids.
      transform: of measured images. measured: how they are measured.
    """

    def __init__(
        self, encoder: Encoder, method: Method, captions: Captions, transform: Transform, measured: Measured
    ) -> None:
        self._encoder, self._method, self._captions = encoder, method, captions
        self._transform, self._seed, self._galleries = transform, measured.seed, measured.galleries
        self._asking = method.reserve.get("text", 0) if measured.asks_with_placeholders else 0
        self._tasks = 0
        self.gallery = Gallery(encoder, method, captions, transform, measured)

    def add(self, split: Split) -> None:
        """The next task's validation items arrive."""
        self._tasks += 1
        self.gallery.add(split)

    def follow(self, memory: Tree, tasks: int) -> None:
        """Every item gets its adapter of the memory after so many tasks."""
        self.gallery.follow(memory, tasks)

    def measure(self, first: int = 0, frozen: bool = False) -> Row:
        """Recall on the tasks from number `first` on; frozen: of the backbone without the method."""
        features = "plain" if frozen else "features"
        return recall.recall_row(self.gallery, self._tasks, self._galleries, features, first)

    def chance(self) -> Row:
        """The recall of a gallery in random order."""
        return recall.chance_row(self.gallery, self._tasks, self._galleries)

    def routing(self, tasks: int) -> dict[str, dict[str, Any]]:
        """By side where the items of the first `tasks` tasks were sent; {} for a method that sends none."""
        if not self._method.options.routes:
            return {}
        return {
            name: {"accuracy": recall.routing_accuracy(side, tasks), "confusion": recall.confusion(side, tasks)}
            for name, side in (("image", self.gallery.images), ("text", self.gallery.captions))
        }

    def features(self, split: Split, number: int) -> dict[str, np.ndarray]:
        """By side the features [N, E] of a training split's images and captions that routing looks at."""
        transform, seed = self._transform, self._seed
        images = self._encoder.images(lambda i: transform(split.load(i), (seed, number, i)), range(len(split)))
        captions = self._encoder.texts(self._captions(captioned.spoken(split), self._asking))
        return {"image": images, "text": captions}

    def meaning(self, text: str) -> np.ndarray:
        """[E] float32: what the frozen text tower makes of a text."""
        return self._encoder.texts(self._captions([text], 0))[0]

    def save(self, path: Path) -> None:
        """Writes what was computed."""
        self.gallery.save(path)

    def restore(self, path: Path, splits: Sequence[Split]) -> None:
        """What `save` wrote, for the same splits. Raises UserError where the file is damaged."""
        self._tasks = len(splits)
        self.gallery.restore(path, splits)
