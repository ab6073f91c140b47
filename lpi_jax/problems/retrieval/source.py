"""Training examples of retrieval: each caption with its image."""

from collections.abc import Sequence

import numpy as np

from lpi_jax.data import captioned
from lpi_jax.data.loader import Transform
from lpi_jax.data.stream import Split
from lpi_jax.models.tokenizer import trim_to
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.types import Tree


class Pairs:
    """The pairs of a split, as `lpi_jax.data.batches.Source`.

    An item is {"images": [S, S, 3] uint8, "token_ids": [context] int32} and, with `asking`, "query_ids" [context]: the
    caption without placeholders.

    Args:
      split: captioned images. transform: of an image, with a seed.
      captions: -> token ids. placeholders: in front of every caption. asking: whether items carry query ids.
    """

    def __init__(self, split: Split, transform: Transform, captions: Captions, placeholders: int, asking: bool) -> None:
        self._split, self._transform = split, transform
        self._pairs = captioned.pairs(split)
        words = captioned.spoken(split)
        self._ids = {"token_ids": captions(words, placeholders)}
        if asking:
            self._ids["query_ids"] = captions(words, 0)
        self._lengths = self._ids["token_ids"].argmax(1) + 1

    def __len__(self) -> int:
        return len(self._pairs)

    def length(self, index: int) -> int:
        """Tokens of a caption with its placeholders, the last included."""
        return int(self._lengths[index])

    def item(self, index: int, seed: tuple[int, ...]) -> Tree:
        """One pair."""
        image = self._transform(self._split.load(self._pairs[index, 0]), seed)
        return {"images": image, **{name: ids[index] for name, ids in self._ids.items()}}

    def collate(self, items: Sequence[Tree], longest: int) -> Tree:
        """[R, ...] of every part; ids [R, N] are cut to a fixed length N that holds `longest` tokens."""
        batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
        return {name: part if name == "images" else trim_to(part, longest) for name, part in batch.items()}
