"""Which task does an unseen item belong to? By a rule over frozen features, images and texts apart.

Plain NumPy on the host: the same on any number of devices, and small beside the towers. A memory of a method that
routes has, beside `trained` and `descriptions` [T, E], the state of its rule: `SIDE_NAME` for every side of the
queries.
"""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from lpi_jax.methods import kmeans, lda, neighbours
from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import Assigned, TaskContext
from lpi_jax.methods.routing_options import Options
from lpi_jax.parallel import processes
from lpi_jax.types import Tree

# Each with `learnt` (a state and a task's features -> the state with one more task), and with `posterior` (items -> how
# likely their tasks are); k-means, which knows no probabilities, with `assigned` (items -> tasks).
RULES: dict[str, ModuleType] = {"kmeans_l1": kmeans, "lda": lda, "knn": neighbours}
ROWS = ("trained", "descriptions")  # what a memory holds beside the rule's state, a row a task


def remembered(memory: Tree, trained: Tree, task: TaskContext, options: Options) -> Tree:
    """The memory with one more task: its trained tree, what the rule keeps of its items, and what it is about.

    Args:
      memory: {} or `trained` (leaves [T, ...]), `descriptions` and the rule's state. trained: the task's tree.
    """

    def learn(side: str, features: np.ndarray) -> Tree:
        known = state(memory, side)
        if options.rule == "kmeans_l1":
            return kmeans.learnt(known, features, options.centres, task.seed)
        return RULES[options.rule].learnt(known, features, options)

    # The first process's: another processor may round otherwise.
    states = processes.copied({side: learn(side, rows) for side, rows in task.features().items()})
    rows = {name: memory[name] for name in ROWS} if memory else {}
    grown = memories.appended(rows, {"trained": trained, "descriptions": task.meaning})
    return grown | {f"{side}_{name}": part for side, parts in states.items() for name, part in parts.items()}


def assign(
    memory: Tree, queries: Mapping[str, np.ndarray], known: Mapping[str, Assigned], options: Options
) -> dict[str, Assigned]:
    """The task of every item, sides apart.

    Args:
      memory: from `remembered`. queries: by side [N, E] float32, made without prompts.
      known: what this function said of the same items before, under a memory with fewer tasks.
    """
    if options.rule == "kmeans_l1":
        return {
            side: kmeans.assigned(state(memory, side), features, known.get(side)) for side, features in queries.items()
        }
    rule = RULES[options.rule]
    # Of the first process: another processor may round otherwise, and all must encode the same items.
    return {
        side: Assigned.of_posterior(
            processes.copied(rule.posterior(state(memory, side), features, options))
            if memory
            else np.ones((len(features), 1), np.float32)
        )
        for side, features in queries.items()
    }


def state(memory: Tree, side: str) -> Tree:
    """What the rule keeps of a side's items; {} before the first task."""
    return {name.removeprefix(f"{side}_"): part for name, part in memory.items() if name.startswith(f"{side}_")}
