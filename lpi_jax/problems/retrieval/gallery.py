"""All validation items seen so far and what was computed of them, each feature once in a whole run.

A finished task's prompts never change, so an item's features under them never do either: they are computed when the
item is first routed there. Plain features and distances to a task's centres are computed once ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.errors import UserError, reason
from lpi_jax.files import RESUME, write_atomically, writing
from lpi_jax.methods import memory as memories
from lpi_jax.methods import routing
from lpi_jax.methods.base import Method
from lpi_jax.methods.memory import Memory
from lpi_jax.parallel import processes
from lpi_jax.problems.retrieval.encoder import Encoder

NOT_ROUTED = -1


def tables(method: Method, memory: Memory) -> tuple[Array | None, Array | None]:
    """The finished tasks' visual and textual prompts, [T, depth, P, D] each; None for a tower that none enter.

    T is the room for the tasks (`memory.capacity`), so that few programs are compiled while tasks arrive; rows without
    a task are zeros.
    """
    prompts = [method.prompts(memory.trained_of(task)) for task in range(memory.count)]

    def stacked(own: list[Array | None]) -> Array | None:
        if not own or own[0] is None:
            return None
        room = memories.capacity(len(own)) - len(own)
        return jnp.pad(jnp.stack(own), [(0, room), (0, 0), (0, 0), (0, 0)])

    return stacked([own.visual for own in prompts]), stacked([own.textual for own in prompts])


@dataclass
class Side:
    """One modality's N items, row by row.

    Attributes:
      task: [N] int32, the item's true task. owner: [N] int32, the number of the image it is or describes.
      plain: [N, E] features without prompts: the zero-shot backbone.
      asking: [N, E] features that routing looks at; the plain ones, or captions' with placeholders in front.
      compared: [N] int32, how many tasks' centres the item has been compared with; nearest: [N] the best L1 distance.
      routed: [N] int32, the task whose prompts the item gets (-1: none).
      encoded: [N] int32, the task whose prompts `features` are under.
      features: [N, E] float32.
    """

    task: np.ndarray
    owner: np.ndarray
    plain: np.ndarray
    asking: np.ndarray
    compared: np.ndarray
    nearest: np.ndarray
    routed: np.ndarray
    encoded: np.ndarray
    features: np.ndarray

    @classmethod
    def new(cls, task: int, owner: np.ndarray, plain: np.ndarray, asking: np.ndarray) -> "Side":
        """Items that have not been compared with any task yet: routed nowhere, encoded plainly."""
        n = len(owner)
        nowhere = np.full(n, NOT_ROUTED, np.int32)
        return cls(
            task=np.full(n, task, np.int32),
            owner=owner.astype(np.int32),
            plain=plain,
            asking=asking,
            compared=np.zeros(n, np.int32),
            nearest=np.full(n, np.inf, np.float32),
            routed=nowhere,
            encoded=nowhere.copy(),
            features=plain.copy(),
        )

    def extended(self, more: "Side") -> "Side":
        """These items, then `more`."""
        return Side(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(Side)))


class Gallery:
    """Pictures and captions of all seen tasks.

    Args:
      encoder: the frozen backbone. method: which prompts a task's trained tree makes.
      tokenize: (captions, placeholders) -> [N, context] int32.
      transform: of validation pictures. seed: for a random transform.
      oracle: route every item to its true task (an item of a task not learnt yet: to none).
      asks_with_placeholders: whether captions are routed with the placeholders in front.
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        tokenize: Callable[[list[str], int], np.ndarray],
        transform: Transform,
        *,
        seed: int,
        oracle: bool,
        asks_with_placeholders: bool,
    ) -> None:
        self._encoder, self._method, self._tokenize = encoder, method, tokenize
        self._transform, self._seed, self._oracle = transform, seed, oracle
        self._asks_with_placeholders = asks_with_placeholders
        self._splits: list[Split] = []
        self._place: list[tuple[int, int]] = []  # image number -> task, index within the task
        self._token_ids = np.zeros((0, 0), np.int32)  # per caption, placeholders in front
        nothing = np.zeros((0, encoder.embed_dim), np.float32)
        self.images = Side.new(0, np.zeros(0, np.int32), nothing, nothing)
        self.captions = Side.new(0, np.zeros(0, np.int32), nothing, nothing)

    def add(self, split: Split) -> None:
        """The next task's validation items arrive: their plain and asking features are computed."""
        first = len(self._place)
        task, owner, words = self._enter(split)
        plain = self._encoder.images(self._load, range(first, len(self._place)))
        self.images = self.images.extended(Side.new(task, np.arange(first, len(self._place)), plain, plain))
        text = self._encoder.texts(self._tokenize(words, 0))
        asking = text
        if self._asks_with_placeholders and self._method.placeholders:
            asking = self._encoder.texts(self._token_ids[-len(words) :])
        self.captions = self.captions.extended(Side.new(task, owner, text, asking))

    def follow(self, memory: Memory) -> None:
        """Routes every item among the tasks in `memory` and encodes those whose routing changed."""
        visual, textual = tables(self._method, memory)
        self._follow(
            self.images,
            memory.image_centres,
            visual is not None,
            lambda items, chosen: self._encoder.images(self._load, items, visual, chosen),
        )
        self._follow(
            self.captions,
            memory.text_centres,
            textual is not None,
            lambda items, chosen: self._encoder.texts(self._token_ids[items], textual, chosen),
        )

    def _follow(
        self,
        side: Side,
        centres: np.ndarray,
        prompted: bool,
        encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:
        for task in range(len(centres)):
            fresh = np.flatnonzero(side.compared == task)
            # The first process's: another processor may round otherwise, and all must encode the same items.
            found = processes.copied(routing.distances(side.asking[fresh], centres[task]))
            closer = found < side.nearest[fresh]  # strictly: of equally near tasks the earliest
            side.nearest[fresh] = np.where(closer, found, side.nearest[fresh])
            if not self._oracle:
                side.routed[fresh[closer]] = task
            side.compared[fresh] = task + 1
        if self._oracle:
            side.routed[:] = np.where(side.task < len(centres), side.task, NOT_ROUTED)
        # Those of all tasks together: encoded task by task most rows of a batch would be padding.
        stale = np.flatnonzero(side.routed != side.encoded)
        side.features[stale] = encode(stale, side.routed[stale]) if prompted else side.plain[stale]
        side.encoded[:] = side.routed

    def _enter(self, split: Split) -> tuple[int, np.ndarray, list[str]]:
        """Numbers a new split's pictures: its task, the owner of each of its captions, and the captions."""
        task, first = len(self._splits), len(self._place)
        self._splits.append(split)
        self._place += [(task, index) for index in range(len(split))]
        words = [caption for captions in split.captions for caption in captions]
        ids = self._tokenize(words, self._method.placeholders)
        self._token_ids = np.concatenate([self._token_ids, ids]) if len(self._token_ids) else ids
        return task, first + split.pairs[:, 0], words

    def _load(self, image: int) -> np.ndarray:
        task, index = self._place[image]
        return self._transform(self._splits[task].load(index), (self._seed, task, index))

    def save(self, path: Path) -> None:
        """Writes what was computed into a folder of the run's directory: a resumed run computes nothing twice."""
        arrays = {
            f"{name}.{f.name}": getattr(side, f.name)
            for name, side in (("images", self.images), ("captions", self.captions))
            for f in fields(Side)
        }

        def write() -> None:
            with writing(path.parent.parent, RESUME):
                path.parent.mkdir(exist_ok=True)  # the run's directory itself is there, or has been removed
                write_atomically(path, lambda file: np.savez(file, **arrays))

        processes.agreed(write)

    def restore(self, path: Path, splits: list[Split]) -> None:
        """What `save` wrote, for the same splits. Raises UserError where the file is damaged."""
        for split in splits:
            self._enter(split)
        names = [f"{name}.{f.name}" for name in ("images", "captions") for f in fields(Side)]
        found: dict[str, np.ndarray] = {}

        def read() -> list[tuple[list[int], str]]:
            try:
                with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                    found.update({name: arrays[name] for name in names})
            except Exception as error:  # a damaged archive makes the readers raise nearly anything
                raise UserError(
                    f"{path} cannot be read ({reason(error)}); delete it to have it computed again"
                ) from error
            return [(found[name].shape, str(found[name].dtype)) for name in names]

        expected = processes.agreed(read)
        arrays = [found[name] for name in names] if found else [np.empty(shape, dtype) for shape, dtype in expected]
        arrays = processes.copied(arrays)
        self.images, self.captions = Side(*arrays[: len(names) // 2]), Side(*arrays[len(names) // 2 :])
