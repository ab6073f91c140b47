"""How instruction following is measured: answers to all samples seen so far, and how right they are."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lpi_jax.data.stream import Split
from lpi_jax.methods.base import PLAIN, Method
from lpi_jax.parallel import processes
from lpi_jax.problems import saved
from lpi_jax.problems.base import Control, Metric, Row
from lpi_jax.problems.instruction import shown
from lpi_jax.problems.instruction.adapters import under
from lpi_jax.problems.instruction.answering import Answering, Samples
from lpi_jax.problems.instruction.answers import Answers
from lpi_jax.problems.instruction.guess import guess
from lpi_jax.problems.instruction.intervals import interval
from lpi_jax.problems.instruction.options import Measured
from lpi_jax.problems.instruction.scoring import scores
from lpi_jax.problems.instruction.sides import SIDE
from lpi_jax.types import Adapter, Tree

WAYS = {"accuracy": "official", "released_accuracy": "released"}  # the way of `scoring` of each metric
METRICS = (
    Metric("accuracy", "accuracy", "answers", "A", "%", True, SIDE),
    Metric("released_accuracy", "as released", "answers", "A", "%", True, SIDE),
)
FROZEN = Control("frozen", "zero-shot", measures_method=False)
Points = dict[str, list[np.ndarray]]  # metric -> by task the points of each sample [n], per cent


class InstructionEvaluator:
    """`lpi_jax.problems.base.Evaluator` of instruction following.

    Args:
      answering: the backbone. method: which adapter each sample gets. measured: how.
    """

    def __init__(self, answering: Answering, method: Method, measured: Measured) -> None:
        self._answering, self._method, self._measured = answering, method, measured
        self._tasks = 0
        self._expected: list[Split] = []  # where all samples are there from the start
        self._probes: dict[str, Answers] = {}
        self._probe_splits: dict[str, Sequence[Split]] = {}
        self._guesses: list[dict[str, float]] = []  # by task
        self.answers = Answers(answering, method, measured.oracle)

    @property
    def generated(self) -> int:
        """How many answers have been generated so far."""
        return self._answering.generated

    @property
    def _sets(self) -> dict[str, Answers]:
        return {"stream": self.answers, **{f"probe {name}": own for name, own in self._probes.items()}}

    def expect(self, splits: Sequence[Split]) -> None:
        """The validation samples of all tasks; they are kept where tasks are measured before they are learnt."""
        self._expected = list(splits) if self._measured.future else []

    def probe(self, name: str, splits: Sequence[Split]) -> None:
        """Samples that are measured and never learnt; nobody could tell them a task."""
        self._probe_splits[name] = splits
        self._probes[name] = Answers(self._answering, self._method, oracle=False)

    def add(self, split: Split) -> None:
        """The next task's validation samples arrive."""
        self._changed()
        self._tasks += 1
        if not self._expected:
            self.answers.add(split)
        elif self._tasks == 1:
            for one in self._expected:
                self.answers.add(one)
        if self._tasks == 1:
            for name, own in self._probes.items():
                for one in self._probe_splits[name]:
                    own.add(one)

    def follow(self, memory: Tree, tasks: int) -> None:
        """Every sample gets its adapter of the memory after so many tasks, and is answered where that is new."""
        self._changed()
        for own in self._sets.values():
            own.follow(memory, tasks)

    def measure(self, first: int = 0) -> Row:
        """Every metric on the tasks from number `first` on, per cent."""
        return _row(_points(self.answers, range(first, self._tasks))) if first else _row(self._own)

    def controls(self) -> dict[Control, Row]:
        """The frozen backbone on the same samples."""
        return {FROZEN: _row(self._frozen)}

    def intervals(self) -> dict[str, Any]:
        """How well the final averages are known."""
        return {metric: interval(own, {FROZEN.name: self._frozen[metric]}) for metric, own in self._own.items()}

    def future(self) -> dict[str, Row]:
        """Every metric on all tasks of the stream, learnt or not; {} unless asked for."""
        if not self._expected:
            return {}
        every = range(len(self._expected))
        ways = {"future": False, "future_frozen": True}
        return {name: _row(_points(self.answers, every, plain)) for name, plain in ways.items()}

    def probed(self) -> dict[str, Any]:
        """By probe every metric, averaged over its tasks, of the method and of the frozen backbone."""

        def averages(name: str, plain: bool) -> dict[str, float]:
            row = _row(_points(self._probes[name], range(len(self._probe_splits[name])), plain))
            return {metric: float(np.mean(values)) for metric, values in row.items()}

        return {name: {"values": averages(name, False), "frozen": averages(name, True)} for name in self._probes}

    def chance(self) -> Row:
        """What the best single answer to all samples of a task finds (`guess`)."""
        for task in range(len(self._guesses), self._tasks):
            records = [
                record for record, own in zip(self.answers.records, self.answers.task, strict=True) if own == task
            ]
            self._guesses.append({metric: guess(records, way) for metric, way in WAYS.items()})
        return {metric: [of_task[metric] for of_task in self._guesses[: self._tasks]] for metric in WAYS}

    def routing(self, tasks: int) -> dict[str, dict[str, Any]]:
        """Where the samples of the first `tasks` tasks were sent; {} for a method that sends none.

        `accuracy`: per cent of each task's samples whose best task is their own; `among`: whose own is among those
        chosen; `confusion`: matrix [T][T] by true and by best task, and none [T] where some were sent nowhere.
        """
        if not self._method.options.routes:
            return {}
        assigned, true = self.answers.assigned, self.answers.task
        counts = np.zeros((tasks, tasks + 1), int)
        seen = true < tasks
        np.add.at(counts, (true[seen], np.where(assigned.best[seen] == PLAIN, tasks, assigned.best[seen])), 1)
        none = {"none": counts[:, tasks].tolist()} if counts[:, tasks].any() else {}
        among = (self.answers.chosen == true[:, None]).any(1)
        return {
            SIDE: {
                "accuracy": [100.0 * float(np.mean(assigned.best[true == task] == task)) for task in range(tasks)],
                "among": [100.0 * float(np.mean(among[true == task])) for task in range(tasks)],
                "confusion": {"matrix": counts[:, :tasks].tolist(), **none},
            }
        }

    def features(self, split: Split, number: int) -> dict[str, np.ndarray]:
        """The queries [N, 2C + 1] of a training split's samples."""
        return {SIDE: self._answering.queries(Samples(split.records, split.load))}

    def meaning(self, text: str) -> np.ndarray:
        """[C] float32, L2-normalised: what CLIP's text tower makes of a text."""
        return self._answering.meaning(text)

    def compare(self, split: Split, adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
        """1 - the points of each sample's answer [N], under an adapter and without."""
        samples, rows = Samples(split.records, split.load), np.arange(len(split))

        def missed(group: Any) -> np.ndarray:
            said = self._answering.texts.said(self._answering.answers(samples, rows, group))
            return 1 - np.array(scores(said, split.records, WAYS["accuracy"]))

        return missed(under([adapter], rows, np.zeros(len(rows), int))), missed(None)

    def save(self, path: Path) -> None:
        """Writes what was computed, and beside the folder it is in a few samples for people to see (`shown`).

        The two belong together: a boundary whose arrays are there has its samples, and a killed run writes the same.
        """
        saved.save(path, {name: own.arrays() for name, own in self._sets.items()})
        if self._measured.shown:
            processes.agreed(lambda: shown.write(path.parent.parent, self._tasks, self._shown()))

    def restore(self, path: Path, splits: Sequence[Split]) -> None:
        """What `save` wrote, for the same splits. Raises UserError where the file is damaged."""
        self._changed()
        self._tasks = len(splits)
        arrays = saved.saved(path, {name: own.arrays() for name, own in self._sets.items()})
        self.answers.refill(arrays["stream"], self._expected or list(splits))
        for name, own in self._probes.items():
            own.refill(arrays[f"probe {name}"], list(self._probe_splits[name]))

    def _shown(self) -> list[dict[str, Any]]:
        after, before = self._own["accuracy"], self._frozen["accuracy"]
        return shown.samples(self.answers, after, before, self._method.options.routes, self._measured.shown)

    @cached_property
    def _own(self) -> Points:
        return _points(self.answers, range(self._tasks))

    @cached_property
    def _frozen(self) -> Points:
        return _points(self.answers, range(self._tasks), plain=True)

    def _changed(self) -> None:
        """Forgets how right the answers were."""
        self.__dict__.pop("_own", None)
        self.__dict__.pop("_frozen", None)


def _points(answers: Answers, tasks: range, plain: bool = False) -> Points:
    points: Points = {metric: [] for metric in WAYS}
    for task in tasks:
        records = [record for record, own in zip(answers.records, answers.task, strict=True) if own == task]
        said = answers.said(task, plain)
        for metric, way in WAYS.items():
            points[metric].append(100.0 * np.array(scores(said, records, way)))
    return points


def _row(points: Points) -> Row:
    return {metric: [float(own.mean()) for own in by_task] for metric, by_task in points.items()}
