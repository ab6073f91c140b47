"""Image-text retrieval with CLIP, as `lpi_jax.problems.base.Problem`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from lpi_jax.data import captioned
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.losses import retrieval_loss
from lpi_jax.methods.base import Method, Site
from lpi_jax.models.clip import CLIPConfig
from lpi_jax.problems.base import Metric
from lpi_jax.problems.retrieval import recall
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.evaluator import RetrievalEvaluator
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.problems.retrieval.protocol import protocol
from lpi_jax.problems.retrieval.retriever import Retriever
from lpi_jax.problems.retrieval.source import Pairs
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.types import Adapter, Tree


def sites(config: CLIPConfig) -> dict[str, Site]:
    """Where prompts may enter: behind the class token, and between start and caption, of which one word must stay."""
    vision, text = config.vision, config.text
    return {
        "vision": Site(vision.layers, vision.width, config.patches),
        "text": Site(text.layers, text.width, config.context_length - 3),
    }


class Features(NamedTuple):
    """What a batch became: image and text [B, E] float32, L2-normalised, row by row; logit_scale the factor itself."""

    image: Array
    text: Array
    logit_scale: Array


@dataclass(frozen=True)
class Retrieval:
    """Which caption belongs to which image.

    Attributes:
      towers: CLIP. captions: -> token ids.
      train_transform, eval_transform: of images. measured: how.
      apart: whether equal captions of a training batch are right answers to their own images alone.
    """

    towers: Towers
    captions: Captions
    train_transform: Transform
    eval_transform: Transform
    measured: Measured
    apart: bool = True

    name: ClassVar[str] = "retrieval"
    metrics: ClassVar[Sequence[Metric]] = recall.METRICS
    sides: ClassVar[Mapping[str, str]] = {"image": "images", "text": "captions"}

    @property
    def sites(self) -> Mapping[str, Site]:
        """Where prompts may enter the towers."""
        return sites(self.towers.config)

    def source(self, split: Split, method: Method) -> Pairs:
        """The pairs of a split, captions behind the method's placeholders."""
        placeholders = method.reserve.get("text", 0)
        return Pairs(split, self.train_transform, self.captions, placeholders, asking=method.wants_queries)

    def forward(self, batch: Tree, adapter: Adapter, key: Array) -> Features:
        """Features of a batch {"images" [B, S, S, 3] uint8, "token_ids" [B, N] int32} under an adapter."""
        prompts = adapter.prompts
        return Features(
            self.towers.image(adapter.params, batch["images"], prompts.get("vision")),
            self.towers.text(adapter.params, batch["token_ids"], prompts.get("text")),
            jnp.exp(adapter.params["logit_scale"]),
        )

    def losses(self, outputs: Features, batch: Tree) -> dict[str, Array]:
        """The symmetric cross entropy of matching pairs, a scalar in nats."""
        ids = batch["token_ids"]
        right = None if self.apart else (ids[:, None] == ids[None]).all(-1)
        return {"retrieval": retrieval_loss(outputs.image, outputs.text, outputs.logit_scale, right)}

    def queries(self, frozen: Tree, batch: Tree) -> dict[str, Array]:
        """Frozen features [B, E] of the images, and of the captions without placeholders."""
        return {
            "image": self.towers.image(frozen, batch["images"], None),
            "text": self.towers.text(frozen, batch["query_ids"], None),
        }

    def evaluator(self, method: Method, frozen: Tree, mesh: Mesh) -> RetrievalEvaluator:
        """An evaluator without items."""
        encoder = Encoder(self.towers, frozen, method, mesh, self.measured.batch, self.measured.looks_at)
        measured = self.measured._replace(oracle=self.measured.oracle and method.options.routes)
        return RetrievalEvaluator(encoder, method, self.captions, self.eval_transform, measured)

    def served(self, method: Method, frozen: Tree, mesh: Mesh, memory: Tree, tasks: tuple[str, ...]) -> Retriever:
        """The model that a memory makes of the backbone."""
        return Retriever(
            Encoder(self.towers, frozen, method, mesh, self.measured.batch, self.measured.looks_at),
            method,
            self.captions,
            memory,
            tasks,
            image_size=self.towers.config.image_size,
            measured=self.measured,
        )

    def examples(self, split: Split) -> int:
        """How many pairs a split has: each caption is one training example."""
        return len(captioned.spoken(split))

    def items(self, split: Split) -> dict[str, int]:
        """How many images and captions a split has."""
        return {"image": len(split), "text": len(captioned.spoken(split))}

    def cut(self, split: Split, reserve: Mapping[str, int]) -> int:
        """How many of a split's captions lose their end behind the placeholders."""
        return self.captions.count_cut(captioned.spoken(split), reserve.get("text", 0))

    def protocol(self, routed: str) -> str:
        """In words how items are measured."""
        return protocol(self.measured, self.eval_transform.kind, routed)
