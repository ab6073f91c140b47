"""Images and captions to features through the towers, in batches of few shapes.

One pair of compiled functions serves evaluation, routing centres, task similarity and `lpi_jax.load`. Items under
different prompts share a batch: every row has prompts of its own. Where several processes run, each loads its
own rows of a batch and all get the features of the whole; the last batch is filled up to 16 rows, 32, 64, ... with
repetitions that nobody sees, so that every process runs the same steps and few rows are computed in vain.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lpi_jax.data import batches, loader
from lpi_jax.methods.base import Method
from lpi_jax.models.tokenizer import trim
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.retrieval.adapters import Group
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.types import Tree

SMALLEST = 16  # rows of the last batch, at least


class _Side(NamedTuple):
    """One tower's compiled functions: with prompts from a table, and with those that a method makes of the queries."""

    site: str
    table: Callable
    tuned: Callable


class Encoder:
    """Towers ready to encode.

    Args:
      towers: the two towers as functions. frozen: their parameters, on the mesh.
      method: makes prompts of queries, where it wants to. mesh: devices the batches are split over.
      batch: rows per batch, a multiple of the mesh's size.
    """

    def __init__(self, towers: Towers, frozen: Tree, method: Method, mesh: Mesh, batch: int) -> None:
        meshes.check_batch("config.eval.batch", batch, mesh)
        self.frozen, self.mesh, self.batch = frozen, mesh, batch
        self.embed_dim = towers.config.embed_dim
        self.logit_scale = float(np.exp(np.asarray(frozen["logit_scale"], np.float64)))
        whole, rows = meshes.replicated(mesh), meshes.split(mesh)
        compiled = {"in_shardings": (whole, rows, whole, rows), "out_shardings": whole}

        def side(site: str, name: str, encode: Callable[..., Array]) -> _Side:
            def table(params: Tree, items: Array, table: Array | None, chosen: Array) -> Array:
                return encode(params, items, None if table is None else table[chosen])

            def tuned(params: Tree, items: tuple[Array, Array], trainable: Tree, constants: Tree) -> Array:
                plain, prompted = items
                queries = {name: encode(params, plain, None)}
                adapter, _ = method.adapt(trainable, constants, params, queries)
                return encode(adapter.params, prompted, adapter.prompts.get(site))

            shardings = {"in_shardings": (whole, rows, whole, whole), "out_shardings": whole}
            return _Side(site, jax.jit(table, **compiled), jax.jit(tuned, **shardings))

        self._image, self._text = side("vision", "image", towers.image), side("text", "text", towers.text)

    def images(self, load: Callable[[int], np.ndarray], items: Sequence[int], group: Group | None = None) -> np.ndarray:
        """Features of images.

        Args:
          load: index -> [S, S, 3] uint8, the tower's input size.
          items: the indices to encode.
          group: under which adapters, one for each of `items`; None: the plain tower.

        Returns:
          [len(items), E] float32, L2-normalised.
        """
        return self._encode(
            self._image,
            lambda chunk, rows: (np.stack([load(i) for i in chunk[rows]]),) * 2,
            np.asarray(items),
            group,
        )

    def texts(self, token_ids: np.ndarray, group: Group | None = None, asking: np.ndarray | None = None) -> np.ndarray:
        """Features of captions.

        Args:
          token_ids: [N, context] int32.
          group: under which adapters, one for each caption; None: the plain tower.
          asking: [N, context] int32, the captions as a method's queries read them; None: `token_ids`.

        Returns:
          [N, E] float32, L2-normalised.
        """
        asking = token_ids if asking is None else asking
        # Captions of like length share a batch, so that short ones are not padded to the longest of all.
        lengths = token_ids.argmax(1) if len(token_ids) else np.zeros(0, int)
        by_length = np.argsort(lengths, kind="stable")
        if group is not None and group.chosen is not None:
            group = group._replace(chosen=group.chosen[by_length])
        features = self._encode(
            self._text,
            lambda chunk, rows: (trim(asking[chunk])[rows], trim(token_ids[chunk])[rows]),
            by_length,
            group,
        )
        unsorted = np.empty_like(features)
        unsorted[by_length] = features
        return unsorted

    def _encode(self, side: _Side, make: Callable, items: np.ndarray, group: Group | None) -> np.ndarray:
        """make: (a batch's items, which of them) -> inputs [rows, ...] as queries read them and as encoded."""
        group = group or Group(items, self.frozen)
        numbers = np.zeros(len(items), np.int32) if group.chosen is None else np.asarray(group.chosen, np.int32)
        table = None if group.table is None else meshes.put_replicated(jnp.asarray(group.table), self.mesh)
        tuned = None if group.tuned is None else meshes.put_replicated(group.tuned, self.mesh)

        def own(start: int) -> tuple[np.ndarray, ...]:
            chunk = items[start : start + self.batch]
            size = self._size(len(chunk))
            share = batches.host_rows(size, jax.process_index(), jax.process_count())
            # Behind the end of the items there is nothing to load: the last one is repeated.
            here = slice(min(share.start, len(chunk) - 1), share.stop)

            def filled(rows: np.ndarray) -> np.ndarray:
                missing = share.stop - share.start - len(rows)
                return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge")

            plain, prompted = make(chunk, here)
            if tuned is None:
                return filled(prompted), filled(numbers[start : start + self.batch][here])
            return filled(plain), filled(prompted)

        starts = range(0, len(items), self.batch)
        features = [np.zeros((0, self.embed_dim), np.float32)]
        for start, batch in zip(starts, loader.ahead(own, starts), strict=True):
            rows = meshes.put_rows(batch, self.mesh)
            encoded = (
                side.table(group.params, rows[0], table, rows[1])
                if tuned is None
                else side.tuned(group.params, rows, *tuned)
            )
            features.append(np.asarray(encoded)[: len(items) - start])
        return np.concatenate(features)

    def _size(self, count: int) -> int:
        """Rows of the batch for `count` items: SMALLEST in doublings, a multiple of the mesh, `batch` at most."""
        size = SMALLEST
        while size < count:
            size *= 2
        return min(self.batch, -(-size // self.mesh.size) * self.mesh.size)
