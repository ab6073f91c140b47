"""What retrieval computes, in shapes: a training batch, and the encoding of images and captions."""

import jax
import numpy as np
from jax.sharding import Mesh

from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import Method
from lpi_jax.models.clip import CLIPConfig
from lpi_jax.problems.base import Call
from lpi_jax.problems.made import planned
from lpi_jax.problems.retrieval import encoder
from lpi_jax.problems.retrieval.problem import Retrieval
from lpi_jax.types import Tree


def batch(clip: CLIPConfig, method: Method, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch [rows, ...] whose captions fill the context."""
    shapes = {"images": _images(clip, rows), "token_ids": _captions(clip, rows)}
    return {**shapes, **({"query_ids": _captions(clip, rows)} if method.wants_queries else {})}


def calls(
    problem: Retrieval, method: Method, backbone: tuple[Tree, Mesh], trees: tuple[Tree, Tree], looks_at: str
) -> dict[str, Call]:
    """The encoding of images and of captions, as evaluation does it (`encoder.programs`).

    Args:
      backbone: its leaves, and the mesh. trees: the method's trainable and constants. looks_at: `routing.features`.
    """
    (frozen, mesh), clip, rows = backbone, problem.towers.config, problem.measured.batch
    asked = {"images": _images(clip, rows), "captions": _captions(clip, rows)}
    found = {}
    adapter = None if method.wants_queries else planned(method, *trees, frozen)
    sides = encoder.programs(problem.towers, method, mesh, looks_at)
    for (what, items), side in zip(asked.items(), sides, strict=True):
        if adapter is None:
            found[what] = Call(side.tuned, (frozen, (items, items), *trees))
            continue
        table, chosen = adapter.prompts.get(side.site), jax.ShapeDtypeStruct((rows,), np.int32)
        if table is not None:
            table = jax.ShapeDtypeStruct((memories.capacity(1), *table.shape), table.dtype)
        found[what] = Call(side.table, (adapter.params, items, table, chosen))
    return found


def _images(clip: CLIPConfig, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, clip.image_size, clip.image_size, 3), np.uint8)


def _captions(clip: CLIPConfig, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, clip.context_length), np.int32)
