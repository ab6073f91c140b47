"""Pictures and captions to features through the frozen towers, in batches of fixed shapes.

One pair of compiled functions serves evaluation, routing centres, task similarity and `lpi_jax.load`. Where several
processes run, each loads its own rows of a batch and all get the features of the whole; the last batch is filled up
with repetitions that nobody sees, so that every process runs the same steps.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lpi_jax import mesh as meshes
from lpi_jax.data import loader
from lpi_jax.data.preprocess import normalise
from lpi_jax.methods.base import Tree
from lpi_jax.models.clip import CLIP
from lpi_jax.models.tokenizer import trim


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

        def image(backbone: Tree, images: Array, prompts: Array | None) -> Array:
            pixels = normalise(images, mean, std)
            return model.apply({"params": backbone}, pixels, prompts, method="encode_image")

        def text(backbone: Tree, token_ids: Array, prompts: Array | None) -> Array:
            return model.apply({"params": backbone}, token_ids, prompts, method="encode_text")

        whole, rows = meshes.replicated(mesh), meshes.split(mesh)
        compiled = {"in_shardings": (whole, rows, whole), "out_shardings": whole}
        self._image, self._text = jax.jit(image, **compiled), jax.jit(text, **compiled)

    def images(
        self, load: Callable[[int], np.ndarray], items: Sequence[int], prompts: Array | None = None
    ) -> np.ndarray:
        """Features of pictures.

        Args:
          load: index -> [S, S, 3] uint8, the tower's input size. items: the indices to encode.
          prompts: [depth, P, D], the same for every picture, or None for the plain tower.

        Returns:
          [len(items), E] float32, L2-normalised.
        """
        return self._encode(self._image, lambda chunk, rows: np.stack([load(i) for i in chunk[rows]]), items, prompts)

    def texts(self, token_ids: np.ndarray, prompts: Array | None = None) -> np.ndarray:
        """Features of captions: token_ids [N, context] int32 -> [N, E] float32, L2-normalised."""
        # Captions of like length share a batch, so that short ones are not padded to the longest of all.
        lengths = token_ids.argmax(1) if len(token_ids) else np.zeros(0, int)
        by_length = np.argsort(lengths, kind="stable")
        features = self._encode(self._text, lambda chunk, rows: trim(token_ids[chunk])[rows], by_length, prompts)
        unsorted = np.empty_like(features)
        unsorted[by_length] = features
        return unsorted

    def _encode(
        self, compiled: Callable, make: Callable, items: Sequence[int] | np.ndarray, prompts: Array | None
    ) -> np.ndarray:
        """make: (a batch's items, which of them) -> their inputs, [rows, ...]."""
        share = loader.host_rows(self.batch, jax.process_index(), jax.process_count())

        def own(chunk: Sequence[int]) -> np.ndarray:
            # Behind the end of the items there is nothing to load: the last one is repeated.
            rows = make(chunk, slice(min(share.start, len(chunk) - 1), share.stop))
            missing = share.stop - share.start - len(rows)
            return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge")

        chunks = [items[i : i + self.batch] for i in range(0, len(items), self.batch)]
        if prompts is not None:
            prompts = meshes.put_replicated(jnp.asarray(prompts), self.mesh)
        features = [np.zeros((0, self.embed_dim), np.float32)]
        for chunk, rows in zip(chunks, loader.ahead(own, chunks), strict=True):
            encoded = compiled(self.backbone, meshes.put_rows(rows, self.mesh), prompts)
            features.append(np.asarray(encoded)[: len(chunk)])
        return np.concatenate(features)
