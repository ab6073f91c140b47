"""Images and captions to features through the towers, in batches of few shapes.

A few compiled functions serve evaluation, routing centres, task similarity and `lpi_jax.load`. Items under
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
from lpi_jax.models.clip import TowerConfig
from lpi_jax.models.tokenizer import trim
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems import filling
from lpi_jax.problems.retrieval.adapters import Group
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.types import Tree


class Told(NamedTuple):
    """Items as the frozen towers see them: features [N, E], and what routing looks at, [N, Q]; float32."""

    features: np.ndarray
    asking: np.ndarray


class Programs(NamedTuple):
    """One tower's compiled functions, of the parameters and a batch split over the mesh.

    Attributes:
      site: where prompts enter it.
      table: with prompts from a table [A, L, P, D] or None: (params, items, table, [B] int32 which of its rows).
      tuned: with those that a method makes of the queries: (params, (plain items, prompted), trainable, constants).
      told: without any: [B, width], what routing looks at behind the features, where that is something else.
    """

    site: str
    table: Callable
    tuned: Callable
    told: Callable
    width: int


def programs(towers: Towers, method: Method, mesh: Mesh, looks_at: str = "joint") -> tuple[Programs, Programs]:
    """Of the image tower and of the text tower; arguments as those of `Encoder`."""
    whole, rows = meshes.replicated(mesh), meshes.split(mesh)

    def side(site: str, name: str, encode: Callable, describe: Callable, tower: TowerConfig) -> Programs:
        def table(params: Tree, items: Array, table: Array | None, chosen: Array) -> Array:
            return encode(params, items, None if table is None else table[chosen])

        def tuned(params: Tree, items: tuple[Array, Array], trainable: Tree, constants: Tree) -> Array:
            plain, prompted = items
            queries = {name: encode(params, plain, None)}
            adapter, _ = method.adapt(trainable, constants, params, queries)
            return encode(adapter.params, prompted, adapter.prompts.get(site))

        def told(params: Tree, items: Array) -> Array:
            return encode(params, items, None) if looks_at == "joint" else jnp.hstack(describe(params, items))

        return Programs(
            site,
            jax.jit(table, in_shardings=(None, rows, whole, rows), out_shardings=whole),
            jax.jit(tuned, in_shardings=(None, rows, whole, whole), out_shardings=whole),
            jax.jit(told, in_shardings=(None, rows), out_shardings=whole),
            towers.config.embed_dim + (0 if looks_at == "joint" else 2 * tower.width),
        )

    clip = towers.config
    return (
        side("vision", "image", towers.image, towers.describe_image, clip.vision),
        side("text", "text", towers.text, towers.describe_text, clip.text),
    )


class Encoder:
    """Towers ready to encode.

    Args:
      towers: the two towers as functions. frozen: their parameters, on the mesh.
      method: makes prompts of queries, where it wants to. mesh: devices the batches are split over.
      batch: rows per batch, a multiple of the mesh's size. looks_at: `routing.features`.
    """

    def __init__(
        self, towers: Towers, frozen: Tree, method: Method, mesh: Mesh, batch: int, looks_at: str = "joint"
    ) -> None:
        meshes.check_batch("config.eval.batch", batch, mesh)
        self.frozen, self.mesh, self.batch = frozen, mesh, batch
        self.embed_dim = towers.config.embed_dim
        self.logit_scale = float(np.exp(np.asarray(frozen["logit_scale"], np.float64)))
        self._image, self._text = programs(towers, method, mesh, looks_at)

    def images(self, load: Callable[[int], np.ndarray], items: Sequence[int], group: Group | None = None) -> np.ndarray:
        """Features of images.

        Args:
          load: index -> [S, S, 3] uint8, the tower's input size.
          items: the indices to encode.
          group: under which adapters, one for each of `items`; None: the plain tower.

        Returns:
          [len(items), E] float32, L2-normalised.
        """
        return self._encode(self._image, _loading(load), np.asarray(items), group)[:, : self.embed_dim]

    def plain_images(self, load: Callable[[int], np.ndarray], items: Sequence[int]) -> Told:
        """Images as the plain tower sees them; as `images`."""
        return self._told(self._encode(self._image, _loading(load), np.asarray(items), None))

    def texts(self, token_ids: np.ndarray, group: Group | None = None, asking: np.ndarray | None = None) -> np.ndarray:
        """Features of captions.

        Args:
          token_ids: [N, context] int32.
          group: under which adapters, one for each caption; None: the plain tower.
          asking: [N, context] int32, the captions as a method's queries read them; None: `token_ids`.

        Returns:
          [N, E] float32, L2-normalised.
        """
        return self._by_length(token_ids, token_ids if asking is None else asking, group)[:, : self.embed_dim]

    def plain_texts(self, token_ids: np.ndarray) -> Told:
        """Captions [N, context] int32 as the plain tower sees them."""
        return self._told(self._by_length(token_ids, token_ids, None))

    def _told(self, rows: np.ndarray) -> Told:
        """rows [N, E], or [N, E + Q]: features, and what routing looks at behind them."""
        features, asking = np.split(rows, [self.embed_dim], axis=1)
        return Told(features, asking if asking.shape[1] else features)

    def _by_length(self, token_ids: np.ndarray, asking: np.ndarray, group: Group | None) -> np.ndarray:
        """Captions of like length share a batch, so that short ones are not padded to the longest of all."""
        lengths = token_ids.argmax(1) if len(token_ids) else np.zeros(0, int)
        by_length = np.argsort(lengths, kind="stable")
        if group is not None and group.chosen is not None:
            group = group._replace(chosen=group.chosen[by_length])
        encoded = self._encode(
            self._text,
            lambda chunk, rows: (trim(asking[chunk])[rows], trim(token_ids[chunk])[rows]),
            by_length,
            group,
        )
        unsorted = np.empty_like(encoded)
        unsorted[by_length] = encoded
        return unsorted

    def _encode(self, side: Programs, make: Callable, items: np.ndarray, group: Group | None) -> np.ndarray:
        """Of a group [N, E]; of no group what `told` gives, [N, E or E + Q].

        Args:
          make: (a batch's items, which of them) -> inputs [rows, ...] as queries read them and as encoded.
        """
        run = self._running(side, group)
        numbers = np.zeros(len(items), np.int32)
        if group is not None and group.chosen is not None:
            numbers = np.asarray(group.chosen, np.int32)

        def own(start: int) -> tuple[np.ndarray, ...]:
            chunk = items[start : start + self.batch]
            size = filling.size(len(chunk), self.batch, self.mesh.size)
            share = batches.host_rows(size, jax.process_index(), jax.process_count())
            # Behind the end of the items there is nothing to load: the last one is repeated.
            here = slice(min(share.start, len(chunk) - 1), share.stop)

            def filled(rows: np.ndarray) -> np.ndarray:
                missing = share.stop - share.start - len(rows)
                return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge")

            plain, prompted = make(chunk, here)
            if group is not None and group.tuned is not None:
                return filled(plain), filled(prompted)
            return filled(prompted), filled(numbers[start : start + self.batch][here])

        starts = range(0, len(items), self.batch)
        encoded = []
        for start, batch in zip(starts, loader.ahead(own, starts), strict=True):
            rows = meshes.put_rows(batch, self.mesh)
            encoded.append(np.asarray(run(rows))[: len(items) - start])
        width = side.width if group is None else self.embed_dim
        return np.concatenate([np.zeros((0, width), np.float32), *encoded])

    def _running(self, side: Programs, group: Group | None) -> Callable[[tuple[Array, Array]], Array]:
        """What a batch goes through: two arrays [rows, ...] -> [rows, E or E + Q]."""
        if group is None:
            return lambda rows: side.told(self.frozen, rows[0])
        if group.tuned is not None:
            tuned = meshes.put_replicated(group.tuned, self.mesh)
            return lambda rows: side.tuned(group.params, rows, *tuned)
        table = None if group.table is None else meshes.put_replicated(jnp.asarray(group.table), self.mesh)
        return lambda rows: side.table(group.params, rows[0], table, rows[1])


def _loading(load: Callable[[int], np.ndarray]) -> Callable:
    return lambda chunk, rows: (np.stack([load(i) for i in chunk[rows]]),) * 2
