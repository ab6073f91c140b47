"""Holds jax.grad of every loss and form, and of the expansion, against finite differences of the NumPy reference."""

import chex
import jax
import numpy as np
import pytest

from lpi_jax import losses
from lpi_jax.methods import lpi
from tests.reference import gradients
from tests.reference import losses as reference_losses
from tests.reference import prompts as reference_prompts


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def unit_rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def check(package, reference, point, step=1e-6):
    """The value and the gradient of `package` at `point` are those of `reference`, and the gradient is not nothing."""
    value, gradient = jax.jit(jax.value_and_grad(package))(point)
    np.testing.assert_allclose(value, reference(point), rtol=1e-9)
    expected = gradients.finite_differences(reference, point, step)
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert size > 1e-3
    chex.assert_trees_all_equal_dtypes(gradient, point)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-6 * size)


def test_gradient_of_the_retrieval_loss():
    point = {"image": unit_rows(normal(0, 5, 4)), "text": unit_rows(normal(1, 5, 4)), "scale": np.array(7.0)}
    check(
        lambda p: losses.retrieval_loss(p["image"], p["text"], p["scale"]),
        lambda p: reference_losses.retrieval_loss(p["image"], p["text"], p["scale"]),
        point,
    )


@pytest.mark.parametrize("form", ["released", "cosine"])
def test_gradient_of_the_alignment_loss(form):
    spread = {"released": 0.01, "cosine": 1.0}[form]  # at 1.0 the released scores reach 1e4: a hard maximum
    common = normal(9, 1, 3, 1)  # keeps the cosines of different layers close, so that 100 cos does not saturate
    point = {
        "visual": spread * (0.1 * normal(2, 3, 3, 5) + common),
        "textual": spread * (0.1 * normal(3, 3, 3, 4) + common),
    }
    check(
        lambda p: losses.alignment_loss(p["visual"], p["textual"], form),
        lambda p: reference_losses.alignment_loss(p["visual"], p["textual"], form),
        point,
        step=1e-6 * spread,
    )


@pytest.mark.parametrize("form", ["released", "intended"])
@pytest.mark.parametrize(
    "similarity",
    [
        np.array([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.5, 0.3], [0.1, 0.5, 1, 0.4], [0.2, 0.3, 0.4, 1]]),
        np.ones((4, 4)),
        np.eye(4),
    ],
    ids=["mixed", "no_negatives", "no_other_positives"],
)
def test_gradient_of_the_task_loss(form, similarity):
    prompts = normal(4, 4, 2, 2, 3)
    if form == "released":  # z = sigmoid(c / 0.001) has a slope only where prompts are nearly orthogonal
        orthogonal, _ = np.linalg.qr(prompts.reshape(4, -1).T)
        prompts = (orthogonal.T + 1e-4 * normal(5, 4, 12)).reshape(prompts.shape)
    check(
        lambda p: losses.task_loss(p, similarity, form),
        lambda p: reference_losses.task_loss(p, similarity, form),
        prompts,
        step={"released": 1e-7, "intended": 1e-6}[form],
    )


def test_gradient_of_the_task_loss_in_the_current_task_alone():
    finished, similarity = normal(6, 2, 2, 2, 3), np.array([[1, 0.9, 0.1], [0.9, 1, 0.5], [0.1, 0.5, 1]])
    check(
        lambda own: losses.task_loss(jax.numpy.concatenate([finished, own]), similarity, "intended"),
        lambda own: reference_losses.task_loss(np.concatenate([finished, own]), similarity, "intended"),
        normal(7, 1, 2, 2, 3),
    )


def factors():
    return {
        "layer": normal(10, 2, 3),
        "token_visual": normal(11, 4, 3),
        "token_textual": normal(12, 4, 3),
        "width_visual": normal(13, 5, 3),
        "width_textual": normal(14, 6, 3),
    }


def weigher(arrays, seed):
    """A scalar of arrays that leans on every entry: sum of w x + x^2 / 2, w random."""
    total = 0.0
    for number, array in enumerate(arrays):
        total = total + (normal(seed + number, *array.shape) * array + array**2 / 2).sum()
    return total


def test_gradient_of_expand():
    check(lambda f: weigher(lpi.expand(f), 20), lambda f: weigher(reference_prompts.expand(f), 20), factors())


def test_gradient_of_the_interaction():
    visual, textual = normal(30, 2, 3, 5), normal(31, 2, 3, 4)
    point = {
        "visual": visual,
        "textual": textual,
        "to_text.layer": normal(32, 2, 2),
        "to_text.source": normal(33, 6, 2),
        "to_text.target": normal(34, 4, 2),
        "to_vision.layer": normal(35, 2, 2),
        "to_vision.source": normal(36, 5, 2),
        "to_vision.target": normal(37, 5, 2),
    }

    def package(p):
        maps = {way: {n: p[f"{way}.{n}"] for n in ("layer", "source", "target")} for way in ("to_text", "to_vision")}
        return weigher(lpi.interact(maps, p["visual"], p["textual"]), 40)

    def reference(p):
        maps = {
            name: {"E1": p[f"{way}.layer"], "E2": p[f"{way}.source"], "E3": p[f"{way}.target"]}
            for name, way in (("visual_to_textual", "to_text"), ("textual_to_visual", "to_vision"))
        }
        return weigher(reference_prompts.interact(p["visual"], p["textual"], maps), 40)

    check(package, reference, point)


@pytest.mark.parametrize("form", ["released", "cosine"])
def test_gradient_of_the_alignment_loss_through_expand(form):
    point = factors()
    if form == "released":
        point["layer"] = 0.1 * point["layer"]
    else:  # layers alike but for a hundredth: 100 cos would saturate otherwise
        point["layer"] = point["layer"][:1] + 0.01 * point["layer"]
    check(
        lambda f: losses.alignment_loss(*lpi.expand(f), form),
        lambda f: reference_losses.alignment_loss(*reference_prompts.expand(f), form),
        point,
    )


@pytest.mark.parametrize("form", ["released", "cosine"])
def test_prompts_of_zero_give_alignment_a_finite_gradient(form):
    gradient = jax.jit(jax.grad(lambda p: losses.alignment_loss(p, np.ones((3, 2, 4)), form)))(np.zeros((3, 2, 5)))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("form", ["released", "intended"])
def test_prompts_of_zero_give_the_task_loss_a_finite_gradient(form):
    gradient = jax.jit(jax.grad(lambda p: losses.task_loss(p, np.eye(3), form)))(np.zeros((3, 2, 2, 5)))
    assert np.isfinite(gradient).all()
