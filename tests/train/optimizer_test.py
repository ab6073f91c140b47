"""Holds the optimiser, its schedule and the training step of `lpi_jax.train` against the NumPy reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import lpi
from lpi_jax.methods.base import Finished
from lpi_jax.parallel import mesh as meshes
from lpi_jax.train import step as train
from tests.models import towers_reference_test as tiny
from tests.reference import losses as reference_losses
from tests.reference import prompts as reference_prompts
from tests.reference import sgd as reference

SGD = {"momentum": 0.9, "weight_decay": 2e-4}
SHAPES = {"a": (4, 3), "b": (5,)}


def draw(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    return {name: (spread * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def by_package(parameters, gradient_of, epochs, steps_per_epoch, lr, **arguments):
    """The parameters after each step, the rate multiplied in as the training step does it."""
    optimizer = train.make_optimizer("sgd", arguments)
    state, trajectory = optimizer.init(parameters), []
    for number in range(epochs * steps_per_epoch):
        updates, state = optimizer.update(gradient_of(parameters, number), state, parameters)
        rate = train.learning_rate(lr, "cosine", steps_per_epoch, epochs)(number)
        parameters = optax.apply_updates(parameters, jax.tree.map(lambda u, rate=rate: rate * u, updates))
        trajectory.append(parameters)
    return trajectory


@pytest.mark.parametrize("arguments", [SGD, {"momentum": 0.5, "weight_decay": 0.3}, {"momentum": 0, "weight_decay": 0}])
def test_sgd_is_pytorchs_over_steps_and_epochs(arguments):
    def gradient_of(parameters, number):
        return draw(100 + number)

    ours = by_package(draw(0), gradient_of, 3, 4, lr=0.05, **arguments)
    theirs = reference.train(draw(0), gradient_of, 3, 4, lr=0.05, **arguments)
    assert len(ours) == len(theirs) == 12
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_sgd_is_pytorchs_where_the_gradient_follows_the_parameters():
    """A quadratic bowl: a mistake of one step would carry into all that follow."""
    weight = draw(1)

    def gradient_of(parameters, number):
        return {name: (1 + weight[name] ** 2) * parameters[name] - 1 for name in SHAPES}

    ours = by_package(draw(0), gradient_of, 10, 3, lr=0.05, **SGD)
    theirs = reference.train(draw(0), gradient_of, 10, 3, lr=0.05, **SGD)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 5), (2, 3), (10, 7)])
def test_the_cosine_falls_once_an_epoch_and_would_reach_zero_after_the_last(epochs, steps):
    rates = [train.learning_rate(0.05, "cosine", steps, epochs)(n) for n in range(epochs * steps)]
    assert rates == pytest.approx([reference.learning_rate(n // steps, epochs, 0.05) for n in range(epochs * steps)])
    assert rates[0] == 0.05
    assert min(rates) > 0
    assert train.learning_rate(0.05, "cosine", steps, epochs)(epochs * steps) == pytest.approx(0, abs=1e-12)
    assert train.learning_rate(0.05, "constant", steps, epochs)(epochs * steps - 1) == 0.05


def test_an_optimiser_or_schedule_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="'sdg'"):
        train.make_optimizer("sdg", {})
    with pytest.raises(UserError, match="momentun"):
        train.make_optimizer("sgd", {"momentun": 0.9})
    with pytest.raises(UserError, match="'cosinus'"):
        train.learning_rate(0.05, "cosinus", 1, 1)


def test_an_optax_optimiser_built_for_rate_one_gives_updates_that_scale_with_the_rate():
    parameters, gradient = draw(0), draw(1)
    ours, theirs = train.make_optimizer("adam", {"b1": 0.8}), optax.adam(0.05, b1=0.8)
    update, _ = ours.update(gradient, ours.init(parameters), parameters)
    expected, _ = theirs.update(gradient, theirs.init(parameters), parameters)
    chex.assert_trees_all_close(jax.tree.map(lambda u: 0.05 * u, update), expected, rtol=1e-5)


def test_a_training_steps_losses_gradient_and_update_are_the_references():
    """The whole step on a tiny CLIP: two steps of a second task, against the reference's towers, losses and SGD."""
    mean, std, epochs = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 2
    options = lpi.LPI(tiny.CONFIG.vision.width, tiny.CONFIG.text.width, layers=3, depth=2, length=tiny.TOKENS, rank=2)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(lambda: lpi.init(options, jax.random.key(0)))
    first, trainable = (
        jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(np.float32), shapes) for _ in range(2)
    )
    similarity = np.array([[1.0, 0.2], [0.2, 1.0]], np.float32)
    size = tiny.CONFIG.image_size
    pictures = rng.integers(0, 256, size=(tiny.BATCH, size, size, 3), dtype=np.uint8)
    pixels = (pictures / 255.0 - np.array(mean)) / np.array(std)
    backbone = {**tiny.random_params(), "logit_scale": np.float32(np.log(4.0))}

    def by_reference(factors):
        pairs = [reference_prompts.expand(first["factors"]), reference_prompts.expand(factors)]
        visual, textual = (np.stack(modality) for modality in zip(*pairs, strict=True))
        weights = tiny.hugging_face_weights()
        return {
            "retrieval": reference_losses.retrieval_loss(
                tiny.towers.encode_image(weights, pixels, tiny.CONFIG.vision.heads, visual[1], depth=2),
                tiny.towers.encode_text(weights, tiny.token_ids(), tiny.CONFIG.text.heads, textual[1], depth=2),
                4.0,
            ),
            "align": 0.1 * reference_losses.alignment_loss(visual[1], textual[1], "cosine"),
            "task": 0.05 * sum(reference_losses.task_loss(m, similarity, "intended") for m in (visual, textual)),
        }

    method, optimizer, mesh = lpi.lpi(options), train.make_optimizer("sgd", SGD), meshes.make_mesh(1)
    context = method.context(Finished(jax.tree.map(lambda leaf: leaf[None], first), similarity), 2)
    step = train.make_step(tiny.CLIP(tiny.CONFIG), method, optimizer, mesh, mean, std)
    state = train.start(jax.tree.map(jnp.asarray, trainable), optimizer, mesh)
    factors, velocity = trainable["factors"], None
    for number in range(epochs):
        rate = train.learning_rate(0.05, "cosine", 1, epochs)(number)
        state, terms = step(state, backbone, context, pictures, tiny.token_ids(), jnp.float32(rate))
        expected = by_reference(factors)
        chex.assert_trees_all_close({name: terms[name] for name in expected}, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(terms["loss"], sum(expected.values()), rtol=1e-4)

        # The gradient for which the reference's SGD makes this update, against a finite difference along a random way.
        new = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.trainable["factors"])
        gradient = {}
        for name, old in factors.items():
            moved = (old - new[name]) / reference.learning_rate(number, epochs, 0.05)
            gradient[name] = moved - SGD["weight_decay"] * old - (0.9 * velocity[name] if velocity else 0)
        ways = {name: rng.normal(size=old.shape) for name, old in factors.items()}
        ahead, behind = (
            sum(by_reference({name: old + h * ways[name] for name, old in factors.items()}).values())
            for h in (1e-5, -1e-5)
        )
        slope = sum((gradient[name] * ways[name]).sum() for name in factors)
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=2e-3)
        _, velocity = reference.step(factors, gradient, velocity, rate, **SGD)
        factors = new
    assert int(state.step) == epochs
