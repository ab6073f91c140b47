"""Samples as token ids: conversations for the language model, questions for CLIP's text tower, and answers back."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.data.instructed import Instructed
from lpi_jax.errors import UserError, reason
from lpi_jax.models.hub import local_path, transformers
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.problems.instruction import conversation
from lpi_jax.problems.instruction.conversation import Encoded
from lpi_jax.problems.instruction.options import Conversation

_STEP = 32  # token ids: rows are filled up to a multiple of it, so that few programs are compiled


def load_tokenizer(path_or_hub_id: str | Path) -> Any:
    """The LLaMA tokenizer of a directory or hub id. Raises UserError where there is none that can be read."""
    path, reader = local_path(path_or_hub_id), transformers().AutoTokenizer
    try:
        tokenizer = reader.from_pretrained(str(path), local_files_only=True, use_fast=True)
        ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    except Exception as error:  # whatever damaged files make the readers raise
        raise UserError(f"{path} does not hold a readable LLaMA tokenizer ({reason(error)})") from error
    if None in ends or not tokenizer.is_fast:
        raise UserError(f"{path}: the tokenizer lacks <s> and </s>, or is a slow one; expected a fast LLaMA tokenizer")
    return tokenizer


def fingerprint(tokenizer: Any) -> str:
    """sha256 (hexadecimal) of all that a tokenizer is made of."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def room(longest: int, most: int) -> int:
    """How many ids rows get of which the longest has so many; `most` at most."""
    return min(-(-longest // _STEP) * _STEP, most)


class Texts:
    """What the two towers read of samples.

    Args:
      llama: a fast LLaMA tokenizer. clip: CLIP's. context: most tokens of a question for CLIP's text tower.
      longest: most ids of a conversation; what is behind them is cut off. options: what is said around questions.
    """

    def __init__(self, llama: Any, clip: Tokenizer, context: int, longest: int, options: Conversation) -> None:
        self._llama, self._clip, self._context = llama, clip, context
        self.longest, self._options = longest, options

    def learnt(self, record: Instructed) -> Encoded:
        """A conversation to learn from, its ids and labels int32: a run keeps those of a whole task."""
        encoded = conversation.encode(record.turns, record.has_image, self._llama, self._options.system)
        return Encoded(*(np.array(part[: self.longest], np.int32) for part in encoded))

    def asked(self, record: Instructed) -> list[int]:
        """The ids of all up to where the last answer begins."""
        return conversation.prompt(record.turns, record.has_image, self._llama, self._options.system)[: self.longest]

    def count(self, record: Instructed) -> int:
        """Ids of a whole conversation, also those that are cut off."""
        return len(conversation.encode(record.turns, record.has_image, self._llama, self._options.system).ids)

    def shortest(self, record: Instructed) -> int:
        """Ids of the shortest right answer, with the one that ends it; 0 where any answer may be right."""
        told = [self._llama(answer, add_special_tokens=False)["input_ids"] for answer in record.answers]
        return min((len(ids) + 1 for ids in told), default=0)

    def questions(self, records: Sequence[Instructed]) -> np.ndarray:
        """[N, context] int32: the first questions for CLIP's text tower."""
        rule, system = self._options.guidance_text, self._options.system
        return self.words([conversation.guidance_text(r.turns[0][0], r.has_image, rule, system) for r in records])

    def words(self, texts: Sequence[str]) -> np.ndarray:
        """[N, context] int32 of any texts, also empty ones."""
        return self._clip.encode(texts, context_length=self._context, empty=True)[0]

    def said(self, ids: np.ndarray) -> list[str]:
        """The answers that generated ids [N, n] spell, without special tokens and white space around them."""
        return [text.strip() for text in self._llama.batch_decode(ids.tolist(), skip_special_tokens=True)]
