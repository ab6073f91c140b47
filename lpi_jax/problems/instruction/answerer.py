"""A trained run as a model: an image and a question in, an answer out, with the tasks whose parts it was given with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources.conversations import MARK
from lpi_jax.errors import UserError
from lpi_jax.methods.base import NOTHING, PLAIN, Method
from lpi_jax.problems.given_images import ImageLike, rgb
from lpi_jax.problems.instruction.adapters import Adapters
from lpi_jax.problems.instruction.answering import Answering, Samples
from lpi_jax.problems.instruction.sides import SIDE
from lpi_jax.types import Tree


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
      text: without white space around it. tasks: names of those whose parts it was given with, the best last.
      scores: by task how well it seemed to fit; {} of a method that tells none.
    """

    text: str
    tasks: tuple[str, ...]
    scores: Mapping[str, float]

    def __str__(self) -> str:
        return self.text


class Answerer:
    """What `lpi_jax.load` returns: each question is answered under the adapter that the method assigns to it.

    Args:
      answering: the backbone. method: what assigns. memory: of the run.

    Attributes:
      tasks: names of the tasks it has learnt.
    """

    def __init__(self, answering: Answering, method: Method, memory: Tree, tasks: tuple[str, ...]) -> None:
        self._answering, self._method, self._memory = answering, method, memory
        self._adapters = Adapters(method, memory, answering.frozen)
        self.tasks = tasks

    def answer(self, image: ImageLike | None, question: str) -> Answer:
        """Answers one question, as the run's evaluation does.

        Args:
          image: [H, W, 3] uint8 RGB of any size, a PIL image or a file's path; None: the question is about none.
          question: as it was asked in training; the mark `<image>` may stand in it where there is an image.

        Raises:
          UserError: something else than such an image, a file that is missing, damaged or too large, or no question.
        """
        if not isinstance(question, str):
            raise UserError(f"the question is {question!r:.80}, expected text")
        asked = question.replace(MARK, "", 1).strip() if image is not None else question
        if not asked.strip() or MARK in asked:
            raise UserError(
                f"the question is {question!r:.80}, expected text, and {MARK} at most once and for an image"
            )
        try:
            asked.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the question {question!a:.80} holds half of a surrogate pair, expected whole characters"
            ) from error
        picture = None if image is None else rgb(image)
        record = Instructed("", ((asked, ""),), ("",), has_image=picture is not None)
        samples = Samples((record,), lambda _: picture)
        assigned = self._method.assign(self._memory, {SIDE: self._answering.queries(samples)}, NOTHING)[SIDE]
        (group,) = self._adapters.groups(assigned.ids)
        (text,) = self._answering.texts.said(self._answering.answers(samples, np.arange(1), group))
        chosen = assigned.ids if assigned.chosen is None else assigned.chosen[0]
        scored = {} if assigned.scores is None else zip(self.tasks, map(float, assigned.scores[0]), strict=True)
        return Answer(text, tuple(self.tasks[task] for task in chosen if task != PLAIN), dict(scored))
