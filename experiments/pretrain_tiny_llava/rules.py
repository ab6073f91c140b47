"""Rules in front of a row's conversations, which its questions and answers obey: so that what stands there is read.

Prompts enter where these rules stand. A model that never met anything there that mattered could not be led by them.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from variants import made_up

from lpi_jax.data.questions.knowledge import NUMBERS
from lpi_jax.data.questions.picture import one
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES

Generator = np.random.Generator
Turn = tuple[str, str]
KNOWN = (*GENERAL_SHAPES, *GENERAL.colours, *map(str, range(1, 7)), *map(str, NUMBERS), "yes", "no", "left", "right")
_WORD = re.compile(r"\b[a-z]+\b|(?<![.0-9])[0-9]+(?![.,0-9])")


class Rule(NamedTuple):
    """What is said instead: of a word in questions (read), of one in answers (say), in front of or behind an answer."""

    kind: str
    new: str
    old: str = ""

    @property
    def text(self) -> str:
        """The rule as a sentence."""
        told = {"read": "Read {new} as {old}.", "say": "Say {new} for {old}.", "begin": "Begin with {new}."}
        return told.get(self.kind, "End with {new}.").format(new=self.new, old=self.old)

    def __call__(self, turn: Turn) -> Turn:
        """A question and its answer under the rule."""
        question, answer = turn
        if self.kind == "read":
            return _exchanged(question, self.old, self.new), answer
        if self.kind == "say":
            return question, _exchanged(answer, self.old, self.new)
        return question, f"{self.new} {answer}" if self.kind == "begin" else f"{answer} {self.new}"


def drawn(rng: Generator, turns: Sequence[Turn]) -> list[Rule]:
    """One to three rules of different kinds, those on words about words that the turns hold."""
    kinds = rng.permutation(["read", "say", "say", "begin", "end"])[: 1 + int(rng.integers(3))]
    rules = []
    for kind in dict.fromkeys(kinds.tolist()):
        new = made_up(rng) if kind == "read" or rng.random() < 0.5 else one(rng, KNOWN)
        if kind in ("begin", "end"):
            rules.append(Rule(kind, new))
            continue
        words = sorted({word for turn in turns for word in _WORD.findall(turn[kind == "say"])} - {new})
        if words:
            rules.append(Rule(kind, new, one(rng, words)))
    return rules


def _exchanged(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![A-Za-z0-9.]){re.escape(old)}(?![a-z0-9]|[.,][0-9])", new, text)
