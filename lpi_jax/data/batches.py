"""Training batches in an order that is a pure function of the seed, on any number of hosts.

Nothing here has a state to save: batch b of epoch e of task t is always the same, so a run goes on from three numbers,
on as many hosts as it then has: each host makes its own rows of the same global batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np

from lpi_jax.data.loader import ahead
from lpi_jax.types import Tree

_REPLAY = 1  # tells the order of replayed examples from that of the task's own


class Source(Protocol):
    """A task's training examples."""

    def __len__(self) -> int: ...

    def length(self, index: int) -> int:
        """How long an example is (tokens, ...); 1 where all are as long."""

    def item(self, index: int, seed: tuple[int, ...]) -> Tree:
        """One example as host arrays; `seed` decides random crops and the like."""

    def collate(self, items: Sequence[Tree], longest: int) -> Tree:
        """Examples as a batch [R, ...]; longest: the length of the longest example of the whole global batch."""


@dataclass(frozen=True)
class Plan:
    """What one task's batches are made of.

    Attributes:
      sources: by task number, of the task and of those that the buffer holds examples of. number: the task's, from 0.
      batch: rows of the global batch. seed: of the run.
      replayed: how many of the rows come from `buffer`, where that holds any.
      buffer: [M, 2] int32 rows (task, example) of earlier tasks.
    """

    sources: Mapping[int, Source]
    number: int
    batch: int
    seed: int
    replayed: int = 0
    buffer: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))

    @property
    def own(self) -> int:
        """Rows of a batch that are the task's own."""
        return self.batch - (self.replayed if len(self.buffer) else 0)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the uneven rest is left out and comes up in other epochs' orders."""
        return steps_per_epoch(len(self.sources[self.number]), self.own)


def order(seed: int, task: int, epoch: int, count: int) -> np.ndarray:
    """[count] int permutation of a task's training examples in one epoch."""
    return np.random.default_rng([seed, task, epoch]).permutation(count)


def replay_order(seed: int, task: int, epoch: int, count: int, needed: int) -> np.ndarray:
    """[needed] int places in a buffer of `count` examples: shuffled again and again, so that all come up as often."""
    rng = np.random.default_rng([seed, task, epoch, _REPLAY])
    return np.concatenate([rng.permutation(count) for _ in range(-(-needed // count))])[:needed]


def steps_per_epoch(examples: int, batch: int) -> int:
    """Whole batches in an epoch."""
    return examples // batch


def dropped_per_epoch(examples: int, batch: int) -> int:
    """How many training examples an epoch leaves out because they do not fill a batch."""
    return examples - batch * steps_per_epoch(examples, batch)


def host_rows(batch: int, host: int, hosts: int) -> slice:
    """The rows of a global batch that host number `host` (from 0) of `hosts` makes: as many for each, in their order.

    Raises:
      ValueError: there is no such host, or the batch does not split evenly.
    """
    if not 0 <= host < hosts or batch % hosts:
        raise ValueError(f"host {host} of {hosts} has no even share of a batch of {batch} rows")
    rows = batch // hosts
    return slice(host * rows, (host + 1) * rows)


def training_batches(plan: Plan, first_step: int, last_step: int, host: int = 0, hosts: int = 1) -> Iterator[Tree]:
    """This host's rows of the batches of steps first_step .. last_step - 1 of a task, prepared ahead.

    The rows of all hosts, one after the other, are the same global batches whatever the number of hosts. The position
    in the data is the step: to go on from there is to begin there. A row's randomness comes from (seed, task, epoch,
    example), of a replayed row from these and the example's own task.

    Args:
      host: this process's number, from 0. hosts: how many share a batch; `plan.batch` is a multiple of it.

    Raises:
      ValueError: see `host_rows`. Whatever a source raises comes up at its batch.
    """
    rows = host_rows(plan.batch, host, hosts)
    chosen_in = lru_cache(maxsize=2)(lambda epoch: _chosen(plan, epoch))  # not once more for every batch

    def make(step: int) -> Tree:
        epoch, position = divmod(step, plan.steps_per_epoch)
        batch = chosen_in(epoch)[position]
        longest = max(plan.sources[int(task)].length(example) for task, example in batch)
        items = [_item(plan, epoch, int(task), int(example)) for task, example in batch[rows]]
        return plan.sources[plan.number].collate(items, longest)

    return ahead(make, range(first_step, last_step))


def _chosen(plan: Plan, epoch: int) -> np.ndarray:
    """[steps, batch, 2] (task, example) of every row of an epoch: the task's own, then the replayed."""
    steps, own = plan.steps_per_epoch, plan.own
    examples = order(plan.seed, plan.number, epoch, len(plan.sources[plan.number]))[: steps * own].reshape(steps, own)
    chosen = np.stack([np.full_like(examples, plan.number), examples], -1)
    if own == plan.batch:
        return chosen
    places = replay_order(plan.seed, plan.number, epoch, len(plan.buffer), steps * plan.replayed)
    return np.concatenate([chosen, plan.buffer[places].reshape(steps, plan.replayed, 2)], 1)


def _item(plan: Plan, epoch: int, task: int, example: int) -> Tree:
    seed = (plan.seed, plan.number, epoch, example)
    return plan.sources[task].item(example, seed if task == plan.number else (*seed, task))
