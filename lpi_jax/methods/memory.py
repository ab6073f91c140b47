"""A memory that grows by one row a task: finished tasks' trees, stacked, each immutable."""

import jax
import numpy as np

from lpi_jax.types import Tree


def appended(memory: Tree, row: Tree) -> Tree:
    """The memory with one more task; the earlier ones' bits are untouched.

    Args:
      memory: every leaf [T, ...], or {} before the first task. row: one task's tree, every leaf [...].

    Returns:
      Every leaf [T + 1, ...], host arrays.
    """
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[None], row)
    return jax.tree.map(lambda rows, new: np.concatenate([rows, new]), memory, own) if memory else own


def row(memory: Tree, task: int) -> Tree:
    """One task's tree, every leaf [...], from a memory whose leaves are [T, ...]."""
    return jax.tree.map(lambda leaf: leaf[task], memory)


def count(memory: Tree) -> int:
    """T, the number of finished tasks in a memory whose leaves are [T, ...]."""
    leaves = jax.tree.leaves(memory)
    return len(leaves[0]) if leaves else 0


def capacity(tasks: int) -> int:
    """Room for so many tasks in arrays whose shape must not change: grows in doublings, so that little is compiled."""
    return max(16, 1 << (tasks - 1).bit_length())
