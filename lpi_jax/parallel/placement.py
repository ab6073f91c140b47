"""Where a backbone's leaves lie: rules on their paths, the first that is found holds."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from lpi_jax.parallel.mesh import replicated
from lpi_jax.types import Tree

# Pattern in a leaf's path -> how its axes are split: every large matrix.
RULES: tuple[tuple[str, P], ...] = (
    (r"(q|k|v|o|out|gate|up|down)_proj/kernel$", P("fsdp")),
    (r"(fc1|fc2|linear_1|linear_2|lm_head)/kernel$", P("fsdp")),
    (r"(embed_tokens|token_embedding)/embedding$", P(None, "fsdp")),  # rows are looked up: every device has all of them
    (r"", P()),
)


def placing(mesh: Mesh) -> Callable[[tuple[str, ...], tuple[int, ...]], NamedSharding]:
    """(path of a leaf, its shape) -> its sharding; a leaf that its rule does not divide evenly is on every device."""

    def place(path: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
        parts = next(parts for pattern, parts in RULES if re.search(pattern, "/".join(path)))
        even = all(name is None or not size % mesh.shape[name] for name, size in zip(parts, shape, strict=False))
        return NamedSharding(mesh, parts) if even else replicated(mesh)

    return place


def put(host: np.ndarray, where: Sharding) -> jax.Array:
    """An array [...] of the host, equal in every process, where a sharding says."""
    # Not `device_put`, which compares the values between processes.
    return jax.make_array_from_callback(host.shape, where, host.__getitem__)


def put_backbone(tree: Any, mesh: Mesh) -> Any:
    """Places a backbone's host arrays, nested dictionaries that are equal in every process."""
    place = placing(mesh)

    def placed(path: Any, leaf: np.ndarray) -> jax.Array:
        return put(leaf, place(tuple(step.key for step in path), leaf.shape))

    return jax.tree_util.tree_map_with_path(placed, tree)


def planned(shapes: Tree, dtype: Any, mesh: Mesh) -> Tree:
    """A backbone's leaves [...] as they would be placed, without numbers; shapes: nested dictionaries of arrays."""
    place = placing(mesh)

    def leaf(path: Any, value: Any) -> jax.ShapeDtypeStruct:
        where = place(tuple(step.key for step in path), value.shape)
        return jax.ShapeDtypeStruct(value.shape, dtype, sharding=where)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def whole(leaf: Any) -> np.ndarray:
    """All of a leaf [...] on the host, also where it lies on several processes."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, P()))(leaf)
    return np.asarray(leaf)
