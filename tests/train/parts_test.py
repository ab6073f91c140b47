"""A batch in parts: losses and gradients of the whole, less memory, and a batch that does not divide is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import check_train_batches
from lpi_jax.methods.base import Method
from lpi_jax.methods.base import Options as MethodOptions
from lpi_jax.models.clip import CLIP
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.retrieval.problem import Retrieval
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.train.parts import in_parts
from lpi_jax.train.step import make_gradient, make_step
from lpi_jax.types import Adapter
from tests.models.towers_reference_test import CONFIG, TOKENS, random_params
from tests.support import devices

ROWS = 16


def problem(remat="none"):
    """Retrieval with a small random CLIP, batches alone."""
    return Retrieval(Towers(CLIP(CONFIG, remat=remat), CLIP_MEAN, CLIP_STD), None, None, None, None)


def batch(seed=0):
    """ROWS pairs of random pixels and ids, each caption with its end."""
    rng, size, length = np.random.default_rng(seed), CONFIG.image_size, CONFIG.context_length
    ids = rng.integers(1, CONFIG.vocab_size - 1, (ROWS, length)).astype(np.int32)
    ids[:, -1] = CONFIG.vocab_size - 1
    images = rng.integers(0, 256, (ROWS, size, size, 3), dtype=np.uint8)
    return {"images": images, "token_ids": ids, "query_ids": ids}


def method(of_each):
    """Prompts for both towers and the logit scale; `of_each`: every row has prompts of its own, made of its queries."""

    def adapt(trainable, constants, frozen, queries):
        def prompts(site, side):
            rows = trainable[site]
            return rows * queries[side].mean(1)[:, None, None, None] if of_each else rows

        params = {**frozen, "logit_scale": trainable["logit_scale"]}
        return Adapter(params, {"vision": prompts("vision", "image"), "text": prompts("text", "text")}), None

    return Method("toy", MethodOptions(), None, adapt, None, None, wants_queries=of_each)


def trainable():
    rng, layers = np.random.default_rng(5), 2
    return {
        "vision": rng.normal(size=(layers, TOKENS, CONFIG.vision.width)).astype(np.float32),
        "text": rng.normal(size=(layers, TOKENS, CONFIG.text.width)).astype(np.float32),
        "logit_scale": np.float32(2.0),
    }


def stepped(of_each, microbatch, count=1, steps=1):
    """Loss terms of each step, and the trained tree behind the last, as numbers."""
    mesh = meshes.make_mesh(count)
    step = make_step(problem(), method(of_each), optax.sgd(1.0), mesh, microbatch)
    state, terms = step.start(trainable()), []
    frozen = meshes.put_replicated(random_params(), mesh)
    for number in range(steps):
        rows = meshes.put_rows(batch(number), mesh)
        state, found = step.run(state, frozen, {}, rows, jax.random.key(0), jnp.float32(0.05))
        terms.append(float(found["retrieval"]))
    return terms, jax.tree.map(np.asarray, state.trainable)


@pytest.mark.parametrize("of_each", [False, True])
@pytest.mark.parametrize("microbatch", [1, 4, 8])
def test_a_batch_in_parts_is_learnt_from_as_the_whole(of_each, microbatch):
    whole, after = stepped(of_each, 0, steps=3)
    parts, found = stepped(of_each, microbatch, steps=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    chex.assert_trees_all_close(found, after, rtol=1e-5, atol=1e-5)
    assert whole[0] > 1.0 and not np.allclose(after["vision"], trainable()["vision"], atol=1e-3)


def test_the_gradient_of_the_problems_losses_is_that_of_the_whole_also_of_what_all_parts_share():
    def gradient(microbatch):
        made = make_gradient(problem(), method(False), meshes.make_mesh(1), microbatch)
        return made(trainable(), {}, random_params(), batch(), jax.random.key(0))

    whole, parts = gradient(0), gradient(4)
    assert abs(float(whole["logit_scale"])) > 1e-3
    chex.assert_trees_all_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_parts_split_over_devices_are_learnt_from_as_on_one():
    expression = "[terms, {name: leaf.tolist() for name, leaf in after.items()}]"
    terms, after = devices.found(
        4,
        "from tests.train.parts_test import stepped; terms, after = stepped(True, 8, count=4, steps=2)",
        expression,
    )
    one, expected = stepped(True, 0, steps=2)
    np.testing.assert_allclose(terms, one, rtol=1e-5)
    chex.assert_trees_all_close(
        {name: np.asarray(leaf, np.float32) for name, leaf in after.items()}, expected, atol=1e-5
    )


def test_the_operations_are_counted_as_those_of_the_whole():
    def flops(microbatch):
        step = make_step(problem(), method(False), optax.sgd(1.0), meshes.make_mesh(1), microbatch)
        arguments = random_params(), {}, batch(), jax.random.key(0), jnp.float32(0)
        step.run(step.start(trainable()), *arguments)
        return step.run.flops

    assert flops(4) == flops(0) > 0


def test_rows_keep_their_order_and_scalars_are_one():
    rows = {"x": jnp.arange(12.0).reshape(12, 1)}
    found = in_parts(lambda part: (2 * part["x"], jnp.float32(3)), rows, 4, meshes.make_mesh(1))
    np.testing.assert_array_equal(found[0], 2 * rows["x"])
    assert found[1].shape == () and float(found[1]) == 3


@pytest.mark.parametrize("microbatch, of_each", [(2, False), (2, True)])
def test_a_smaller_part_takes_less_memory(microbatch, of_each):
    def temporaries(microbatch, remat="none"):
        mesh = meshes.make_mesh(1)
        step = make_step(problem(remat), method(of_each), optax.sgd(1.0), mesh, microbatch)
        shapes = step.start(trainable()), random_params(), {}, batch(), jax.random.key(0), jnp.float32(0)
        return step.run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(microbatch) < 0.5 * temporaries(0)
    assert temporaries(0, "blocks") < temporaries(0, "dots") < temporaries(0)


@pytest.mark.parametrize(
    "batch, batches, microbatch, said",
    [
        (32, (), 12, "config.train.microbatch is 12, expected a divisor of a batch of 32"),
        (32, (32, 48), 32, "config.train.microbatch is 32, expected a divisor of a batch of 48"),
    ],
)
def test_a_batch_that_has_no_whole_number_of_parts_is_refused(batch, batches, microbatch, said, make_config):
    config = make_config()
    config.train.batch, config.train.batches, config.train.microbatch = batch, batches, microbatch
    with pytest.raises(UserError) as error:
        check_train_batches(config, meshes.make_mesh(1))
    assert str(error.value) == said
