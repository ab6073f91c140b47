"""The jitted step, and the steps of one task. It knows no model: problem and method are functions on pytrees."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from lpi_jax.methods.base import Method
from lpi_jax.parallel import mesh as meshes
from lpi_jax.train.ahead import Ahead
from lpi_jax.train.parts import in_parts
from lpi_jax.types import Adapter, Tree


class TrainState(NamedTuple):
    """What training one task changes: the method's tree, the optimiser's, and the steps done (int32 scalar)."""

    trainable: Tree
    opt_state: Tree
    step: Array


class Step(NamedTuple):
    """One step as one object.

    Attributes:
      run: compiled (state, frozen, constants, batch, key, lr) -> (state, loss terms by name). `state` is donated; the
        frozen tree is an argument, neither constant nor differentiated; the batch is split over the mesh, and the
        losses see the whole of it. key: of the task; the step's own is made from it and the number of the step.
      optimizer: makes the state before a task. mesh: the devices.
    """

    run: Ahead
    optimizer: optax.GradientTransformation
    mesh: Mesh

    def start(self, trainable: Tree) -> TrainState:
        """The state before the first step of a task: a fresh optimiser, step 0, on every device."""
        state = TrainState(trainable, self.optimizer.init(trainable), jnp.zeros((), jnp.int32))
        return meshes.put_replicated(state, self.mesh)


def make_step(
    problem: Any, method: Method, optimizer: optax.GradientTransformation, mesh: Mesh, microbatch: int = 0
) -> Step:
    """The one step of a run: queries if wanted -> adapt -> forward -> losses -> update of the trainable tree alone.

    Args:
      problem: has `forward`, `losses` and `queries` (`lpi_jax.problems.base.Problem`).
      microbatch: rows that are in the backbone at once (`parts.in_parts`); 0: all.
    """

    def step(
        state: TrainState, frozen: Tree, constants: Tree, batch: Tree, key: Array, lr: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(key, state.step)
        queries = _queries(problem, method, frozen, batch, microbatch, mesh)

        def loss(trainable: Tree) -> tuple[Array, dict[str, Array]]:
            def forward(adapter: Adapter) -> Any:
                return _forward(problem, batch, adapter, key, microbatch, mesh)

            adapter, aux = method.adapt(trainable, constants, frozen, queries)
            outputs = forward(adapter)
            asked = problem.losses(outputs, batch)
            terms = asked | method.losses(trainable, constants, aux, outputs, batch, forward)
            return sum(terms.values(), jnp.zeros(())), terms

        (total, terms), gradients = jax.value_and_grad(loss, has_aux=True)(state.trainable)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trainable)
        updates = jax.tree.map(lambda u: lr * u, updates)
        trainable = optax.apply_updates(state.trainable, updates)
        return TrainState(trainable, opt_state, state.step + 1), {"loss": total, **terms}

    whole, rows = meshes.replicated(mesh), meshes.split(mesh)
    shardings = (whole, None, whole, rows, whole, whole)  # the backbone lies as it was placed
    jitted = jax.jit(step, donate_argnums=0, in_shardings=shardings, out_shardings=whole)
    at_once = make_step(problem, method, optimizer, mesh).run if microbatch else None
    return Step(Ahead(jitted, at_once), optimizer, mesh)


def _queries(problem: Any, method: Method, frozen: Tree, batch: Tree, size: int, mesh: Mesh) -> dict[str, Array]:
    if not method.wants_queries:
        return {}
    return in_parts(lambda rows: problem.queries(frozen, rows), batch, size, mesh)


def _forward(problem: Any, batch: Tree, adapter: Adapter, key: Array, size: int, mesh: Mesh) -> Any:
    """`problem.forward` of `size` rows at a time, each with its own prompts where every row has some."""
    prompts = {site: leaf for site, leaf in adapter.prompts.items() if leaf.ndim == 4}
    present = {site: leaf for site, leaf in (adapter.present or {}).items() if leaf.ndim == 2}

    def part(rows: tuple[Tree, Tree, Tree]) -> Any:
        batch, prompts, present = rows
        own = adapter._replace(prompts={**adapter.prompts, **prompts})
        own = own._replace(present={**adapter.present, **present}) if adapter.present is not None else own
        return problem.forward(batch, own, key)

    return in_parts(part, (batch, prompts, present), size, mesh)


def make_gradient(
    problem: Any, method: Method, mesh: Mesh, microbatch: int = 0
) -> Callable[[Tree, Tree, Tree, Tree, Array], Tree]:
    """Jitted (trainable, constants, frozen, batch, key) -> the gradient of the problem's own losses, like `trainable`.

    Args:
      problem, microbatch: as for `make_step`; the batch is split over the mesh likewise, all else is on every device.
    """

    def loss(trainable: Tree, constants: Tree, frozen: Tree, batch: Tree, key: Array) -> Array:
        queries = _queries(problem, method, frozen, batch, microbatch, mesh)
        adapter, _ = method.adapt(trainable, constants, frozen, queries)
        outputs = _forward(problem, batch, adapter, key, microbatch, mesh)
        return sum(problem.losses(outputs, batch).values(), jnp.zeros(()))

    whole, rows = meshes.replicated(mesh), meshes.split(mesh)
    return jax.jit(jax.grad(loss), in_shardings=(whole, whole, None, rows, whole), out_shardings=whole)


class Task(NamedTuple):
    """What the steps of one task need beside the state.

    Attributes:
      frozen: the backbone. constants: the method's. key: of the task. rate: step number -> learning rate.
    """

    frozen: Tree
    constants: Tree
    key: Array
    rate: Callable[[int], float]


def fit(
    state: TrainState,
    step: Step,
    task: Task,
    batches: Iterable[Tree],
    after_step: Callable[[TrainState, int, dict[str, Array], float], None],
) -> TrainState:
    """Trains a task on `batches`, which begin where `state` stands.

    Order inside the loop: next batch, step, `after_step` (log, checkpoint).

    Args:
      batches: this process's rows of each global batch, processes in the order of their devices in the mesh.
      after_step: called with the state, the number of steps done, the loss terms, which are still on the device
        (reading them waits for it), and the seconds this host stood waiting for the batch. The device may have been
        busy with earlier steps meanwhile.
    """
    done, batches = int(state.step), iter(batches)
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        waited = time.perf_counter() - began
        if batch is None:
            return state
        rows = meshes.put_rows(batch, step.mesh)
        state, terms = step.run(state, task.frozen, task.constants, rows, task.key, jnp.float32(task.rate(done)))
        done += 1
        after_step(state, done, terms, waited)
