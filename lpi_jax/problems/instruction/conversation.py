"""The chat template of LLaVA-1.5, as token ids with labels, and what CLIP's text tower reads of a question.

    {system} USER: <image>\\n{question} ASSISTANT: {answer}</s>

Only answers are supervised: everything up to the colon of ASSISTANT: has the label IGNORE, the blank behind it belongs
to the answer's first piece, and the </s> behind an answer is supervised too. Further rounds follow as
`USER: ... ASSISTANT: ...</s>`, without an image. The text before the image, the text after it and each further round
are tokenised on their own, so that a LLaMA tokenizer puts its space piece in front of each:
[BOS, ..., space, IMAGE, space, newline, ...].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.problems.instruction.options import VICUNA

PAD = 0
_USER, _ASSISTANT = "USER: ", " ASSISTANT:"

Turns = Sequence[tuple[str, str]]  # (question, answer) of each round


class Encoded(NamedTuple):
    """One conversation: token ids, BOS first, at most one of them IMAGE, and the label of each (not shifted)."""

    ids: Sequence[int] | np.ndarray
    labels: Sequence[int] | np.ndarray


class Batch(NamedTuple):
    """ids: [B, n] int32, PAD on the right. labels: [B, n] int32, IGNORE there. length: [B] int32, ids without it."""

    ids: np.ndarray
    labels: np.ndarray
    length: np.ndarray


# ---- token ids -------------------------------------------------------------------------------------------------------


def encode(turns: Turns, has_image: bool, tokenizer: Any, system: str = VICUNA) -> Encoded:
    """A conversation to learn from.

    Args:
      turns: at least one round.
      has_image: whether the first question is about an image.
      tokenizer: a fast LLaMA tokenizer of `transformers`.
      system: the text in front; empty: none.

    Raises:
      UserError: no round, or a tokenizer that joins the end of a question to its answer.
    """
    if not turns:
        raise UserError("the conversation has no round; expected at least one question with an answer")
    ids: list[int] = []
    labels: list[int] = []
    for number, (question, answer) in enumerate(turns):
        ahead = _ahead(number, question, has_image, tokenizer, system)
        asked = _pieces(ahead.text, tokenizer)
        both = _pieces(f"{ahead.text} {answer}", tokenizer)
        if both[: len(asked)] != asked:
            raise UserError(
                f"the tokenizer joins {_ASSISTANT!r} to the answer {answer!r}; expected pieces of their own"
            )
        supervised = [*both[len(asked) :], tokenizer.eos_token_id]
        ids += [*ahead.ids, *asked, *supervised]
        labels += [IGNORE] * (len(ahead.ids) + len(asked)) + supervised
    return Encoded(ids, labels)


def prompt(turns: Turns, has_image: bool, tokenizer: Any, system: str = VICUNA) -> list[int]:
    """Token ids, BOS first, of what is put to the model: all up to the colon behind the last ASSISTANT.

    Arguments and errors are those of `encode`; the last round's answer is not read.
    """
    *earlier, (question, _) = turns
    ids = encode(earlier, has_image, tokenizer, system).ids if earlier else []
    ahead = _ahead(len(earlier), question, has_image, tokenizer, system)
    return [*ids, *ahead.ids, *_pieces(ahead.text, tokenizer)]


class _Ahead(NamedTuple):
    """What comes before an answer: ids in front of the round; text: the rest up to the colon, still to be tokenised."""

    ids: list[int]
    text: str


def _ahead(number: int, question: str, has_image: bool, tokenizer: Any, system: str) -> _Ahead:
    """What comes before the answer of round `number`."""
    if number:
        return _Ahead([], f"{_USER}{question}{_ASSISTANT}")
    opening, start = _opening(system), [tokenizer.bos_token_id]
    if has_image:
        return _Ahead([*start, *_pieces(opening, tokenizer), IMAGE], f"\n{question}{_ASSISTANT}")
    return _Ahead(start, f"{opening}{question}{_ASSISTANT}")


def _opening(system: str) -> str:
    return f"{system} {_USER}" if system else _USER


def _pieces(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def pad(rows: Sequence[Encoded], longest: int | None = None) -> Batch:
    """Conversations as arrays.

    Args:
      rows: B conversations.
      longest: n, at least as long as every row; None: the longest row's length.

    Returns: Batch of ids [B, n], labels [B, n] and length [B], int32.

    Raises:
      UserError: a row longer than `longest`.
    """
    length = np.asarray([len(row.ids) for row in rows], np.int32)
    n = int(length.max(initial=0)) if longest is None else longest
    if length.max(initial=0) > n:
        raise UserError(f"a conversation has {int(length.max())} token ids; expected at most {n}")
    ids, labels = np.full((len(rows), n), PAD, np.int32), np.full((len(rows), n), IGNORE, np.int32)
    for k, row in enumerate(rows):
        ids[k, : len(row.ids)], labels[k, : len(row.labels)] = row.ids, row.labels
    return Batch(ids, labels, length)


# ---- what CLIP reads -------------------------------------------------------------------------------------------------


def guidance_text(question: str, has_image: bool, rule: str, system: str = VICUNA) -> str:
    """The text of the first question that the text tower reads.

    Args:
      rule: "intended": the question; "released": `after_first_newline` of the whole prompt.
    """
    if rule == "intended":
        return question
    image = " \n" if has_image else ""  # the image leaves nothing, the text behind it starts with a space piece
    return after_first_newline(f"{_opening(system)}{image}{question}{_ASSISTANT}")


def after_first_newline(text: str) -> str:
    """What follows the first newline, up to " ASSISTANT"; "" where there is no newline.

    With an image this removes the text in front of the question. Without one it removes the question's first line, and
    a question of one line altogether: a quirk of the release.
    """
    return text.partition("\n")[2].partition(" ASSISTANT")[0]
