"""Random leaves of a network that nobody has trained yet."""

import itertools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

Path = tuple[str, ...]


def normal(key: jax.Array, shapes: Mapping[Path, tuple[int, ...]], stds: Mapping[Path, float]) -> dict[Path, jax.Array]:
    """Leaves [...] float32 by path, normal with mean 0 and the standard deviation of each.

    Args:
      key: a scalar random key. shapes: by path, in the order in which they are drawn. stds: by path.
    """

    @jax.jit  # one draw, then cut up: a draw per leaf would take the compiler much longer than the numbers themselves
    def draw(key: jax.Array) -> dict[Path, jax.Array]:
        sizes = [math.prod(shape) for shape in shapes.values()]
        numbers = jnp.split(jax.random.normal(key, (sum(sizes),), jnp.float32), list(itertools.accumulate(sizes))[:-1])
        return {
            path: stds[path] * part.reshape(shape) for (path, shape), part in zip(shapes.items(), numbers, strict=True)
        }

    return draw(key)
