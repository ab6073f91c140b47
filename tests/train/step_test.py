"""The training step: held against the NumPy reference, and its random key."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.methods import lpi, routing
from lpi_jax.methods.base import Method
from lpi_jax.methods.base import Options as MethodOptions
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.retrieval.problem import Retrieval, sites
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.train.optimizer import Options, learning_rate, make_optimizer
from lpi_jax.train.step import Task, fit, make_gradient, make_step
from lpi_jax.types import Adapter
from tests.models import towers_reference_test as tiny
from tests.reference import losses as reference_losses
from tests.reference import prompts as reference_prompts
from tests.reference import sgd as reference
from tests.support import devices

SGD = {"momentum": 0.9, "weight_decay": 2e-4}


def test_a_training_steps_losses_gradient_and_update_are_the_references():
    """The whole step on a tiny CLIP: two steps of a second task, against the reference's towers, losses and SGD."""
    mean, std, epochs = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 2
    options = lpi.Options(layers=3, depth=2, length=tiny.TOKENS, rank=2)
    method = lpi.build(options, sites(tiny.CONFIG), routing.Options())
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: lpi.init(options, sites(tiny.CONFIG), jax.random.key(0)))
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

    training, mesh = Options(epochs=epochs, lr=0.05, optimizer_args=SGD), meshes.make_mesh(1)
    finished = jax.tree.map(lambda leaf: leaf[None], first["factors"])
    constants = lpi.context(options, shapes["factors"], finished, similarity)
    problem = Retrieval(Towers(tiny.CLIP(tiny.CONFIG), mean, std), None, None, None, None)
    step = make_step(problem, method, make_optimizer(training), mesh)
    state, key = step.start(jax.tree.map(jnp.asarray, trainable)), jax.random.key(0)
    batch = {"images": pictures, "token_ids": tiny.token_ids()}
    factors, velocity = trainable["factors"], None
    for number in range(epochs):
        rate = learning_rate(training, 1)(number)
        state, terms = step.run(state, backbone, constants, batch, key, jnp.float32(rate))
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


# ------------------------------------------------------------------------------------------------------ the random key


class Noisy(NamedTuple):
    """A problem whose forward draws from the step's key: rows times a weight, some of them dropped."""

    def forward(self, batch, adapter, key):
        kept = jax.random.bernoulli(key, 0.5, batch["rows"].shape)
        return {"rows": jnp.where(kept, batch["rows"], 0.0) * adapter.params["weight"]}

    def losses(self, outputs, batch):
        return {"noise": outputs["rows"].sum()}

    def queries(self, frozen, batch):
        return {"rows": batch["rows"]}


def plain_method(**changes):
    """A method whose one trainable weight enters as the network itself."""
    return Method(
        name="weight",
        options=MethodOptions(),
        begin=None,
        adapt=lambda trainable, constants, frozen, queries: (Adapter(trainable, {}), queries),
        finish=None,
        view=None,
    )._replace(**changes)


BATCH = {"rows": np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)}
PLAIN = Options(lr=0.1, schedule="constant", optimizer_args={"momentum": 0.0, "weight_decay": 0.0})


def trained(count, steps, begin_with=None, seed=0, method=None):
    """The loss of each step, and the state behind the last; `begin_with`: a state on the host to go on from."""
    mesh = meshes.make_mesh(count)
    step = make_step(Noisy(), method or plain_method(), make_optimizer(PLAIN), mesh)
    state = step.start({"weight": jnp.ones(8)})
    if begin_with is not None:
        state = meshes.put_replicated(begin_with, mesh)
    found = []
    task = Task({}, {}, jax.random.key(seed), learning_rate(PLAIN, 1))
    batches = [BATCH] * (steps - int(state.step))
    state = fit(state, step, task, batches, lambda state, done, terms, waited: found.append(float(terms["noise"])))
    return found, jax.tree.map(np.asarray, state)


def test_every_step_draws_anew_and_another_seed_otherwise():
    losses, _ = trained(1, 6)
    still, _ = trained(1, 6, method=plain_method(adapt=lambda *given: (Adapter({"weight": jnp.ones(8)}, {}), None)))
    assert len(set(losses)) == len(set(still)) == 6  # also where nothing changes but the draw
    assert not set(still) & set(trained(1, 6, seed=1)[0])


def test_a_task_that_is_taken_up_again_draws_what_it_would_have_drawn():
    whole, last = trained(1, 6)
    before, state = trained(1, 2)
    after, resumed = trained(1, 6, begin_with=state)
    assert before + after == whole
    chex.assert_trees_all_equal(resumed, last)


def test_what_is_drawn_does_not_depend_on_the_number_of_devices():
    losses, weight = devices.found(
        8,
        "from tests.train.step_test import trained; losses, state = trained(8, 3)",
        "[losses, state.trainable['weight'].tolist()]",
    )
    one, state = trained(1, 3)
    assert losses == pytest.approx(one, rel=1e-5)
    np.testing.assert_allclose(weight, state.trainable["weight"], rtol=1e-5)


# ----------------------------------------------------------------------------------------------- what a method is given


def test_queries_are_made_only_for_a_method_that_wants_them_and_reach_its_losses():
    seen = []

    def losses(trainable, constants, aux, outputs, batch, forward):
        seen.append(sorted(aux))
        again = forward(Adapter(jax.tree.map(lambda leaf: 2 * leaf, trainable), {}))
        return {"twice": again["rows"].sum() - 2 * outputs["rows"].sum()}  # the same batch, the same draw

    mesh = meshes.make_mesh(1)
    for wanted in (False, True):
        method = plain_method(losses=losses, wants_queries=wanted)
        step = make_step(Noisy(), method, make_optimizer(PLAIN), mesh)
        state = step.start({"weight": jnp.ones(8)})
        _, terms = step.run(state, {}, {}, BATCH, jax.random.key(0), jnp.float32(0.1))
        assert set(terms) == {"loss", "noise", "twice"}
        assert float(terms["twice"]) == pytest.approx(0, abs=1e-4)
        assert float(terms["loss"]) == pytest.approx(sum(float(v) for n, v in terms.items() if n != "loss"), abs=1e-5)
    assert seen == [[], ["rows"]]


def test_the_gradient_of_the_problems_own_losses_has_none_of_the_methods_terms():
    method = plain_method(losses=lambda trainable, *_: {"own": 1e6 * trainable["weight"].sum()})
    gradient = make_gradient(Noisy(), method, meshes.make_mesh(1))
    tree = gradient({"weight": jnp.ones(8)}, {}, {}, BATCH, jax.random.key(3))
    kept = jax.random.bernoulli(jax.random.key(3), 0.5, BATCH["rows"].shape)
    np.testing.assert_allclose(tree["weight"], np.where(kept, BATCH["rows"], 0).sum(0), rtol=1e-4)
