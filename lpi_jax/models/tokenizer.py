"""Captions -> token ids: CLIP's tokenizer with room for prompts, and captions cut to the longest in a batch.

A caption is tokenised behind P placeholder words "X", whose embeddings the text prompts replace.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.models import weights
from lpi_jax.models.hub import transformers

TRIM_LENGTHS = (16, 24, 32, 40, 48, 64, 77)  # few, so that a program is compiled for few shapes
START, END, PLACEHOLDER = "<|startoftext|>", "<|endoftext|>", "X"


class Tokenizer:
    """CLIP's byte-pair tokenizer; made by `load`.

    Attributes:
      vocab_size: number of ids; the highest is EOT, where captions are pooled.
    """

    def __init__(self, backend: Any):
        """backend: a `tokenizers.Tokenizer` that `load` has checked."""
        self._backend = backend
        self._start, self._end = backend.token_to_id(START), backend.token_to_id(END)
        self.vocab_size: int = backend.get_vocab_size()

    @classmethod
    def load(cls, path_or_hub_id: str | Path) -> "Tokenizer":
        """Reads the tokenizer of a Hugging Face CLIP directory or hub id.

        Raises: UserError where files or special tokens are missing, EOT is not the highest id, or transformers read
          another vocabulary than the files hold (with wrong arguments it silently makes up one of three tokens).
        """
        path = weights.local_path(path_or_hub_id)
        if not path.is_dir():
            raise UserError(f"{path} is no directory; expected one with vocab.json and merges.txt or tokenizer.json")
        if (
            not ((path / "vocab.json").is_file() and (path / "merges.txt").is_file())
            and not (path / "tokenizer.json").is_file()
        ):
            raise UserError(f"{path} has no tokenizer; expected vocab.json and merges.txt, or tokenizer.json")
        reader = transformers().CLIPTokenizerFast
        try:
            written = _written_vocabulary(path)
            backend = reader.from_pretrained(str(path), local_files_only=True).backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            read = backend.get_vocab()
        except Exception as error:  # whatever damaged files make the readers raise
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} does not hold a readable CLIP tokenizer ({reason})") from error
        if len(read) <= 3:
            raise UserError(
                f"{path}: transformers read a vocabulary of {len(read)} tokens; the files are no CLIP tokenizer"
            )
        if missing := [token for token in (START, END) if token not in written]:
            raise UserError(f"{path}: the vocabulary lacks the special token {missing[0]}")
        if read.keys() != written:
            raise UserError(f"{path}: transformers read {len(read)} tokens, but the files hold {len(written)} others")
        if read[END] != max(read.values()):
            raise UserError(
                f"{path}: {END} has id {read[END]}, but captions are pooled at the highest id, {max(read.values())}"
            )
        return cls(backend)

    def encode(
        self, captions: Sequence[str], placeholders: int = 0, context_length: int = 77, empty: bool = False
    ) -> tuple[np.ndarray, int]:
        """Token ids of captions.

        Args:
          captions: B strings.
          placeholders: P, words in front of every caption that prompts will replace.
          context_length: N, tokens per row.
          empty: whether a caption may be without any token: [SOT, EOT, zeros].

        Returns: ids [B, N] int32, each row [SOT, P placeholders, caption, EOT, zeros], and how many captions were too
          long and lost their end (never EOT).
        Raises: UserError for a caption without any token, or too short a context.
        """
        room = context_length - placeholders - 2
        if room < 1:
            raise UserError(f"{placeholders} placeholders leave no room for a caption in {context_length} tokens")
        head = [self._start, *([self._placeholder()] * placeholders if placeholders else [])]
        ids, cut = np.zeros((len(captions), context_length), np.int32), 0
        encodings = self._backend.encode_batch(list(captions), add_special_tokens=False)
        for row, caption, encoding in zip(ids, captions, encodings, strict=True):
            # A special token inside a caption is text that spells it, or an unknown character: it must not end it.
            words = [token for token in encoding.ids if token not in (self._start, self._end)]
            if not words and not empty:
                raise UserError(f"the caption {caption!r} has no token; expected at least one word")
            cut += len(words) > room
            tokens = [*head, *words[:room], self._end]
            row[: len(tokens)] = tokens
        return ids, cut

    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the vocabulary and the merges: what the token ids of a caption follow from."""
        merges = json.loads(self._backend.to_str())["model"].get("merges", [])
        pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]  # as older versions write them
        content = json.dumps([sorted(self._backend.get_vocab().items()), pairs])
        return hashlib.sha256(content.encode()).hexdigest()

    def _placeholder(self) -> int:
        ids = self._backend.encode(PLACEHOLDER, add_special_tokens=False).ids
        if len(ids) != 1 or ids[0] in (self._start, self._end):
            found = "is unknown" if self._end in ids else f"is {len(ids)}"
            raise UserError(f"the placeholder word {PLACEHOLDER!r} must be one token of the vocabulary, but {found}")
        return ids[0]


def _written_vocabulary(path: Path) -> set[str]:
    """The tokens in all of the tokenizer's own files, whichever of them transformers prefers."""

    def fields(name: str) -> dict[str, Any]:
        return json.loads((path / name).read_text(encoding="utf-8")) if (path / name).is_file() else {}

    whole = fields("tokenizer.json")
    tokens = {*fields("vocab.json"), *fields("added_tokens.json"), *whole.get("model", {}).get("vocab", {})}
    return tokens | {token["content"] for token in whole.get("added_tokens", [])}


def trim(token_ids: np.ndarray) -> np.ndarray:
    """A view [B, n] of ids [B, N] without the padding that no row needs; the features stay the same.

    n is the longest caption with its EOT, rounded up to one of TRIM_LENGTHS, and at most N.
    """
    return trim_to(token_ids, int(token_ids.argmax(axis=1).max(initial=0)) + 1)


def trim_to(token_ids: np.ndarray, longest: int) -> np.ndarray:
    """A view [B, n] of ids [B, N]: n is `longest`, rounded up to one of TRIM_LENGTHS, and at most N."""
    return token_ids[:, : next((n for n in TRIM_LENGTHS if n >= longest), token_ids.shape[1])]
