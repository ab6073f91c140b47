"""Elastic weight consolidation by hand: the Fisher information, its sum over tasks, the penalty, and where it leads."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.methods import ewc
from lpi_jax.parallel import mesh as meshes
from lpi_jax.train import step
from tests.methods.finetune_test import task

FROZEN = {"w": np.array([1.0, -2.0], np.float32)}


class Line:
    """Half the squared error of y = w x on a batch {"x": [B, 2], "y": [B]}, a mean."""

    def forward(self, batch, adapter, key):
        return batch["x"] @ adapter.params["w"]

    def losses(self, outputs, batch):
        return {"error": jnp.mean((outputs - batch["y"]) ** 2) / 2}


class Bowl:
    """Half the squared distance of w from a batch's one row."""

    def forward(self, batch, adapter, key):
        return adapter.params["w"]

    def losses(self, outputs, batch):
        return {"distance": jnp.sum((outputs - batch["to"][0]) ** 2) / 2}


def method(**options):
    return ewc.build(ewc.Options(**options), {}, None)


def fitted_task(problem, its_method, batches, number=0):
    """The task as the loop tells the method of it."""
    mesh = meshes.make_mesh(1)
    gradient = step.make_gradient(problem, its_method, mesh)
    return task(
        number,
        batches=lambda count: iter(batches[:count]),
        gradient=lambda trainable, constants, batch: gradient(trainable, constants, FROZEN, batch, jax.random.key(0)),
    )


def test_the_fisher_information_is_the_mean_over_batches_of_squared_gradients():
    # Gradients (w x - y) x at w = (1, -2): x = (1, 1), y = 0: -1 (1, 1); x = (3, 1), y = -1: 2 (3, 1).
    batches = [
        {"x": np.array([[1, 1]], np.float32), "y": np.array([0], np.float32)},
        {"x": np.array([[3, 1]], np.float32), "y": np.array([-1], np.float32)},
        {"x": np.array([[9, 9]], np.float32), "y": np.array([9], np.float32)},
    ]
    its_method = method(fisher_batches=2)
    memory = its_method.finish({}, FROZEN, fitted_task(Line(), its_method, batches))
    np.testing.assert_allclose(memory["fisher"]["w"], [(1 + 36) / 2, (1 + 4) / 2])
    np.testing.assert_array_equal(memory["trained"]["w"], FROZEN["w"])
    # A second task adds its own, and takes the place of the weights.
    moved = {"w": np.array([0.0, 0.0], np.float32)}
    memory = its_method.finish(memory, moved, fitted_task(Line(), its_method, batches[:1] * 2, number=1))
    np.testing.assert_allclose(memory["fisher"]["w"], [18.5, 2.5])  # with y = 0 nothing is wrong at w = 0
    np.testing.assert_array_equal(memory["trained"]["w"], moved["w"])
    assert memory["stage"] == 1
    assert memory["stage"].dtype == np.int32


def test_the_penalty_is_half_the_strength_times_the_weighted_squared_distance():
    constants = {"fisher": {"w": np.array([2.0, 0.5])}, "anchor": {"w": np.array([1.0, 1.0])}}
    trainable = {"w": jnp.array([4.0, -1.0])}
    found = method(strength=10.0).losses(trainable, constants, None, None, None, None)
    assert {name: float(value) for name, value in found.items()} == {"ewc": 10 / 2 * (2 * 9 + 0.5 * 4)}


def test_before_the_first_task_it_is_zero_and_of_the_shapes_of_later_ones():
    its_method = method(strength=10.0)
    trainable, constants = its_method.begin(jax.random.key(0), {}, FROZEN, task())
    assert float(its_method.losses(trainable, constants)["ewc"]) == 0
    memory = {"stage": np.int32(0), "trained": FROZEN, "fisher": FROZEN}
    later = its_method.begin(jax.random.key(0), memory, FROZEN, task(1))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (trainable, constants)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), later
    )
    np.testing.assert_array_equal(later[1]["anchor"]["w"], FROZEN["w"])


@pytest.mark.parametrize("strength", [0.0, 3.0, 1e7])
def test_training_ends_between_the_old_weights_and_the_new_ones_as_the_strength_says(strength):
    """The minimum of (w - b)² / 2 + s F (w - w*)² / 2 is (b + s F w*) / (1 + s F): b without, w* with a huge s."""
    its_method, mesh = method(strength=strength), meshes.make_mesh(1)
    fisher, to = np.array([1.0, 0.5], np.float32), np.array([[5.0, 5.0]], np.float32)
    memory = {"stage": np.int32(0), "trained": FROZEN, "fisher": {"w": fisher}}
    trainable, constants = its_method.begin(jax.random.key(0), memory, FROZEN, task(1))
    update = step.make_step(Bowl(), its_method, optax.sgd(1.0), mesh)
    state, key = update.start(trainable), jax.random.key(0)
    rate = jnp.float32(1 / (1 + strength))  # the steepest direction is done in one step
    for _ in range(60):
        state, terms = update.run(state, FROZEN, constants, {"to": to}, key, rate)
    assert set(terms) == {"loss", "distance"} | ({"ewc"} if strength else set())
    expected = (to[0] + strength * fisher * FROZEN["w"]) / (1 + strength * fisher)
    np.testing.assert_allclose(state.trainable["w"], expected, rtol=1e-5, atol=1e-5)
