"""Instruction following, as `lpi_jax.problems.base.Problem`: forward, losses and queries of a batch under an adapter.

A batch is a tree of arrays: images [B, S, S, 3] float32, normalised; has_image [B] bool; ids [B, n] int32 with the
image's slot (`splice.IMAGE`) and labels [B, n] int32 beside them (`splice.IGNORE` where nothing is learnt), not
shifted; length [B] int32, how many ids a row has; question_ids [B, m] int32, the question for CLIP's text tower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from lpi_jax.data.stream import Split
from lpi_jax.methods.base import Method, Site
from lpi_jax.models.llava.config import LlavaConfig
from lpi_jax.models.llava.llava import Inputs, LLaVA, Supervised
from lpi_jax.models.llava.splice import IGNORE
from lpi_jax.problems.base import Metric
from lpi_jax.problems.instruction.answerer import Answerer
from lpi_jax.problems.instruction.answering import Answering
from lpi_jax.problems.instruction.evaluator import METRICS, InstructionEvaluator
from lpi_jax.problems.instruction.options import Measured
from lpi_jax.problems.instruction.pictures import Pictures
from lpi_jax.problems.instruction.protocol import protocol
from lpi_jax.problems.instruction.sides import SIDE, SITE
from lpi_jax.problems.instruction.source import Conversations
from lpi_jax.problems.instruction.texts import Texts
from lpi_jax.types import Adapter, Tree


@dataclass(frozen=True)
class Instruction:
    """A LLaVA that learns to answer.

    Attributes:
      model: the network. text_feature: of a question, what CLIP's text tower gives (`pooler`, as the release) or that
        after its projection (`projected`), where it can be compared with an image.
      texts: samples -> token ids; image: how training images become square, of `Pictures`; measured: how answers are
        measured. Without texts it knows batches alone: no samples.
    """

    model: LLaVA
    text_feature: str = "pooler"
    texts: Texts | None = None
    image: str = "pad"
    measured: Measured = field(default_factory=Measured)
    name: ClassVar[str] = "instruction"
    metrics: ClassVar[Sequence[Metric]] = METRICS
    sides: ClassVar[Mapping[str, str]] = {SIDE: "samples"}

    @property
    def sites(self) -> Mapping[str, Site]:
        """Prompts stand behind the first token, in one layer, the input."""
        return sites(self.model.config)

    # ---- training ----------------------------------------------------------------------------------------------------

    def source(self, split: Split, method: Method) -> Conversations:
        """The samples of a split; prompts find their room in the network."""
        return Conversations(split, self.texts, Pictures(self._size, self.image))

    def forward(self, batch: Tree, adapter: Adapter, key: Array) -> Supervised:
        """Logits [B, n - 1, V] float32 and the targets [B, n - 1] that they are of; nothing is random."""
        inputs = Inputs(
            batch["ids"],
            _seen(batch),
            adapter.prompts.get(SITE),
            (adapter.present or {}).get(SITE),
            batch["has_image"],
            batch["length"],
        )
        return self.model.apply({"params": adapter.params}, inputs, batch["labels"], method="supervised")

    def losses(self, outputs: Supervised, batch: Tree) -> dict[str, Array]:
        """The cross entropy of the answers' tokens, a scalar in nats."""
        return {"next_token": cross_entropy(outputs.logits, outputs.targets)}

    def queries(self, frozen: Tree, batch: Tree) -> dict[str, Array]:
        """[B, 2C + 1] float32: an image's features, its question's, and 1 where there is an image.

        A sample of text alone is asked with an image of zeros after normalisation, as the release does.
        """
        _, image = self.model.apply({"params": frozen}, _seen(batch), method="encode_image")
        question = self.question_features(frozen, batch["question_ids"])
        has_image = batch["has_image"][:, None].astype(image.dtype)
        return {SIDE: jnp.concatenate([image, question, has_image], axis=1)}

    def question_features(self, frozen: Tree, question_ids: Array) -> Array:
        """question_ids [B, m] int32 -> [B, C] float32, not normalised."""
        projected = self.text_feature == "projected"
        return self.model.apply({"params": frozen}, question_ids, projected, method="encode_question")

    # ---- measuring and serving ---------------------------------------------------------------------------------------

    def evaluator(self, method: Method, frozen: Tree, mesh: Mesh) -> InstructionEvaluator:
        """An evaluator without samples."""
        measured = self.measured._replace(oracle=self.measured.oracle and method.options.routes)
        return InstructionEvaluator(self._answering(frozen, mesh, measured.batch), method, measured)

    def served(self, method: Method, frozen: Tree, mesh: Mesh, memory: Tree, tasks: tuple[str, ...]) -> Answerer:
        """The model that a memory makes of the backbone."""
        return Answerer(self._answering(frozen, mesh, mesh.size), method, memory, tasks)

    def examples(self, split: Split) -> int:
        """How many samples a split has: each is one training example."""
        return len(split)

    def items(self, split: Split) -> dict[str, int]:
        """How many samples a split has."""
        return {SIDE: len(split)}

    def cut(self, split: Split, reserve: Mapping[str, int]) -> int:
        """How many of a split's samples are not taken whole.

        Their conversation loses its end behind the room for prompts and the image, or none of their right answers is
        as short as what is generated, so that no answer can be right.
        """
        config, most = self.model.config, self.texts.longest
        rest = reserve.get(SITE, 0)
        visual = config.clip.patches - 1  # in the place of the image's slot
        return sum(
            self.texts.count(record) + rest + visual * record.has_image > most
            or self.texts.shortest(record) > self.measured.max_new
            for record in split.records
        )

    def protocol(self, routed: str) -> str:
        """In words how answers are measured."""
        return protocol(self.measured, routed)

    @property
    def _size(self) -> int:
        return self.model.config.clip.image_size

    def _answering(self, frozen: Tree, mesh: Mesh, batch: int) -> Answering:
        pictures = Pictures(self._size, self.measured.image)
        return Answering(self, frozen, mesh, self.measured._replace(batch=batch), pictures)


def sites(config: LlavaConfig) -> dict[str, Site]:
    """Where prompts may enter: behind the first token, in one layer, the input."""
    return {SITE: Site(1, config.llama.width, config.max_length - 2, config.words)}


def _seen(batch: Tree) -> Array:
    """[B, S, S, 3], zeros where there is no image: the same in queries and forward, which then share one pass."""
    return jnp.where(batch["has_image"][:, None, None, None], batch["images"], 0.0)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean of -log p(target) over all positions of a batch that have one.

    Args:
      logits: [B, L, V]. targets: [B, L] int32, IGNORE where nothing is asked.

    Returns: a scalar in nats, float32; 0 where nothing at all is asked, as in a batch whose answers were cut off.
    """
    there, likely = targets != IGNORE, jax.nn.log_softmax(logits.astype(jnp.float32))
    of_target = jnp.take_along_axis(likely, jnp.where(there, targets, 0)[..., None], axis=2)[..., 0]
    return -jnp.sum(jnp.where(there, of_target, 0.0)) / jnp.maximum(jnp.sum(there), 1)
