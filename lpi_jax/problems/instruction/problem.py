"""Instruction following as the training step sees it: forward, losses and queries of a batch under an adapter.

A batch is a tree of arrays: images [B, S, S, 3] float32, normalised; has_image [B] bool; ids [B, n] int32 with the
image's slot (`splice.IMAGE`) and labels [B, n] int32 beside them (`splice.IGNORE` where nothing is learnt), not
shifted; length [B] int32, how many ids a row has; question_ids [B, m] int32, the question for CLIP's text tower.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from lpi_jax.methods.base import Site
from lpi_jax.models.llava.llava import LLaVA, Outputs
from lpi_jax.models.llava.splice import IGNORE
from lpi_jax.types import Adapter, Tree

SITE, SIDE = "language", "sample"


@dataclass(frozen=True)
class Instruction:
    """A LLaVA that learns to answer.

    Attributes:
      model: the network. text_feature: of a question, what CLIP's text tower gives (`pooler`, as the release) or that
        after its projection (`projected`), where it can be compared with an image.
    """

    model: LLaVA
    text_feature: str = "pooler"
    name: ClassVar[str] = "instruction"
    sides: ClassVar[Mapping[str, str]] = {SIDE: "samples"}

    @property
    def sites(self) -> Mapping[str, Site]:
        """Prompts stand behind the first token, in one layer, the input."""
        config = self.model.config
        return {SITE: Site(1, config.llama.width, config.max_length - 2)}

    def forward(self, batch: Tree, adapter: Adapter, key: Array) -> Outputs:
        """Logits [B, L, V] float32 and the labels [B, L] that stand at their positions; nothing is random."""
        return self.model.apply(
            {"params": adapter.params},
            batch["ids"],
            batch["images"],
            adapter.prompts.get(SITE),
            (adapter.present or {}).get(SITE),
            batch["has_image"],
            batch["length"],
            batch["labels"],
            method="logits",
        )

    def losses(self, outputs: Outputs, batch: Tree) -> dict[str, Array]:
        """The cross entropy of the answers' tokens, a scalar in nats."""
        return {"next_token": next_token_loss(outputs.logits, outputs.labels)}

    def queries(self, frozen: Tree, batch: Tree) -> dict[str, Array]:
        """[B, 2C + 1] float32: an image's features, its question's, and 1 where there is an image.

        A sample of text alone is asked with an image of zeros after normalisation, as the release does.
        """
        has_image = batch["has_image"]
        images = jnp.where(has_image[:, None, None, None], batch["images"], 0.0)
        run = {"params": frozen}
        _, image = self.model.apply(run, images, method="encode_image")
        question = self.model.apply(
            run, batch["question_ids"], self.text_feature == "projected", method="encode_question"
        )
        return {SIDE: jnp.concatenate([image, question, has_image[:, None].astype(image.dtype)], axis=1)}


def next_token_loss(logits: Array, labels: Array) -> Array:
    """Mean of -log p(label) over all positions of a batch that have one, each predicted from the position before.

    Args:
      logits: [B, L, V] float32. labels: [B, L] int32, IGNORE where nothing is asked.

    Returns: a scalar in nats; 0 where nothing at all is asked, as in a batch whose answers were cut off.
    """
    asked, likely = labels[:, 1:], jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    there = asked != IGNORE
    of_label = jnp.take_along_axis(likely, jnp.where(there, asked, 0)[..., None], axis=2)[..., 0]
    return -jnp.sum(jnp.where(there, of_label, 0.0)) / jnp.maximum(jnp.sum(there), 1)
