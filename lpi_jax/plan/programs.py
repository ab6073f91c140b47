"""The programs of a run in shapes: its training step, and what its evaluation computes."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lpi_jax.config.table import OPTIONS
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import check_train_batches, method_of
from lpi_jax.methods.base import Method, TaskContext
from lpi_jax.options import chosen
from lpi_jax.problems import registry as problems
from lpi_jax.problems.base import Call, Planned
from lpi_jax.train import optimizer, step
from lpi_jax.types import Tree

TRAINING = "training step"


def programs(config: ConfigDict, mesh: Mesh) -> dict[str, Call]:
    """By name what a run of this configuration computes in its first task, on the devices of a mesh.

    Nothing of a backbone is read but its sizes, nothing of the data at all.

    Raises:
      UserError: as a run would, where configuration, backbone and devices do not fit together.
    """
    config = config.copy_and_resolve_references()
    config.method.similarity = OPTIONS["method.similarity"].default  # a table is of the tasks' names
    check_train_batches(config, mesh)
    module = problems.module(config.problem.name)
    if not hasattr(module, "planned"):
        raise UserError(
            f"config.problem.name is {config.problem.name!r}, which does not say what it computes in shapes"
        )
    planned = module.planned(config, mesh)
    method = method_of(config, planned.problem.sites)
    method.fits(planned.frozen)
    trainable, constants = begun(method, planned, config.train.batch, config.seed)
    found = {}
    if method.options.trains:
        found[TRAINING] = _training(config, mesh, planned, method, (trainable, constants))
    return {**found, **planned.calls(method, trainable, constants)}


def begun(method: Method, planned: Planned, examples: int, seed: int) -> tuple[Tree, Tree]:
    """The shapes of what a first task begins with: the method's own trees."""

    def absent(*_: Any) -> Any:
        raise UserError(f"method {method.name} looks at training data before it trains, which a plan does not have")

    meaning = np.eye(1, planned.features, dtype=np.float32)[0]
    task = TaskContext(0, ("task",), meaning, examples, seed, absent, absent, absent)
    # Zeros that take no room: methods look at shapes and copy a few rows.
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), planned.frozen)
    trees = method.begin(jax.random.key(seed), {}, empty, task)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), trees)


def _training(config: ConfigDict, mesh: Mesh, planned: Planned, method: Method, trees: tuple[Tree, Tree]) -> Call:
    """The step of `train.step.make_step` and what it is given."""
    trainable, constants = trees
    chain = optimizer.make_optimizer(chosen(optimizer.Options, config.train))
    made = step.make_step(planned.problem, method, chain, mesh, config.train.microbatch)
    state = step.TrainState(trainable, jax.eval_shape(chain.init, trainable), jax.ShapeDtypeStruct((), np.int32))
    key, rate = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), np.float32)
    return Call(made.run, (state, planned.frozen, constants, planned.batch(method), key, rate))
