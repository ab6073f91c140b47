"""Prompts that every token attends to: keys, gated values, and the frozen towers at gates of zero."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from lpi_jax.losses import retrieval_loss
from lpi_jax.methods import lpi
from lpi_jax.methods.base import Site
from lpi_jax.models.clip import CLIP
from tests.methods.lpi_test import built, reference_prompts
from tests.models import towers_reference_test as tiny
from tests.reference import prompts as reference


def on_tiny(**changes):
    """The method on the tiny CLIP, attended to, and a trainable tree at its start."""
    options = lpi.Options(layers=2, depth=2, length=3, rank=2, injection="attend", **changes)
    vision, text = tiny.CONFIG.vision, tiny.CONFIG.text
    sites = {"vision": Site(vision.layers, vision.width, 9), "text": Site(text.layers, text.width, 11)}
    return built(options, sites), lpi.init(options, sites, jax.random.key(3))


def features_of(adapter, injection):
    model, variables = CLIP(tiny.CONFIG, injection=injection), {"params": adapter.params}
    image = model.apply(variables, tiny.images(), adapter.prompts.get("vision"), method="encode_image")
    return image, model.apply(variables, tiny.token_ids(), adapter.prompts.get("text"), method="encode_text")


def test_attended_prompts_are_keys_and_gated_values_and_need_no_positions():
    method, trainable = on_tiny(gate=0.5)
    trainable["gates"]["visual"] = jnp.array([0.3, -2.0])
    adapter, _ = method.adapt(trainable, {}, {}, {})
    visual, textual = reference_prompts(trainable)
    expected = {"vision": reference.attended(visual, [0.3, -2]), "text": reference.attended(textual, [0.5, 0.5])}
    chex.assert_trees_all_close(adapter.prompts, expected, rtol=1e-5, atol=1e-6)
    assert not method.reserve
    assert method.injection == "attend"


def test_at_gates_of_zero_the_features_are_the_frozen_towers_to_the_last_bit_and_training_begins_at_the_gates():
    method, trainable = on_tiny()
    adapt = lambda tree: method.adapt(tree, {}, tiny.random_params(), {})[0]  # noqa: E731
    plain = features_of(adapt(trainable)._replace(prompts={}), "add")
    chex.assert_trees_all_equal(features_of(adapt(trainable), "attend"), plain)
    gradient = jax.jit(jax.grad(lambda tree: retrieval_loss(*features_of(adapt(tree), "attend"), 20.0)))(trainable)
    for gate in gradient["gates"].values():
        assert (np.abs(gate) > 1e-6).all()  # of every layer
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["factors"]))
