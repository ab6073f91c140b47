"""The adapter that a memory has for an id, on the devices of the frozen backbone."""

import jax
import numpy as np
from jax import Array

from lpi_jax.methods.base import NOTHING, Method
from lpi_jax.types import Adapter, Tree


def made(method: Method, memory: Tree, number: int, frozen: Tree) -> Adapter:
    """What a method makes of its tree for the adapter id `number`, which is not -1, where it looks at no queries."""
    trainable, constants = method.view(memory, number)
    adapter, _ = method.adapt(trainable, constants, frozen, NOTHING)
    if adapter.params is frozen:
        return adapter
    # On the devices, once and not for every batch.
    return adapter._replace(params=jax.tree.map(_like, adapter.params, frozen))


def _like(leaf: Array | np.ndarray, other: Array) -> Array:
    """The leaf on the devices of another, if it is not that one itself."""
    return leaf if leaf is other else jax.make_array_from_process_local_data(other.sharding, np.asarray(leaf))
