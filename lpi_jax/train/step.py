"""One task: the optimiser, the jitted step, and the epochs. Only the method's tree is differentiated."""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from lpi_jax.data.loader import Batch
from lpi_jax.data.transforms import normalise
from lpi_jax.errors import UserError, reason
from lpi_jax.methods.base import Features, Method
from lpi_jax.models.clip import CLIP
from lpi_jax.parallel import mesh as meshes
from lpi_jax.types import Tree


class TrainState(NamedTuple):
    """What training one task changes: the method's tree, the optimiser's, and the steps done (int32 scalar)."""

    trainable: Tree
    opt_state: Tree
    step: Array


Step = Callable[[TrainState, Tree, Tree, Array, Array, Array], tuple[TrainState, dict[str, Array]]]


def make_optimizer(name: str, arguments: Mapping[str, Any]) -> optax.GradientTransformation:
    """An optimiser whose updates are still to be multiplied by the learning rate (the step does it).

    `sgd` is PyTorch's: weight decay is added to the gradient before the momentum. Any other name is optax's own, built
    with a learning rate of 1 and `arguments`.

    Raises:
      UserError: no such optimiser, or it does not take these arguments.
    """
    build = _pytorch_sgd if name == "sgd" else getattr(optax, name, None)
    if not callable(build):
        raise UserError(f"config.train.optimizer is {name!r}, expected 'sgd' or the name of an optax optimiser")
    try:
        optimizer = build(**({} if name == "sgd" else {"learning_rate": 1.0}), **arguments)
        if not isinstance(optimizer, optax.GradientTransformation):
            raise UserError(f"config.train.optimizer is {name!r}, which is not an optimiser of optax")
        # Most optimisers look at their arguments only when they are used: tried here, on one number, without computing.
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), jnp.zeros(()))
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(
            f"config.train.optimizer_args do not fit optimiser {name!r}: {reason(error)}{_remedy(build, arguments)}"
        ) from error
    return optimizer


def _remedy(build: Callable, arguments: Mapping[str, Any]) -> str:
    """What to give instead of arguments that the optimiser does not have; "" where it has them all."""
    known = [name for name in inspect.signature(build).parameters if name != "learning_rate"]
    left = {name: value for name, value in arguments.items() if name in known}
    if len(left) == len(arguments):
        return ""
    return f'; it takes {", ".join(known)}: use --config.train.optimizer_args="{left}"'


def _pytorch_sgd(momentum: float = 0.0, weight_decay: float = 0.0) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale(-1.0))


def learning_rate(peak: float, schedule: str, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
    """Step number -> learning rate: `cosine` falls per epoch e, peak * (1 + cos(pi e / epochs)) / 2; or `constant`."""
    if schedule == "constant":
        return lambda step: peak
    if schedule == "cosine":
        return lambda step: peak * 0.5 * (1.0 + float(np.cos(np.pi * (step // steps_per_epoch) / epochs)))
    raise UserError(f"config.train.schedule is {schedule!r}, expected 'cosine' or 'constant'")


def start(trainable: Tree, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state before the first step of a task: a fresh optimiser, step 0, on every device."""
    state = TrainState(trainable, optimizer.init(trainable), jnp.zeros((), jnp.int32))
    return meshes.put_replicated(state, mesh)


def make_step(
    model: CLIP,
    method: Method,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Step:
    """The one jitted step of a run.

    (state, backbone, context, images [B, S, S, 3] uint8, token_ids [B, N] int32, lr float32 scalar)
    -> (state, loss terms). `state` is donated; the backbone is an argument, neither constant nor differentiated; the
    batch is split over the mesh, and the losses see the whole of it.
    """

    def step(
        state: TrainState, backbone: Tree, context: Tree, images: Array, token_ids: Array, lr: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        pixels = normalise(images, mean, std)

        def loss(trainable: Tree) -> tuple[Array, dict[str, Array]]:
            prompts = method.prompts(trainable)
            features = Features(
                model.apply({"params": backbone}, pixels, prompts.visual, method="encode_image"),
                model.apply({"params": backbone}, token_ids, prompts.textual, method="encode_text"),
                jnp.exp(backbone["logit_scale"]),
            )
            terms = method.losses(trainable, context, features)
            return sum(terms.values(), jnp.zeros(())), terms

        (total, terms), gradients = jax.value_and_grad(loss, has_aux=True)(state.trainable)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.trainable)
        updates = jax.tree.map(lambda u: lr * u, updates)
        trainable = optax.apply_updates(state.trainable, updates)
        return TrainState(trainable, opt_state, state.step + 1), {"loss": total, **terms}

    whole, rows = meshes.replicated(mesh), meshes.split(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(whole, whole, whole, rows, rows, whole), out_shardings=whole)


def fit(
    state: TrainState,
    step: Step,
    backbone: Tree,
    context: Tree,
    batches: Iterable[Batch],
    rate: Callable[[int], float],
    mesh: Mesh,
    after_step: Callable[[TrainState, int, dict[str, Array], float], None],
) -> TrainState:
    """Trains a task on `batches`, which begin where `state` stands.

    Order inside the loop: next batch, step, `after_step` (log, checkpoint).

    Args:
      batches: this process's rows of each global batch, processes in the order of their devices in the mesh.
      rate: step number -> learning rate.
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
        images, token_ids = meshes.put_rows(tuple(batch), mesh)
        state, terms = step(state, backbone, context, images, token_ids, jnp.float32(rate(done)))
        done += 1
        after_step(state, done, terms, waited)
