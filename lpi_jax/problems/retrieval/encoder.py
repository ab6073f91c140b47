"""Pictures and captions to features through the frozen towers, in batches of few shapes.

One pair of compiled functions serves evaluation, routing centres, task similarity and `lpi_jax.load`. Items under the
prompts of different tasks share a batch: every row has prompts of its own. Where several processes run, each loads its
own rows of a batch and all get the features of the whole; the last batch is filled up to 16 rows, 32, 64, ... with
repetitions that nobody sees, so that every process runs the same steps and few rows are computed in vain.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lpi_jax.data import loader
from lpi_jax.data.transforms import normalise
from lpi_jax.models.clip import CLIP
from lpi_jax.models.tokenizer import trim
from lpi_jax.parallel import mesh as meshes
from lpi_jax.types import Tree

SMALLEST = 16  # rows of the last batch, at least


class Encoder:
    """A frozen backbone ready to encode.

    Args:
      model: the towers. backbone: their parameters, on the mesh.
      mesh: devices the batches are split over. batch: rows per batch, a multiple of the mesh's size.
      mean, std: of the pixel normalisation, three floats in 0..1 each.
    """

    def __init__(
        self, model: CLIP, backbone: Tree, mesh: Mesh, batch: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        meshes.check_batch("config.eval.batch", batch, mesh)
        self.backbone, self.mesh, self.batch = backbone, mesh, batch
        self.embed_dim = model.config.embed_dim

        def image(backbone: Tree, images: Array, table: Array | None, chosen: Array) -> Array:
            pixels, prompts = normalise(images, mean, std), None if table is None else table[chosen]
            return model.apply({"params": backbone}, pixels, prompts, method="encode_image")

        def text(backbone: Tree, token_ids: Array, table: Array | None, chosen: Array) -> Array:
            prompts = None if table is None else table[chosen]
            return model.apply({"params": backbone}, token_ids, prompts, method="encode_text")

        whole, rows = meshes.replicated(mesh), meshes.split(mesh)
        compiled = {"in_shardings": (whole, rows, whole, rows), "out_shardings": whole}
        self._image, self._text = jax.jit(image, **compiled), jax.jit(text, **compiled)

    def images(
        self,
        load: Callable[[int], np.ndarray],
        items: Sequence[int],
        table: Array | None = None,
        chosen: np.ndarray | None = None,
    ) -> np.ndarray:
        """Features of pictures.

        Args:
          load: index -> [S, S, 3] uint8, the tower's input size.
          items: the indices to encode.
          table: [T, depth, P, D], prompts to choose from, or None for the plain tower.
          chosen: [len(items)] int, the row of the table that each item gets; None: all get the first.

        Returns:
          [len(items), E] float32, L2-normalised.
        """
        return self._encode(
            self._image, lambda chunk, rows: np.stack([load(i) for i in chunk[rows]]), np.asarray(items), table, chosen
        )

    def texts(self, token_ids: np.ndarray, table: Array | None = None, chosen: np.ndarray | None = None) -> np.ndarray:
        """Features of captions.

        Args:
          token_ids: [N, context] int32.
          table: [T, depth, P, D], prompts to choose from, or None for the plain tower.
          chosen: [N] int, the row of the table that each caption gets; None: all get the first.

        Returns:
          [N, E] float32, L2-normalised.
        """
        # Captions of like length share a batch, so that short ones are not padded to the longest of all.
        lengths = token_ids.argmax(1) if len(token_ids) else np.zeros(0, int)
        by_length = np.argsort(lengths, kind="stable")
        features = self._encode(
            self._text,
            lambda chunk, rows: trim(token_ids[chunk])[rows],
            by_length,
            table,
            None if chosen is None else chosen[by_length],
        )
        unsorted = np.empty_like(features)
        unsorted[by_length] = features
        return unsorted

    def _encode(
        self, compiled: Callable, make: Callable, items: np.ndarray, table: Array | None, chosen: np.ndarray | None
    ) -> np.ndarray:
        """make: (a batch's items, which of them) -> their inputs, [rows, ...]."""
        numbers = np.zeros(len(items), np.int32) if chosen is None else np.asarray(chosen, np.int32)
        if table is not None:
            table = meshes.put_replicated(jnp.asarray(table), self.mesh)

        def own(start: int) -> tuple[np.ndarray, np.ndarray]:
            chunk = items[start : start + self.batch]
            size = self._size(len(chunk))
            share = loader.host_rows(size, jax.process_index(), jax.process_count())
            # Behind the end of the items there is nothing to load: the last one is repeated.
            here = slice(min(share.start, len(chunk) - 1), share.stop)

            def filled(rows: np.ndarray) -> np.ndarray:
                missing = share.stop - share.start - len(rows)
                return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge")

            return filled(make(chunk, here)), filled(numbers[start : start + self.batch][here])

        starts = range(0, len(items), self.batch)
        features = [np.zeros((0, self.embed_dim), np.float32)]
        for start, batch in zip(starts, loader.ahead(own, starts), strict=True):
            rows, which = meshes.put_rows(batch, self.mesh)
            encoded = compiled(self.backbone, rows, table, which)
            features.append(np.asarray(encoded)[: len(items) - start])
        return np.concatenate(features)

    def _size(self, count: int) -> int:
        """Rows of the batch for `count` items: SMALLEST in doublings, a multiple of the mesh, `batch` at most."""
        size = SMALLEST
        while size < count:
            size *= 2
        return min(self.batch, -(-size // self.mesh.size) * self.mesh.size)
