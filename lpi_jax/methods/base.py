"""The protocol between the continual loop and a method: pure functions on pytrees, and a few facts.

The loop, the step and the evaluation never look inside a method's trees. To add a method, write one file with its
`Options` and a `build` that makes a `Method`, and name it in `lpi_jax.methods.registry`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.parallel.placement import whole
from lpi_jax.types import Adapter, Tree

LANGUAGE = "language"  # the site of a language model
PLAIN = -1  # the adapter id of the backbone without any method
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Site(NamedTuple):
    """Where prompts may enter a backbone: a stack of `layers` blocks of `width`, with `room` positions for prompts.

    words: how many rows of its vocabulary, from the first, are of words; 0: all.
    """

    layers: int
    width: int
    room: int
    words: int = 0


class TaskContext(NamedTuple):
    """What a method may know of a task.

    Attributes:
      number: from 0.
      names: of all tasks so far, this one last.
      meaning: [E] float32, L2-normalised features of what the task is about.
      examples: how many training examples it has.
      seed: of the run.
      features: () -> by side the frozen queries [N, E] float32 of its training items; computed when called.
      batches: (count) -> its first `count` training batches, on the devices, without replayed examples.
      gradient: (trainable, constants, batch) -> of the problem's own loss under the method, a tree like `trainable`, on
        every device; compiled once a run.
      last: whether no task of the stream follows.
    """

    number: int
    names: tuple[str, ...]
    meaning: np.ndarray
    examples: int
    seed: int
    features: Callable[[], Mapping[str, np.ndarray]]
    batches: Callable[[int], Iterator[Tree]]
    gradient: Callable[[Tree, Tree, Tree], Tree]
    last: bool = False


class Assigned(NamedTuple):
    """Which adapter each of N items gets.

    Attributes:
      ids: [N] int32, adapter ids; -1 is the plain backbone.
      compared: [N] int32, with how many tasks the item has been compared; nearest: [N] float32, the best distance.
        What a rule needs that compares an item with every task only once.
      posterior: [N, T + 1] float32, p(task | item), the last column being none of the tasks.
      chosen: [N, K] int32, of a method whose adapters have parts of several tasks: which, the best last, -1 for none;
        None: of that alone whose number the adapter id is.
      scores: [N, T] float32, by which it chose; None: it tells none.
    """

    ids: np.ndarray
    compared: np.ndarray
    nearest: np.ndarray
    posterior: np.ndarray
    chosen: np.ndarray | None = None
    scores: np.ndarray | None = None

    @property
    def best(self) -> np.ndarray:
        """[N] int32, the one task that an item seems to belong to most; -1: none."""
        return self.ids if self.chosen is None else self.chosen[:, -1]

    @classmethod
    def nowhere(cls, count: int) -> "Assigned":
        """Items that have not been compared with any task yet."""
        ids = np.full(count, PLAIN, np.int32)
        return cls(ids, np.zeros(count, np.int32), np.full(count, np.inf, np.float32), one_hot(ids, 0))

    @classmethod
    def of_posterior(cls, posterior: np.ndarray) -> "Assigned":
        """Every item gets the task that is most likely. posterior: [N, T + 1] float32."""
        best, tasks = posterior.argmax(1), posterior.shape[1] - 1
        nowhere = cls.nowhere(len(posterior))
        return nowhere._replace(ids=np.where(best == tasks, PLAIN, best).astype(np.int32), posterior=posterior)


def one_hot(ids: np.ndarray, tasks: int) -> np.ndarray:
    """[N, T + 1] float32: all of an item belongs to its adapter id, -1 being none of the tasks; ids: [N] int32."""
    return (np.where(ids == PLAIN, tasks, ids)[:, None] == np.arange(tasks + 1)).astype(np.float32)


class Options:
    """What the options of every method say of it; a method's own are a frozen dataclass that inherits this.

    Attributes:
      trains: whether tasks are trained at all. routes: whether items are sent to the task they seem to belong to.
      own_rule: whether they are sent by a rule of the method's own, not by that of section `routing`.
      needs: the sites that the backbone must have.
      keeps_tasks: whether every finished task's own tree stays in the memory, so that an earlier stage can be shown.
    """

    trains: ClassVar[bool] = True
    routes: ClassVar[bool] = False
    own_rule: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    keeps_tasks: ClassVar[bool] = False


Queries = Mapping[str, Array]
Forward = Callable[[Adapter], Any]


def stage(memory: Tree) -> int:
    """The number of the stage that a sequential method's memory holds, its adapter id; -1 before the first task."""
    return int(memory["stage"]) if memory else PLAIN


def to_newest(memory: Tree, queries: Mapping[str, np.ndarray], known: Mapping[str, Assigned]) -> dict[str, Assigned]:
    """Every item gets the adapter of the newest stage: how sequential methods assign. queries: by side [N, E]."""
    newest = stage(memory)
    return {
        side: Assigned.nowhere(len(features))._replace(ids=np.full(len(features), newest, np.int32))
        for side, features in queries.items()
    }


class Method(NamedTuple):
    """A continual method as pure functions. `memory` is {} before the first task, and the method's own tree after it.

    Attributes:
      name: as in the config. options: what it was built from.
      begin: (key, memory, frozen, task) -> (trainable, constants): what is trained, and what its losses compare it
        with, in shapes fixed by a capacity, so that one compiled step serves every task. {} where nothing is trained.
      adapt: (trainable, constants, frozen, queries) -> (Adapter, aux): how it enters the backbone, the same function in
        training and in serving; queries: {} unless `wants_queries`, else by side [B, E] float32. aux is for `losses`.
      finish: (memory, trainable, task) -> the memory with one more task. Arrays of host.
      view: (memory, id) -> (trainable, constants) of an adapter id, for `adapt`.
      losses: (trainable, constants, aux, outputs, batch, forward) -> what the method adds to the problem's losses:
        weighted scalars by name. forward: an adapter -> the outputs that the same batch has under it.
      assign: (memory, queries, known) -> by side the adapter ids of items from their queries [N, E]; known: what it
        said of the same items under an earlier memory, or nothing.
      reserve: by site, how many input positions are kept for prompts.
      injection: how prompts of deeper layers meet what is there, add | replace.
      wants_queries: whether `adapt` looks at queries.
      replay: (memory) -> [M, 2] int32 rows (task, example) that come up again in later tasks' batches, as `replayed` of
        each batch's rows.
      fits: (frozen, arrays or their shapes) -> raises UserError where the backbone lacks what the method changes.
      check: (names of a stream's tasks) -> None; raises UserError where the method cannot learn them.
      plain: a task's tree -> one that leaves the backbone as it is; None where there is none.
      facts: (memory, names of its tasks) -> what the results tell of the method itself, JSON.
    """

    name: str
    options: Options
    begin: Callable[[Array, Tree, Tree, TaskContext], tuple[Tree, Tree]]
    adapt: Callable[[Tree, Tree, Tree, Queries], tuple[Adapter, Any]]
    finish: Callable[[Tree, Tree, TaskContext], Tree]
    view: Callable[[Tree, int], tuple[Tree, Tree]]
    losses: Callable[[Tree, Tree, Any, Any, Tree, Forward], dict[str, Array]] = lambda *_: {}
    assign: Callable[[Tree, Mapping[str, np.ndarray], Mapping[str, Assigned]], dict[str, Assigned]] = to_newest
    reserve: Mapping[str, int] = NOTHING
    injection: str = "add"
    wants_queries: bool = False
    replay: Callable[[Tree], np.ndarray] = lambda memory: np.zeros((0, 2), np.int32)
    replayed: int = 0
    fits: Callable[[Tree], Any] = lambda frozen: None
    check: Callable[[Sequence[str]], None] = lambda names: None
    plain: Callable[[Tree], Tree] | None = None
    facts: Callable[[Tree, tuple[str, ...]], dict[str, Any]] = lambda memory, names: {}


def kept(tree: Tree) -> Tree:
    """Host copies of a tree's arrays, for a memory."""
    return jax.tree.map(whole, tree)


def apart(tree: Tree) -> Tree:
    """Copies on the device: constants must not share buffers with a trainable tree, which the step donates."""
    return jax.tree.map(jnp.array, tree)
