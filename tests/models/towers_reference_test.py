"""Holds the package's towers with prompts against the plain NumPy towers, on small random models."""

import functools
import itertools

import chex
import jax
import numpy as np
import pytest

from lpi_jax import losses
from lpi_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from lpi_jax.models.clip_start import init_params
from tests.reference import gradients, towers
from tests.reference import losses as reference_losses

CONFIG = CLIPConfig(
    image_size=12,
    patch_size=4,
    embed_dim=10,
    vision=TowerConfig(width=16, layers=3, heads=2, mlp_dim=40),
    text=TowerConfig(width=12, layers=2, heads=3, mlp_dim=24),
    vocab_size=40,
    context_length=14,
)
EOT = CONFIG.vocab_size - 1
TOKENS = 3  # prompts a layer
BATCH = 3


@functools.cache
def random_params():
    """Every leaf random, so that no bias is zero and no scale one."""
    shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
    rng = np.random.default_rng(1)

    def leaf(path, shape):
        around = 1.0 if path[-1].key == "scale" else 0.0
        return (around + 0.3 * rng.normal(size=shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@functools.cache
def hugging_face_weights():
    """The same parameters under Hugging Face's names and in its layouts."""
    weights = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(random_params()):
        *scopes, last = [key.key for key in path]
        scopes = [part.replace("layers_", "layers.") for part in scopes]
        if last == "kernel":  # [in, out] -> [out, in]; HWIO -> OIHW
            leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
        name = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(last, last)
        weights[".".join([*scopes, name])] = leaf
    return weights


@functools.cache
def images():
    size = CONFIG.image_size
    return np.random.default_rng(2).normal(size=(BATCH, size, size, 3)).astype(np.float32)


@functools.cache
def token_ids():
    """SOT, placeholders, captions of unequal length, EOT, padding."""
    rng = np.random.default_rng(3)
    ids = np.zeros((BATCH, CONFIG.context_length), np.int32)
    for row, words in enumerate((1, 4, CONFIG.context_length - TOKENS - 2)):
        ids[row, : TOKENS + words + 2] = [EOT - 1, *[5] * TOKENS, *rng.integers(1, EOT - 2, words), EOT]
    return ids


def draw(width, layers, per_item, seed=4):
    shape = (BATCH, layers, TOKENS, width) if per_item else (layers, TOKENS, width)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_package(side, prompts, mode="add", items=None):
    if items is None:
        items = images() if side == "encode_image" else token_ids()
    # Not jitted as a whole: all depths share the compiled operations.
    return CLIP(CONFIG, injection=mode).apply({"params": random_params()}, items, prompts, method=side)


def by_reference(side, prompts, mode="add", depth=None):
    if side == "encode_image":
        return towers.encode_image(hugging_face_weights(), images(), CONFIG.vision.heads, prompts, depth, mode)
    return towers.encode_text(hugging_face_weights(), token_ids(), CONFIG.text.heads, prompts, depth, mode)


def tower(side):
    return CONFIG.vision if side == "encode_image" else CONFIG.text


SIDES = pytest.mark.parametrize("side", ["encode_image", "encode_text"])
MODES = pytest.mark.parametrize("mode", ["add", "replace"])


@SIDES
def test_a_tower_without_prompts_is_the_references(side):
    features = by_package(side, None)
    chex.assert_shape(features, (BATCH, CONFIG.embed_dim))
    chex.assert_type(features, np.float32)
    np.testing.assert_allclose(features, by_reference(side, None), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


@SIDES
@MODES
@pytest.mark.parametrize("per_item", [False, True], ids=["shared", "per_item"])
def test_a_tower_with_prompts_is_the_references_at_every_depth(side, mode, per_item):
    plain = by_package(side, None)
    for depth in range(1, tower(side).layers + 1):
        prompts = draw(tower(side).width, depth, per_item)
        features = by_package(side, prompts, mode)
        np.testing.assert_allclose(features, by_reference(side, prompts, mode), atol=1e-5, err_msg=f"depth {depth}")
        assert np.abs(features - plain).max() > 1e-2  # the prompts are felt


@SIDES
@MODES
def test_every_row_of_prompts_is_felt_but_for_those_cut_off(side, mode):
    layers = tower(side).layers
    prompts = draw(tower(side).width, layers, per_item=False)
    features = [np.asarray(by_package(side, prompts[:depth], mode)) for depth in range(1, layers + 1)]
    for depth, shallow in enumerate(features, start=1):
        np.testing.assert_allclose(shallow, by_reference(side, prompts, mode, depth), atol=1e-5)
    for shallow, deep in itertools.pairwise(features):
        assert np.abs(shallow - deep).max() > 1e-4


@SIDES
def test_adding_and_replacing_agree_at_the_input_and_differ_below(side):
    prompts = draw(tower(side).width, 2, per_item=False)
    shallow = [np.asarray(by_package(side, prompts[:1], mode)) for mode in ("add", "replace")]
    np.testing.assert_array_equal(*shallow)
    deep = [np.asarray(by_package(side, prompts, mode)) for mode in ("add", "replace")]
    assert np.abs(deep[0] - deep[1]).max() > 1e-4


def test_what_stands_behind_the_end_of_a_caption_does_not_matter():
    prompts = draw(CONFIG.text.width, CONFIG.text.layers, per_item=False)
    ids = token_ids().copy()
    for row in ids:
        row[np.argmax(row) + 1 :] = 7
    features = by_package("encode_text", prompts, items=ids)
    np.testing.assert_allclose(features, by_package("encode_text", prompts), atol=1e-6)


def test_the_retrieval_losss_gradient_through_both_towers_is_the_references():
    """Along two random directions a layer; also proves that computing only the pooled token last costs no gradient."""
    sides = {"visual": CONFIG.vision, "textual": CONFIG.text}
    prompts = {name: draw(side.width, side.layers, per_item=False) for name, side in sides.items()}
    ways = {name: draw(side.width, 2 * side.layers, per_item=False, seed=5) for name, side in sides.items()}
    ways = {name: way.reshape(2, *prompts[name].shape) for name, way in ways.items()}
    model, variables = CLIP(CONFIG), {"params": random_params()}

    def package(prompts):
        image = model.apply(variables, images(), prompts["visual"], method="encode_image")
        text = model.apply(variables, token_ids(), prompts["textual"], method="encode_text")
        return losses.retrieval_loss(image, text, 5.0)

    def visual(steps):  # [2, L]
        moved = prompts["visual"] + np.einsum("wl,wlpd->lpd", steps, ways["visual"])
        return reference_losses.retrieval_loss(by_reference("encode_image", moved), texts, 5.0)

    def textual(steps):
        moved = prompts["textual"] + np.einsum("wl,wlpd->lpd", steps, ways["textual"])
        return reference_losses.retrieval_loss(pictures, by_reference("encode_text", moved), 5.0)

    pictures = by_reference("encode_image", prompts["visual"])
    texts = by_reference("encode_text", prompts["textual"])
    gradient = jax.jit(jax.grad(package))(prompts)
    for name, function in (("visual", visual), ("textual", textual)):
        slopes = np.einsum("wlpd,lpd->wl", ways[name], gradient[name])
        expected = gradients.finite_differences(function, np.zeros(slopes.shape))
        assert (np.abs(expected).max(axis=0) > 1e-3).all()  # every layer's prompts matter
        np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-5)
