"""Training examples of instruction following: each sample's conversation with its image."""

from collections.abc import Sequence

import numpy as np

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.stream import Split
from lpi_jax.problems.instruction import conversation
from lpi_jax.problems.instruction.conversation import Encoded
from lpi_jax.problems.instruction.pictures import Pictures
from lpi_jax.problems.instruction.texts import Texts, room
from lpi_jax.types import Tree


class Conversations:
    """The samples of a split, as `lpi_jax.data.batches.Source`; a batch is what `problem` says.

    Args:
      split: samples. texts: -> token ids. pictures: of an image.
    """

    def __init__(self, split: Split[Instructed], texts: Texts, pictures: Pictures) -> None:
        self._split, self._texts, self._pictures = split, texts, pictures
        self._encoded: dict[int, Encoded] = {}

    def __len__(self) -> int:
        return len(self._split)

    def length(self, index: int) -> int:
        """Token ids of a sample's conversation."""
        return len(self._conversation(index).ids)

    def item(self, index: int, seed: tuple[int, ...]) -> Tree:
        """One sample; nothing is random."""
        record = self._split.records[index]
        return {
            "images": self._pictures(self._split.load(index)) if record.has_image else self._pictures.nothing,
            "has_image": np.bool_(record.has_image),
            "conversation": self._conversation(index),
            "question_ids": self._texts.questions([record])[0],
        }

    def collate(self, items: Sequence[Tree], longest: int) -> Tree:
        """The batch [R, ...]; ids and labels [R, n] have a fixed length n that holds `longest` ids."""
        together = conversation.pad([item["conversation"] for item in items], room(longest, self._texts.longest))
        batch = {name: np.stack([item[name] for item in items]) for name in ("images", "has_image", "question_ids")}
        return batch | together._asdict()

    def _conversation(self, index: int) -> Encoded:
        if index not in self._encoded:
            self._encoded[index] = self._texts.learnt(self._split.records[index])
        return self._encoded[index]
