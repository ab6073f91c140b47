"""All validation items seen so far and what was computed of them, each feature once in a whole run.

What an adapter id stands for never changes, so an item's features under it never do either: they are computed when
the item first gets that id. Plain features and distances to a task's centres are computed once ever.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from lpi_jax.data import captioned
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.methods.base import PLAIN, Assigned, Method, one_hot
from lpi_jax.problems.retrieval.adapters import Adapters, Group, encoded
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.types import Tree


@dataclass
class Side:
    """One modality's N items, row by row.

    Attributes:
      task: [N] int32, the item's true task. owner: [N] int32, the number of the image it is or describes.
      item: [N] int32, equal where the tower cannot tell two items apart: captions of the same tokens.
      plain: [N, E] features without prompts: the frozen backbone.
      asking: [N, Q] what routing looks at: the plain features, or the last block's; captions perhaps with placeholders.
      compared: [N] int32, how many tasks' centres the item has been compared with; nearest: [N] the best L1 distance.
      routed: [N] int32, the adapter id that the item gets (-1: none).
      posterior: [N, T + 1] float32, how likely the item belongs to each task; the last column: to none of them.
      encoded: [N] int32, the adapter id that `features` are under.
      features: [N, E] float32.
    """

    task: np.ndarray
    owner: np.ndarray
    item: np.ndarray
    plain: np.ndarray
    asking: np.ndarray
    compared: np.ndarray
    nearest: np.ndarray
    routed: np.ndarray
    posterior: np.ndarray
    encoded: np.ndarray
    features: np.ndarray

    @classmethod
    def new(cls, task: int, owner: np.ndarray, item: np.ndarray, plain: np.ndarray, asking: np.ndarray) -> "Side":
        """Items [N] that have not been assigned anything yet: encoded plainly, [N, E] and [N, Q]."""
        nowhere = Assigned.nowhere(len(owner))
        return cls(
            task=np.full(len(owner), task, np.int32),
            owner=owner.astype(np.int32),
            item=item.astype(np.int32),
            plain=plain,
            asking=asking,
            compared=nowhere.compared,
            nearest=nowhere.nearest,
            routed=nowhere.ids,
            posterior=nowhere.posterior,
            encoded=nowhere.ids.copy(),
            features=plain.copy(),
        )

    def extended(self, more: "Side") -> "Side":
        """These items, then `more`, which have not been assigned anything yet."""
        # They belong to none of the tasks, however many there are.
        none = np.zeros((len(more.task), self.posterior.shape[1]), np.float32)
        none[:, -1] = 1.0
        more = replace(more, posterior=none)
        return Side(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(Side)))

    def assign(self, assigned: Assigned, tasks: int, oracle: bool) -> None:
        """Takes over adapter ids [N]; oracle: those of the true tasks, as far as they are among the first `tasks`."""
        self.compared, self.nearest = assigned.compared, assigned.nearest
        self.routed, self.posterior = assigned.ids, assigned.posterior
        if oracle:
            self.routed = np.where(self.task < tasks, self.task, PLAIN).astype(np.int32)
            self.posterior = one_hot(self.routed, tasks)

    def refresh(self, adapters: Adapters, site: str, encode: Callable[[np.ndarray, Group], np.ndarray]) -> None:
        """Encodes the items whose adapter changed. encode: (items, group) -> features [n, E]."""
        # Those of all tasks together: encoded task by task most rows of a batch would be padding.
        stale = np.flatnonzero(self.routed != self.encoded)
        self.features[stale] = encoded(
            self.plain[stale], self.routed[stale], adapters, site, lambda rows, group: encode(stale[rows], group)
        )
        self.encoded = self.routed.copy()


class Gallery:
    """Images and captions of all seen tasks.

    Args:
      encoder: the towers. method: which adapter each item gets.
      captions: -> token ids.
      transform: of validation images. measured: how they are measured; with `oracle` every item gets the adapter of its
        true task (an item of a task not learnt yet: none).
    """

    def __init__(
        self, encoder: Encoder, method: Method, captions: Captions, transform: Transform, measured: Measured
    ) -> None:
        self._encoder, self._method, self._tokenize = encoder, method, captions
        self._transform, self._measured = transform, measured
        self._splits: list[Split] = []
        self._place: list[tuple[int, int]] = []  # image number -> task, index within the task
        self._texts: dict[bytes, int] = {}  # what the tower reads of a caption -> its number
        self._token_ids = np.zeros((0, 0), np.int32)  # per caption, placeholders in front
        self._plain_ids = np.zeros((0, 0), np.int32)  # per caption, without, where the method looks at queries
        nobody = np.zeros(0, np.int32)
        self.images = Side.new(0, nobody, nobody, *encoder.plain_images(self._load, nobody))
        self.captions = Side.new(0, nobody, nobody, *encoder.plain_texts(np.zeros((0, 1), np.int32)))

    @property
    def placeholders(self) -> int:
        """How many placeholder words stand in front of each caption for the text prompts to replace."""
        return self._method.reserve.get("text", 0)

    def add(self, split: Split) -> None:
        """The next task's validation items arrive: their plain and asking features are computed."""
        first = len(self._place)
        task, owner, words = self._enter(split)
        numbers = np.arange(first, len(self._place))
        images = self._encoder.plain_images(self._load, numbers)
        self.images = self.images.extended(Side.new(task, numbers, numbers, *images))
        plain_ids = self._tokenize(words, 0)
        items = self._numbered(plain_ids)
        texts = self._encoder.plain_texts(plain_ids)
        if self._measured.asks_with_placeholders and self.placeholders:
            texts = texts._replace(asking=self._encoder.plain_texts(self._token_ids[-len(words) :]).asking)
        self.captions = self.captions.extended(Side.new(task, owner, items, *texts))

    def follow(self, memory: Tree, tasks: int) -> None:
        """Assigns every item an adapter of the memory after so many tasks, and encodes those for which it changed."""
        sides = {"image": self.images, "text": self.captions}
        assigned = self._method.assign(
            memory,
            {name: side.asking for name, side in sides.items()},
            {name: Assigned(side.routed, side.compared, side.nearest, side.posterior) for name, side in sides.items()},
        )
        for name, side in sides.items():
            # Only where items are routed is there a task to be told: a sequential method has no adapter but the newest.
            side.assign(assigned[name], tasks, self._measured.oracle and self._method.options.routes)
        adapters = Adapters(self._method, memory, self._encoder.frozen)
        self.images.refresh(adapters, "vision", lambda items, group: self._encoder.images(self._load, items, group))
        self.captions.refresh(adapters, "text", self._encode_captions)

    def _encode_captions(self, items: np.ndarray, group: Group) -> np.ndarray:
        asking = self._plain_ids[items] if self._method.wants_queries else None
        return self._encoder.texts(self._token_ids[items], group, asking)

    def _enter(self, split: Split) -> tuple[int, np.ndarray, list[str]]:
        """Numbers a new split's images: its task, the owner of each of its captions, and the captions."""
        task, first = len(self._splits), len(self._place)
        self._splits.append(split)
        self._place += [(task, index) for index in range(len(split))]
        words = captioned.spoken(split)
        self._token_ids = _joined(self._token_ids, self._tokenize(words, self.placeholders))
        if self._method.wants_queries:
            self._plain_ids = _joined(self._plain_ids, self._tokenize(words, 0))
        return task, first + captioned.pairs(split)[:, 0], words

    def _load(self, image: int) -> np.ndarray:
        task, index = self._place[image]
        return self._transform(self._splits[task].load(index), (self._measured.seed, task, index))

    def arrays(self) -> dict[str, np.ndarray]:
        """What was computed, by name: a row an item, [N, ...]."""
        return {
            f"{name}.{f.name}": getattr(side, f.name)
            for name, side in (("images", self.images), ("captions", self.captions))
            for f in fields(Side)
        }

    def refill(self, arrays: Mapping[str, np.ndarray], splits: Sequence[Split]) -> None:
        """Takes over the arrays [N, ...] of a gallery of the same splits."""
        for split in splits:
            _, _, words = self._enter(split)
            self._numbered(self._tokenize(words, 0))
        self.images, self.captions = (
            Side(*(arrays[f"{name}.{f.name}"] for f in fields(Side))) for name in ("images", "captions")
        )

    def _numbered(self, plain_ids: np.ndarray) -> np.ndarray:
        """[N] int: the same number for captions of the same tokens [N, context]."""
        return np.array([self._texts.setdefault(ids.tobytes(), len(self._texts)) for ids in plain_ids])


def _joined(ids: np.ndarray, more: np.ndarray) -> np.ndarray:
    return np.concatenate([ids, more]) if len(ids) else more
