"""All samples of some tasks and what was computed of them, each answer once in a whole run.

What an adapter id stands for never changes, so a sample's answer under it never does either: it is generated when the
sample first gets that id, and found again when the sample gets it once more. Queries are computed once ever.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.stream import Split
from lpi_jax.methods.base import PLAIN, Assigned, Method
from lpi_jax.problems.instruction.adapters import Adapters
from lpi_jax.problems.instruction.answering import Answering, Samples
from lpi_jax.problems.instruction.sides import SIDE
from lpi_jax.types import Tree


class Answers:
    """The samples of some tasks with their queries, adapter ids and answers.

    Args:
      answering: the backbone. method: which adapter each sample gets. oracle: whether every sample gets the adapter of
        its true task (of a task not learnt yet: none). A sample that the method gives none to keeps none.

    Attributes:
      records: of all samples; task: [N] int32, the true task of each. assigned: which adapter each gets.
    """

    def __init__(self, answering: Answering, method: Method, oracle: bool) -> None:
        self._answering, self._method, self._oracle = answering, method, oracle
        self._splits: list[Split[Instructed]] = []
        self._place: list[tuple[int, int]] = []  # sample -> task, index within the task
        self.records: list[Instructed] = []
        self.task = np.zeros(0, np.int32)
        self.queries = np.zeros((0, 0), np.float32)
        self.assigned = Assigned.nowhere(0)
        self._known: dict[tuple[int, int], np.ndarray] = {}  # sample, adapter id -> the answer's token ids

    def add(self, split: Split[Instructed]) -> None:
        """A task's samples arrive: their queries are computed, and the frozen backbone's answers."""
        first = len(self.records)
        self._enter(split)
        queries = self._answering.queries(Samples(split.records, split.load))
        self.queries = np.concatenate([self.queries, queries]) if first else queries
        self.assigned = _extended(self.assigned, len(split))
        self._answer(np.arange(first, len(self.records)), np.full(len(split), PLAIN, np.int32), None)

    def follow(self, memory: Tree, tasks: int) -> None:
        """Assigns every sample an adapter of the memory after so many tasks, and answers those that lack an answer."""
        self.assigned = self._method.assign(memory, {SIDE: self.queries}, {SIDE: self.assigned})[SIDE]
        if self._oracle:
            chosen = self.assigned.chosen
            bypassed = False if chosen is None else chosen[:, -1] == PLAIN
            told = np.where((self.task < tasks) & ~np.asarray(bypassed), self.task, PLAIN).astype(np.int32)
            self.assigned = self.assigned._replace(ids=told, chosen=None)
        ids = self.assigned.ids
        missing = [number for number, own in enumerate(ids) if (number, int(own)) not in self._known]
        self._answer(np.array(missing, int), ids[missing], Adapters(self._method, memory, self._answering.frozen))

    @property
    def chosen(self) -> np.ndarray:
        """[N, K] int32: the tasks whose parts each sample gets, the best last; PLAIN for none."""
        return self.assigned.ids[:, None] if self.assigned.chosen is None else self.assigned.chosen

    def load(self, number: int) -> Image.Image:
        """The image of a sample, mode RGB; a black one of a sample without."""
        task, index = self._place[number]
        return self._splits[task].load(index)

    def said(self, task: int, plain: bool = False) -> list[str]:
        """The answers to a task's samples under their adapters; plain: of the frozen backbone."""
        rows = np.flatnonzero(self.task == task)
        ids = np.full(len(rows), PLAIN) if plain else self.assigned.ids[rows]
        return self._answering.texts.said(
            np.stack([self._known[row, int(own)] for row, own in zip(rows, ids, strict=True)])
        )

    def _answer(self, numbers: np.ndarray, ids: np.ndarray, adapters: Adapters | None) -> None:
        """Generates what is missing; ids [n]: of the samples `numbers` [n]; adapters: None where all ids are PLAIN."""
        if not len(numbers):
            return None
        samples = Samples(self.records, self.load)
        if adapters is None:
            return self._keep(numbers, ids, self._answering.answers(samples, numbers))
        for group in adapters.groups(ids):
            own, asked = numbers[group.rows], ids[group.rows]
            if group.plain(adapters.frozen):  # the frozen backbone's answers are there
                self._keep(own, asked, np.stack([self._known[int(number), PLAIN] for number in own]))
            else:
                self._keep(own, asked, self._answering.answers(samples, own, group))
        return None

    def _keep(self, numbers: np.ndarray, ids: np.ndarray, answers: np.ndarray) -> None:
        self._known |= {(int(n), int(own)): answer for n, own, answer in zip(numbers, ids, answers, strict=True)}

    def _enter(self, split: Split[Instructed]) -> None:
        task = len(self._splits)
        self._splits.append(split)
        self._place += [(task, index) for index in range(len(split))]
        self.records += split.records
        self.task = np.concatenate([self.task, np.full(len(split), task, np.int32)])

    # ---- kept at a task boundary -------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """What was computed: queries [N, 2C + 1], ids and, by (sample, adapter id) [M, 2], token ids [M, max_new]."""
        known = np.array(list(self._known), np.int32).reshape(-1, 2)
        told = list(self._known.values())
        chosen = self.assigned.chosen
        return {
            "queries": self.queries,
            "ids": self.assigned.ids,
            "compared": self.assigned.compared,
            "nearest": self.assigned.nearest,
            "posterior": self.assigned.posterior,
            "chosen": np.zeros((0, 0), np.int32) if chosen is None else chosen,
            "known": known,
            "tokens": np.stack(told) if told else np.zeros((0, 0), np.int32),
        }

    def refill(self, arrays: Mapping[str, np.ndarray], splits: list[Split]) -> None:
        """Takes over the arrays [N, ...] of the same splits."""
        for split in splits:
            self._enter(split)
        self.queries = arrays["queries"]
        chosen = arrays["chosen"] if len(arrays["chosen"]) else None
        self.assigned = Assigned(*(arrays[name] for name in ("ids", "compared", "nearest", "posterior")), chosen)
        self._known = {
            (int(number), int(own)): tokens
            for (number, own), tokens in zip(arrays["known"], arrays["tokens"], strict=True)
        }


def _extended(assigned: Assigned, count: int) -> Assigned:
    """The same with so many items more, which have not been assigned anything yet."""
    more = Assigned.nowhere(count)
    none = np.zeros((count, assigned.posterior.shape[1]), np.float32)
    none[:, -1] = 1.0
    parts = zip(assigned[:3], more[:3], strict=True)
    return Assigned(*(np.concatenate(both) for both in parts), np.concatenate([assigned.posterior, none]))
