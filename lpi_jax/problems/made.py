"""The adapter that a memory has for an id, on the devices of the frozen backbone; or only its shapes."""

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding

from lpi_jax.methods import leaves
from lpi_jax.methods.base import NOTHING, Method
from lpi_jax.parallel.mesh import replicated
from lpi_jax.parallel.placement import put, whole
from lpi_jax.types import Adapter, Tree


def planned(method: Method, trainable: Tree, constants: Tree, frozen: Tree) -> Adapter:
    """The shapes of an adapter from those of what it is made of, each leaf where it would lie (`made`)."""
    adapter = jax.eval_shape(lambda *parts: method.adapt(*parts, NOTHING)[0], trainable, constants, frozen)
    given = leaves.flat(frozen)
    everywhere = replicated(next(iter(given.values())).sharding.mesh)

    def placed(path: str, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        where = given[path].sharding if path in given else everywhere
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    params = {path: placed(path, leaf) for path, leaf in leaves.flat(adapter.params).items()}
    return adapter._replace(params=leaves.nested(params))


def made(method: Method, memory: Tree, number: int, frozen: Tree) -> Adapter:
    """What a method makes of its tree for the adapter id `number`, which is not -1, where it looks at no queries."""
    trainable, constants = method.view(memory, number)
    adapter, _ = method.adapt(trainable, constants, frozen, NOTHING)
    if adapter.params is frozen:
        return adapter
    given = leaves.flat(frozen)
    lies = next(iter(given.values())).sharding
    everywhere = replicated(lies.mesh) if isinstance(lies, NamedSharding) else lies

    def placed(path: str, leaf: Array | np.ndarray) -> Array:
        """On the devices, once and not for every batch; what stands beside a kernel on all of them."""
        if leaf is given.get(path):
            return leaf
        return put(whole(leaf), given[path].sharding if path in given else everywhere)

    return adapter._replace(
        params=leaves.nested({path: placed(path, leaf) for path, leaf in leaves.flat(adapter.params).items()})
    )
