"""What outlives a task: one growing record in which a finished task is immutable."""

from dataclasses import dataclass

import jax
import numpy as np

from lpi_jax.types import Tree


@dataclass(frozen=True)
class Memory:
    """Stacked over the T finished tasks; empty arrays (T = 0) and `trained` None before the first.

    Attributes:
      names: of the tasks, in the order of their arrival.
      trained: the method's trees, every leaf [T, ...].
      image_centres, text_centres: [T, K, E] float32, k-means centres of the training items' frozen features.
      descriptions: [T, E] float32, L2-normalised text features of the tasks' descriptions.
    """

    names: tuple[str, ...]
    trained: Tree | None
    image_centres: np.ndarray
    text_centres: np.ndarray
    descriptions: np.ndarray

    @property
    def count(self) -> int:
        """T, the number of finished tasks."""
        return len(self.names)

    def trained_of(self, task: int) -> Tree:
        """One finished task's tree."""
        return jax.tree.map(lambda leaf: leaf[task], self.trained)

    def arrays(self) -> dict[str, Tree]:
        """All but the names, as a tree of arrays."""
        return {
            "trained": self.trained,
            "image_centres": self.image_centres,
            "text_centres": self.text_centres,
            "descriptions": self.descriptions,
        }


def empty(centres: int, embed_dim: int) -> Memory:
    """The memory before the first task: K = `centres`, E = `embed_dim`."""
    nowhere = np.zeros((0, centres, embed_dim), np.float32)
    return Memory((), None, nowhere, nowhere, np.zeros((0, embed_dim), np.float32))


def remember(
    memory: Memory,
    name: str,
    trained: Tree,
    image_centres: np.ndarray,
    text_centres: np.ndarray,
    description: np.ndarray,
) -> Memory:
    """A new memory that ends with one more task; the earlier ones' bits are untouched."""
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[None], trained)
    stacked = own if memory.trained is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), memory.trained, own)
    return Memory(
        (*memory.names, name),
        stacked,
        np.concatenate([memory.image_centres, image_centres[None]]),
        np.concatenate([memory.text_centres, text_centres[None]]),
        np.concatenate([memory.descriptions, description[None]]),
    )


def capacity(tasks: int) -> int:
    """Room for so many tasks in a method's constants: grows in doublings, so that few steps are ever compiled."""
    return max(16, 1 << (tasks - 1).bit_length())
