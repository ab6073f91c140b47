"""What the tasks of a stream are about: the text that their semantic distance is computed from."""

import sys
from collections.abc import Sequence

from lpi_jax.data.examples import BadExample, Example, is_empty, shown
from lpi_jax.data.transforms import clean_caption
from lpi_jax.errors import UserError


class Descriptions:
    """The descriptions of all tasks; of a task's own the first counts."""

    def __init__(self) -> None:
        # By task, then by what is left once it is cleaned: the first such description, and where it stands.
        self._by_task: dict[str, dict[str, tuple[str, str]]] = {}

    def add(self, example: Example) -> BadExample | None:
        """Takes an example's description, if it has one; what is wrong with it if nothing is left of it."""
        text = example.description
        if text is None:
            return None
        if is_empty(text):
            message = f"{example.where}: description {shown(text)} is empty once it is cleaned of punctuation"
            return BadExample("empty description", message, example.task)
        known = self._by_task.setdefault(example.task, {})
        known.setdefault(clean_caption(text, sys.maxsize), (text, example.where))
        return None

    def of(self, source: str, task: str) -> str:
        """A task's first description, else its name. UserError: it has none, and nothing is left of the name."""
        for text, _ in self._by_task.get(task, {}).values():
            return text
        if is_empty(task):
            raise UserError(
                f"{source}: task {shown(task)} has no description, and its name is empty once it is cleaned of"
                " punctuation; expected words in one of them"
            )
        return task

    def remarks(self) -> list[str]:
        """A sentence for each task whose descriptions differ in more than letters' case, punctuation or white space."""
        sentences = []
        for task, known in self._by_task.items():
            (first, where), *others = known.values()
            if others:
                other, place = others[0]
                more = f", nor {len(others) - 1} others" if others[1:] else ""
                told = f"{shown(first)} ({where}) counts, not {shown(other)} ({place}){more}"
                sentences.append(f"the descriptions of task {shown(task)} differ: {told}")
        return sentences


def alike(names: Sequence[str]) -> list[str]:
    """A sentence for each task whose name differs from an earlier one in letters' case or white space only."""
    sentences: list[str] = []
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(" ".join(name.split()).casefold(), name)
        if other is not name:
            sentences.append(
                f"tasks {shown(other)} and {shown(name)} are two, although their names are nearly the same"
            )
    return sentences
