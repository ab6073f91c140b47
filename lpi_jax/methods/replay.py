"""Experience replay over sequential fine-tuning: a few earlier examples come up again in every batch.

Chaudhry et al. 2019, On Tiny Episodic Memories in Continual Learning, arXiv 1902.10486. A task trains on the mean loss
of batches of which `replayed` rows are drawn from a buffer M of earlier tasks and the others from the task itself
(algorithm 1). M holds a fair share of every task so far, as the paper's ring buffer does of every class (section 4).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.methods import finetune, routing
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.options import TRAINING, option
from lpi_jax.types import Tree

_BUFFER = 1 << 31  # stands where the orders of batches have the epoch (`lpi_jax.data.batches`)


@dataclass(frozen=True)
class Options(finetune.Options):
    """What is replayed, beside what is trained."""

    buffer: int = option(200, "examples of all earlier tasks together that are kept", least=1)
    replayed: int = option(8, "rows of a batch that come from there, from the second task on", least=1, reader=TRAINING)


def shared_out(buffer: np.ndarray, number: int, examples: int, most: int, seed: int) -> np.ndarray:
    """The buffer with one more task: shares as equal as can be, the larger ones those of the earliest tasks.

    A task's examples have an order that (seed, its number) decide, and a share is the beginning of it: what is given up
    never comes back, so that the buffer after any task follows from these numbers alone.

    Args:
      buffer: [M, 2] int32 rows (task, example), by task. number: of the new task. examples: how many it has.
      most: rows of the new buffer.

    Returns:
      [at most `most`, 2] int32 rows, by task.
    """
    fresh = np.random.default_rng([seed, number, _BUFFER]).permutation(examples)[:most]
    rows = np.concatenate([buffer, np.stack([np.full_like(fresh, number), fresh], 1)]).astype(np.int32)
    place = np.concatenate([np.arange(count) for count in np.bincount(rows[:, 0])])  # among those of its task
    kept = np.lexsort((rows[:, 0], place))[:most]  # the first of every task, then the second, ...
    return rows[np.sort(kept)]


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """Fine-tuning whose memory also holds `buffer`, [M, 2] int32 rows (task, example)."""
    if options.replayed > options.buffer:  # an example would come up twice in a batch
        raise UserError(
            f"config.method.replayed is {options.replayed}, expected at most config.method.buffer, {options.buffer}"
        )
    tuned = finetune.build(options, sites, router)

    def replay(memory: Tree) -> np.ndarray:
        return memory["buffer"] if memory else np.zeros((0, 2), np.int32)

    def finish(memory: Tree, trainable: Tree, task: TaskContext) -> Tree:
        rows = shared_out(replay(memory), task.number, task.examples, options.buffer, task.seed)
        return {**tuned.finish(memory, trainable, task), "buffer": rows}

    return tuned._replace(name="replay", finish=finish, replay=replay, replayed=options.replayed)
