"""What is asked of a backbone: the protocol between a problem and everything that is not about one problem.

A problem knows no method, no loop and no file format. To add one, write a folder with these parts and name it in
`lpi_jax.problems.registry`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from lpi_jax.data.batches import Source
from lpi_jax.data.stream import Split
from lpi_jax.methods.base import Method, Site
from lpi_jax.parallel.mesh import Mesh
from lpi_jax.types import Adapter, Tree


class Metric(NamedTuple):
    """One number a task that a problem is judged by.

    Attributes:
      name: in results and logs. label, group: as tables show it, and what stands over several of them; short: the
        group in few letters.
      unit: "%", "nats", ... higher_is_better: which way is up.
      side: whose items are counted.
    """

    name: str
    label: str
    group: str
    short: str
    unit: str
    higher_is_better: bool
    side: str


class Control(NamedTuple):
    """Another way of answering the same questions, which a method's numbers stand beside.

    Attributes:
      name: in results. label: as tables show it. measures_method: whether the method answers; else the frozen backbone
        does, with something that the method knows.
    """

    name: str
    label: str
    measures_method: bool


Row = dict[str, list[float]]  # metric -> its value on each task


class Evaluator(Protocol):
    """All validation items of the tasks so far and what was computed of them."""

    def add(self, split: Split) -> None:
        """The next task's validation items arrive."""

    def expect(self, splits: Sequence[Split]) -> None:
        """The validation items of all tasks, in their order, before the first arrives: for what is measured ahead."""

    def probe(self, name: str, splits: Sequence[Split]) -> None:
        """Items of a stream that is never learnt, only measured."""

    def follow(self, memory: Tree, tasks: int) -> None:
        """Every item gets the adapter that the method assigns under this memory of so many finished tasks.

        It is encoded where that changed: once under every adapter.
        """

    def measure(self, first: int = 0) -> Row:
        """Every metric on the tasks from number `first` on."""

    def controls(self) -> dict[Control, Row]:
        """The same on all tasks so far, answered in other ways; the first is the frozen backbone, named `frozen`."""

    def intervals(self) -> dict[str, Any]:
        """By metric how well its final average is known, {"interval": [low, high], "over": {control: ...}}; or {}.

        Of each control [difference, low, high]: by how much the method is above it, on the same items.
        """

    def future(self) -> dict[str, Row]:
        """Every metric on all tasks of the stream, also those not learnt yet, with all items searched.

        {"future": of the method, "future_frozen": of the frozen backbone}; {} where that is not asked for.
        """

    def probed(self) -> dict[str, Any]:
        """By probe {"values": ..., "frozen": ...}, every metric averaged over its tasks."""

    def chance(self) -> Row:
        """What a guess finds, of the metrics for which that means something."""

    def routing(self, tasks: int) -> dict[str, dict[str, Any]]:
        """By side `accuracy`, per cent of each task's items sent to it, and `confusion`; {} where nothing is sent.

        `among`, where items are sent to several tasks: per cent of those whose own is one of them.
        """

    def features(self, split: Split, number: int) -> dict[str, np.ndarray]:
        """By side the queries [N, E] float32 of the items of a task's training split."""

    def meaning(self, text: str) -> np.ndarray:
        """[E] float32, L2-normalised features of what a task is about."""

    def compare(self, split: Split, adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
        """What each record [N] of a split misses, asked among its own items, under an adapter and without; 0: nothing.

        In the units of the problem's measure, so that less is better for whoever uses it.
        """

    def save(self, path: Path) -> None:
        """Writes what was computed, so that a resumed run computes nothing twice."""

    def restore(self, path: Path, splits: Sequence[Split]) -> None:
        """What `save` wrote, for the same splits. Raises UserError where the file is damaged."""


class Backbone(NamedTuple):
    """Frozen weights on their devices.

    Attributes:
      params: the tree that runs. hashes: sha256 of what was read, by the name it has in a run's record.
      assumed: what was taken for granted of the weights, in words; "": nothing. image_size: side of its input, pixels.
    """

    params: Tree
    hashes: Mapping[str, str]
    assumed: str
    image_size: int


class Call(NamedTuple):
    """A jitted function with the shapes of what it would be called with."""

    run: Any
    arguments: tuple[Tree, ...]


class Planned(NamedTuple):
    """A problem whose backbone has sizes and places, but no numbers: for what is compiled ahead of time.

    Attributes:
      problem: without samples. frozen: the backbone's leaves as `jax.ShapeDtypeStruct`s on the mesh.
      features: E, as `TaskContext.meaning` has it.
      batch: a method -> the shapes of a training batch.
      calls: (method, trainable, constants) -> by name what else a run computes; of both trees the shapes.
    """

    problem: "Problem"
    frozen: Tree
    features: int
    batch: Callable[[Method], Tree]
    calls: Callable[[Method, Tree, Tree], dict[str, Call]]


class Problem(Protocol):
    """What is asked of a backbone.

    Attributes:
      name: as in the config. sites: where prompts may enter. metrics: the first of each group is its headline.
      sides: the kinds of items that queries are made of, by name what tables call them.
    """

    name: str
    sites: Mapping[str, Site]
    metrics: Sequence[Metric]
    sides: Mapping[str, str]

    def source(self, split: Split, method: Method) -> Source:
        """The split's training examples as host arrays, with room for the method's prompts."""

    def forward(self, batch: Tree, adapter: Adapter, key: Array) -> Any:
        """What the adapted backbone makes of a batch [B, ...] on the devices; key: scalar, for what is random.

        Arrays [B, ...], row by row, or scalars that are the same whatever the rows: `train.microbatch` computes a batch
        in parts, each with the same key.
        """

    def losses(self, outputs: Any, batch: Tree) -> dict[str, Array]:
        """The problem's own losses by name, scalars in nats."""

    def queries(self, frozen: Tree, batch: Tree) -> dict[str, Array]:
        """By side the frozen features [B, E] float32 of a batch: what per-example prompts look at."""

    def evaluator(self, method: Method, frozen: Tree, mesh: Mesh) -> Evaluator:
        """An evaluator without items."""

    def served(self, method: Method, frozen: Tree, mesh: Mesh, memory: Tree, tasks: tuple[str, ...]) -> Any:
        """The model that a memory of these tasks makes of the backbone: what `lpi_jax.load` returns."""

    def examples(self, split: Split) -> int:
        """How many training examples a split has."""

    def items(self, split: Split) -> dict[str, int]:
        """By side how many items a split has."""

    def cut(self, split: Split, reserve: Mapping[str, int]) -> int:
        """How many of a split's texts lose their end behind the positions that a method reserves, by site."""

    def protocol(self, routed: str) -> str:
        """In words what is measured; routed: whether items are `inferred` to belong to a task, `given` or `none`."""
