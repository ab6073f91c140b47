"""How retrieval is measured: the gallery of all seen items, and recall from it."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.data import captioned
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.methods.base import Method
from lpi_jax.problems import saved
from lpi_jax.problems.base import Control, Row
from lpi_jax.problems.retrieval import intervals, recall
from lpi_jax.problems.retrieval.adapters import Group
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.contrast import contrast
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.gallery import Gallery
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.problems.retrieval.recall import Ranked, Way
from lpi_jax.types import Adapter, Tree


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
        self._transform, self._measured = transform, measured
        self._asking = method.reserve.get("text", 0) if measured.asks_with_placeholders else 0
        self._tasks = 0
        self._expected: list[Split] = []  # where all items are there from the start
        self._probes: dict[str, Gallery] = {}
        self._probe_splits: dict[str, Sequence[Split]] = {}
        self.gallery = Gallery(encoder, method, captions, transform, measured)

    def expect(self, splits: Sequence[Split]) -> None:
        """The validation items of all tasks; they are kept where tasks are measured before they are learnt."""
        self._expected = list(splits) if self._measured.future else []

    def probe(self, name: str, splits: Sequence[Split]) -> None:
        """Items that are measured and never learnt."""
        self._probe_splits[name] = splits
        # Nobody could tell them a task.
        measured = self._measured._replace(oracle=False)
        self._probes[name] = Gallery(self._encoder, self._method, self._captions, self._transform, measured)

    def add(self, split: Split) -> None:
        """The next task's validation items arrive."""
        self._changed()
        self._tasks += 1
        if not self._expected:
            self.gallery.add(split)
        elif self._tasks == 1:
            for one in self._expected:
                self.gallery.add(one)
        if self._tasks == 1:
            for name, gallery in self._probes.items():
                for one in self._probe_splits[name]:
                    gallery.add(one)

    def follow(self, memory: Tree, tasks: int) -> None:
        """Every item gets its adapter of the memory after so many tasks."""
        self._changed()
        for gallery in self._galleries.values():
            gallery.follow(memory, tasks)

    @property
    def _galleries(self) -> dict[str, Gallery]:
        return {"stream": self.gallery, **{f"probe {name}": gallery for name, gallery in self._probes.items()}}

    def measure(self, first: int = 0) -> Row:
        """Every metric on the tasks from number `first` on, all tasks so far being in the gallery."""
        asked = range(first, self._tasks)
        if first:  # a new task as it was met before: ranked once and never again
            return recall.row(self._rank(Way(self._measured.score, self._measured.galleries), asked), asked)
        return recall.row(self._found, asked)

    def controls(self) -> dict[Control, Row]:
        """The frozen backbone with and without what the method knows of the tasks, and galleries that never grow."""
        return {control: recall.row(found, range(self._tasks)) for control, found in self._controlled.items()}

    def intervals(self) -> dict[str, Any]:
        """How well the final averages are known."""
        controlled = {control.name: found for control, found in self._controlled.items()}
        return intervals.intervals(self._found, controlled, range(self._tasks))

    def future(self) -> dict[str, Row]:
        """Every metric on all tasks of the stream, learnt or not, all items being searched; {} unless asked for."""
        if not self._expected:
            return {}
        every = range(len(self._expected))
        ways = {"future": self._measured.score, "future_frozen": "plain"}
        return {
            name: recall.row(self._rank(Way(score, self._measured.galleries), every, every), every)
            for name, score in ways.items()
        }

    def probed(self) -> dict[str, Any]:
        """By probe every metric, averaged over its tasks, of the method and of the frozen backbone."""
        return {name: self._probed(gallery, len(self._probe_splits[name])) for name, gallery in self._probes.items()}

    def _probed(self, gallery: Gallery, tasks: int) -> dict[str, dict[str, float]]:
        every = range(tasks)

        def averages(score: str) -> dict[str, float]:
            found = self._rank(Way(score, self._measured.galleries), every, every, gallery)
            return {metric: float(np.mean(values)) for metric, values in recall.row(found, every).items()}

        return {"values": averages(self._measured.score), "frozen": averages("plain")}

    def chance(self) -> Row:
        """What a gallery in random order finds."""
        return recall.chance_row(self.gallery, self._tasks, self._measured.galleries, self._measured.apart)

    @cached_property
    def _found(self) -> dict[str, Ranked]:
        return self._rank(Way(self._measured.score, self._measured.galleries), range(self._tasks))

    @cached_property
    def _controlled(self) -> dict[Control, dict[str, Ranked]]:
        measured = self._measured
        ways = recall.ways(measured.score, measured.galleries, self._method.options.routes)
        return {control: self._rank(way, range(self._tasks)) for control, way in ways.items()}

    def _rank(
        self, way: Way, asked: range, shown: range | None = None, gallery: Gallery | None = None
    ) -> dict[str, Ranked]:
        return recall.ranked(
            gallery or self.gallery,
            way,
            asked,
            shown or range(self._tasks),
            apart=self._measured.apart,
            logit_scale=self._encoder.logit_scale,
        )

    def _changed(self) -> None:
        """Forgets the ranks of the gallery as it was."""
        self.__dict__.pop("_found", None)
        self.__dict__.pop("_controlled", None)

    def routing(self, tasks: int) -> dict[str, dict[str, Any]]:
        """By side where the items of the first `tasks` tasks were sent; {} for a method that sends none."""
        if not self._method.options.routes:
            return {}
        return {
            name: {"accuracy": recall.routing_accuracy(side, tasks), "confusion": recall.confusion(side, tasks)}
            for name, side in (("image", self.gallery.images), ("text", self.gallery.captions))
        }

    def features(self, split: Split, number: int) -> dict[str, np.ndarray]:
        """By side what routing looks at [N, Q] of a training split's images and captions."""
        transform, seed = self._transform, self._measured.seed
        images = self._encoder.plain_images(lambda i: transform(split.load(i), (seed, number, i)), range(len(split)))
        captions = self._encoder.plain_texts(self._captions(captioned.spoken(split), self._asking))
        return {"image": images.asking, "text": captions.asking}

    def compare(self, split: Split, adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
        """What each image misses [N] of the first rank among the split's own items, with and without an adapter."""
        count, owners = len(split), captioned.pairs(split)[:, 0]
        reserve = self._method.reserve.get("text", 0)
        plain_ids, ids = (self._captions(captioned.spoken(split), length) for length in (0, reserve))
        names = np.arange(len(owners))
        if not self._measured.apart:
            names = np.unique(plain_ids, axis=0, return_inverse=True)[1].reshape(-1)

        def load(index: int) -> np.ndarray:
            return self._transform(split.load(index), (self._measured.seed, count, index))

        def loss(images: Group | None, texts: Group | None) -> np.ndarray:
            tokens = plain_ids if texts is None else ids
            features = self._encoder.images(load, range(count), images), self._encoder.texts(tokens, texts)
            return contrast(*features, owners, names)

        def under(site: str, items: int) -> Group:
            prompts = adapter.prompts.get(site)
            chosen = None if prompts is None else np.zeros(items, np.int32)
            return Group(np.arange(items), adapter.params, None if prompts is None else prompts[None], chosen)

        return loss(under("vision", count), under("text", len(owners))), loss(None, None)

    def meaning(self, text: str) -> np.ndarray:
        """[E] float32: what the frozen text tower makes of a text."""
        return self._encoder.texts(self._captions([text], 0))[0]

    def save(self, path: Path) -> None:
        """Writes what was computed."""
        saved.save(path, {name: gallery.arrays() for name, gallery in self._galleries.items()})

    def restore(self, path: Path, splits: Sequence[Split]) -> None:
        """What `save` wrote, for the same splits. Raises UserError where the file is damaged."""
        self._changed()
        self._tasks = len(splits)
        arrays = saved.saved(path, {name: gallery.arrays() for name, gallery in self._galleries.items()})
        self.gallery.refill(arrays["stream"], self._expected or splits)
        for name, gallery in self._probes.items():
            gallery.refill(arrays[f"probe {name}"], self._probe_splits[name])
