"""A batch computed a few rows at a time, with the gradient of the whole: what a loss over all rows needs.

The forward pass keeps of each part only what comes out. The loss sees all rows together; its gradient goes back
through one part after the other, each of which is computed once more. Memory is that of a part and of what comes out:
features are little, the logits of a language model are not. The numbers are those of the whole batch but for the order
of sums.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lpi_jax.parallel.mesh import AXES
from lpi_jax.types import Tree


def in_parts(call: Callable[[Tree], Any], rows: Tree, size: int, mesh: Mesh) -> Any:
    """call(rows), `size` rows at a time.

    Args:
      call: of a tree of arrays [b, ...]; gives a tree of arrays [b, ...], row by row, and scalars that are the same
        whatever the rows. Differentiable also in what it closes over.
      rows: arrays [B, ...], split over the mesh.
      size: of a part, a multiple of the mesh's devices that divides B; 0, B or more: all at once.

    Returns:
      What `call` gives for all rows: [B, ...] and scalars.
    """
    count = len(jax.tree.leaves(rows)[0])
    if not 0 < size < count:
        return call(rows)

    def apart(leaf: Array) -> Array:
        # Of every part each device has rows of its own: nothing is sent.
        by_device = leaf.reshape(mesh.size, count // size, size // mesh.size, *leaf.shape[1:])
        parts = jnp.moveaxis(by_device, 0, 1).reshape(count // size, size, *leaf.shape[1:])
        return jax.lax.with_sharding_constraint(parts, NamedSharding(mesh, P(None, AXES)))

    def together(leaf: Array) -> Array:
        if leaf.ndim == 1:
            return leaf[0]
        by_device = leaf.reshape(count // size, mesh.size, size // mesh.size, *leaf.shape[2:])
        whole = jnp.moveaxis(by_device, 1, 0).reshape(count, *leaf.shape[2:])
        return jax.lax.with_sharding_constraint(whole, NamedSharding(mesh, P(AXES)))

    return jax.tree.map(together, jax.lax.map(jax.checkpoint(call), jax.tree.map(apart, rows)))
