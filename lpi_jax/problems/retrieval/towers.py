"""The two towers as functions of their parameters, from what a host makes: uint8 pixels and token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from jax import Array

from lpi_jax.data.transforms import normalise
from lpi_jax.models.clip import CLIP, CLIPConfig
from lpi_jax.types import Tree


@dataclass(frozen=True)
class Towers:
    """CLIP with its pixel normalisation.

    Attributes:
      model: the towers. mean, std: of the pixel normalisation, three floats in 0..1 each.
    """

    model: CLIP
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def config(self) -> CLIPConfig:
        """The sizes of the towers."""
        return self.model.config

    def image(self, params: Tree, images: Array, prompts: Array | None) -> Array:
        """images [B, S, S, 3] uint8, prompts None, [L, P, D] or [B, L, P, D] -> [B, E] float32, L2-normalised."""
        pixels = normalise(images, self.mean, self.std)
        return self.model.apply({"params": params}, pixels, prompts, method="encode_image")

    def text(self, params: Tree, token_ids: Array, prompts: Array | None) -> Array:
        """token_ids [B, N] int32, prompts None, [L, P, D] or [B, L, P, D] -> [B, E] float32, L2-normalised."""
        return self.model.apply({"params": params}, token_ids, prompts, method="encode_text")

    def describe_image(self, params: Tree, images: Array) -> tuple[Array, Array]:
        """images [B, S, S, 3] uint8 -> what `image` gives, and the last block's [B, 2D] float32 (`CLIP`)."""
        pixels = normalise(images, self.mean, self.std)
        return self.model.apply({"params": params}, pixels, method="describe_image")

    def describe_text(self, params: Tree, token_ids: Array) -> tuple[Array, Array]:
        """token_ids [B, N] int32 -> what `text` gives, and the last block's [B, 2D] float32 (`CLIP`)."""
        return self.model.apply({"params": params}, token_ids, method="describe_text")
