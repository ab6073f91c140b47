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

# Pattern in a leaf's path -> how its axes are split: every large matrix. Those that lead into attention or an MLP by
# their outputs, those that lead out of it by their inputs: split otherwise, chips send whole activations.
RULES: tuple[tuple[str, P], ...] = (
    (r"((q|k|v|gate|up)_proj|fc1|linear_1|lm_head)/kernel$", P(None, "fsdp")),
    (r"((o|out|down)_proj|fc2|linear_2)/kernel$", P("fsdp")),
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


def put_backbone(tree: Any, mesh: Mesh, dtype: Callable[[tuple[str, ...]], Any] | None = None) -> Any:
    """Places a backbone's host arrays, nested dictionaries that are equal in every process.

    dtype: path of a leaf -> what it is kept in; None: as it is.
    """
    place = placing(mesh)

    def placed(steps: Any, leaf: np.ndarray) -> jax.Array:
        path = tuple(step.key for step in steps)
        return put(leaf if dtype is None else leaf.astype(dtype(path), copy=False), place(path, leaf.shape))

    return jax.tree_util.tree_map_with_path(placed, tree)


def planned(shapes: Tree, mesh: Mesh, dtype: Callable[[tuple[str, ...]], Any]) -> Tree:
    """A backbone's leaves [...] as `put_backbone` would place them, without numbers; shapes: nested dictionaries."""
    place = placing(mesh)

    def leaf(steps: Any, value: Any) -> jax.ShapeDtypeStruct:
        path = tuple(step.key for step in steps)
        return jax.ShapeDtypeStruct(value.shape, dtype(path), sharding=place(path, value.shape))

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def whole(leaf: Any) -> np.ndarray:
    """All of a leaf [...] on the host, also where it lies on several processes."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, P()))(leaf)
    return np.asarray(leaf)
