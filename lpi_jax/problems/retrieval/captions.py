"""Captions as token ids, behind placeholders where text prompts are to enter."""

from collections.abc import Sequence

import numpy as np

from lpi_jax.data import transforms
from lpi_jax.models.tokenizer import Tokenizer


class Captions:
    """Captions as written -> token ids."""

    def __init__(self, tokenizer: Tokenizer, context_length: int, max_words: int) -> None:
        self._tokenizer, self._context_length, self._max_words = tokenizer, context_length, max_words

    def __call__(self, captions: Sequence[str], placeholders: int) -> np.ndarray:
        """[N, context] int32, with so many placeholder words in front."""
        return self._encode(captions, placeholders)[0]

    def count_cut(self, captions: Sequence[str], placeholders: int) -> int:
        """How many of the captions do not fit into the context behind so many placeholders, and lose their end."""
        return self._encode(captions, placeholders)[1]

    def _encode(self, captions: Sequence[str], placeholders: int) -> tuple[np.ndarray, int]:
        cleaned = [transforms.clean_caption(caption, self._max_words) for caption in captions]
        return self._tokenizer.encode(cleaned, placeholders, self._context_length)
