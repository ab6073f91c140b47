"""What the model promises apart from its numbers: shapes, where prompts enter, and rows without an image."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from lpi_jax.models import clip, clip_start
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.llava import LLaVA
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.llava import Inputs, init_params, param_shapes
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from tests.models.llava import small

CONFIG, PARAMS = small.model()
MODEL = LLaVA(CONFIG)


def run(*arguments, method, model=MODEL, params=PARAMS, **named):
    return jax.jit(lambda tree: model.apply({"params": tree}, *arguments, method=method, **named))(params)


def prompts(*shape):
    return np.random.default_rng(4).standard_normal(shape, np.float32)


def test_shapes_and_dtypes_are_as_documented():
    tokens, feature = run(small.images(2), method="encode_image")
    chex.assert_shape([tokens, feature], [(2, 4, 32), (2, 16)])
    question, projected = (run(small.question_ids(2), flag, method="encode_question") for flag in (False, True))
    chex.assert_shape([question, projected], (2, 16))
    labels = np.zeros((2, 7), np.int32)
    logits, moved, mask = run(small.token_ids(2, 7), small.images(2), prompts(1, 6, 32), labels=labels, method="logits")
    chex.assert_shape(logits, (2, 7 - 1 + 4 + 6, 64))
    chex.assert_shape([moved, mask], (2, 16))
    chex.assert_type([tokens, feature, question, projected, logits], jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(init_params(CONFIG, jax.random.key(0)), param_shapes(CONFIG))


def test_features_and_logits_are_float32_and_near_in_a_narrow_dtype():
    model = LLaVA(CONFIG, dtype=jnp.bfloat16)
    ids, images = small.token_ids(2, 7), small.images(2)
    found = run(ids, images, prompts(1, 6, 32), method="logits", model=model).logits
    assert found.dtype == jnp.float32
    expected = run(ids, images, prompts(1, 6, 32), method="logits").logits
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.15)
    for part in run(images, method="encode_image", model=model):
        assert part.dtype == jnp.float32


def test_the_towers_are_those_of_clip():
    tree = clip_start.init_params(CONFIG.clip, jax.random.key(1))
    shared = param_shapes(CONFIG)
    for name in ("vision_model", "text_model", "visual_projection", "text_projection"):
        chex.assert_trees_all_equal_shapes_and_dtypes(shared[name], tree[name])
    params = {**PARAMS, **{name: leaf for name, leaf in tree.items() if name != "logit_scale"}}
    image, text = small.images(3), small.question_ids(3)
    both = run(image, text, method=None, model=clip.CLIP(CONFIG.clip), params=tree)
    features = (
        run(image, method="encode_image", params=params)[1],
        run(text, True, method="encode_question", params=params),
    )
    for feature, expected in zip(features, both[:2], strict=True):
        lengths = np.linalg.norm(feature, axis=-1, keepdims=True)
        assert not np.allclose(lengths, 1, atol=0.01)  # not normalised
        np.testing.assert_allclose(feature / lengths, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, -1, -2, -4, 3])
def test_any_layer_gives_its_patches_and_the_feature_stays(layer):
    model = LLaVA(dataclasses.replace(CONFIG, feature_layer=layer, projector="linear"))
    tokens, feature = run(small.images(2), method="encode_image", model=model)
    assert tokens.shape == (2, 4, 32)
    np.testing.assert_allclose(feature, run(small.images(2), method="encode_image")[1], rtol=0, atol=1e-6)


def test_the_question_feature_is_the_one_before_the_projection():
    pooled, projected = (run(small.question_ids(3), flag, method="encode_question") for flag in (False, True))
    kernel = PARAMS["text_projection"]["kernel"]
    np.testing.assert_allclose(pooled @ kernel, projected, rtol=0, atol=1e-5)
    assert np.abs(pooled - projected).max() > 0.1


def test_prompts_stand_behind_bos_and_lengthen_the_sequence():
    ids, images, soft = small.token_ids(2, 7), small.images(2), prompts(2, 1, 6, 32)
    labels = np.arange(14, dtype=np.int32).reshape(2, 7)
    spliced = run(Inputs(ids, images, soft), labels, method="splice")
    assert spliced.embeds.shape[1] == 7 - 1 + 4 + 6
    np.testing.assert_array_equal(spliced.embeds[:, 0], run(ids[:, :1], method="embed")[:, 0])
    np.testing.assert_array_equal(spliced.embeds[:, 1:7], soft[:, 0])
    assert (spliced.labels[:, 1:7] == IGNORE).all()
    np.testing.assert_array_equal(spliced.labels[:, 0], labels[:, 0])


def test_no_prompts_and_absent_prompts_are_the_plain_model():
    ids, images = small.token_ids(2, 7), small.images(2)
    plain = run(ids, images, method="logits")
    none = run(ids, images, prompts(1, 0, 32), method="logits")
    np.testing.assert_array_equal(plain.logits, none.logits)
    absent = run(ids, images, prompts(1, 5, 32), np.zeros(5, bool), method="logits")
    assert not absent.mask[:, 10:].any()
    np.testing.assert_allclose(absent.logits[:, :10], plain.logits, rtol=0, atol=1e-5)


def test_present_prompts_of_each_row_are_those_alone():
    ids, images, soft = small.token_ids(2, 7), small.images(2), prompts(1, 4, 32)
    present = np.array([[True, False, True, False], [False, True, True, True]])
    found = run(ids, images, soft, present, method="logits")
    for row in range(2):
        alone = run(ids[row : row + 1], images[row : row + 1], soft[:, present[row]], method="logits").logits[0]
        np.testing.assert_allclose(found.logits[row, : len(alone)], alone, rtol=0, atol=1e-5)
        assert found.mask[row].sum() == len(alone)


def test_a_row_without_an_image_has_the_logits_of_the_bare_llama():
    ids = np.array([[1, 9, 8, 7, 30, 0, 0], [1, 5, IMAGE, 6, 7, 8, 9]], np.int32)
    found = run(ids, small.images(2), None, None, np.array([False, True]), method="logits")
    text = ids[:1, :5]

    def bare(module):
        llama, places = module.language_model, jnp.arange(5)[None]
        with jax.default_matmul_precision("highest"):
            return llama.logits(llama(llama.embed(text), places, jnp.ones((1, 5), bool))[0])

    np.testing.assert_array_equal(found.mask[0], np.arange(10) < 5)
    np.testing.assert_allclose(found.logits[0, :5], run(method=bare)[0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(run(text, method="logits").logits, run(method=bare))


def test_visual_tokens_may_be_given_instead_of_images_and_padding_may_be_told():
    ids, images = small.token_ids(2, 7), small.images(2)
    ids[1, 5:] = 0
    ids[1, 4] = IMAGE
    tokens, _ = run(images, method="encode_image")
    expected = run(ids, images, method="logits")
    for found in (
        run(ids, tokens, method="logits"),
        run(ids, images, None, None, None, np.array([7, 5]), method="logits"),
    ):
        np.testing.assert_array_equal(found.mask, expected.mask)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("remat", ["none", "blocks", "dots"])
def test_gradients_reach_prompts_alone_and_remat_changes_none(remat):
    ids, images, soft = small.token_ids(2, 7), small.images(2), jnp.asarray(prompts(1, 3, 32))

    def loss(soft, remat):
        out = LLaVA(CONFIG, remat=remat).apply({"params": PARAMS}, ids, images, soft, method="logits")
        return jnp.sum(jax.nn.log_softmax(out.logits)[..., 5])

    gradient = jax.jit(jax.grad(loss), static_argnums=1)(soft, remat)
    assert gradient.shape == soft.shape
    step = 1e-2 * gradient / jnp.linalg.norm(gradient)
    rise = jax.jit(loss, static_argnums=1)(soft + step, remat) - jax.jit(loss, static_argnums=1)(soft - step, remat)
    np.testing.assert_allclose(rise, 2 * jnp.vdot(step, gradient), rtol=0.02)


def test_initial_parameters_follow_from_the_key_and_give_tame_logits():
    params = init_params(CONFIG, jax.random.key(3))
    chex.assert_trees_all_equal(params, init_params(CONFIG, jax.random.key(3)))
    logits = run(small.token_ids(2, 7), small.images(2), method="logits", params=params).logits
    assert 0.2 < np.std(logits) < 3
    for path, leaf in traverse_util.flatten_dict(params).items():
        if path[-1] in ("bias", "scale"):
            np.testing.assert_array_equal(leaf, float(path[-1] == "scale"))


@pytest.mark.parametrize(
    ("arguments", "method", "said"),
    [
        ((np.zeros((2, 20, 20, 3)),), "encode_image", "28"),
        ((np.zeros((2, 13), np.int32),), "encode_question", "12"),
        ((np.ones((2, 3), np.int32), None, np.zeros((3, 1, 4, 32))), "logits", "prompts"),
        ((np.ones((2, 3), np.int32), None, np.zeros((2, 2, 4, 32))), "logits", "prompts"),
        ((np.ones((2, 3), np.int32), None, np.zeros((1, 4, 31))), "logits", "prompts"),
    ],
)
def test_a_shape_that_does_not_fit_is_told(arguments, method, said):
    with pytest.raises(ValueError, match=said):
        run(*arguments, method=method)


def test_a_projection_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="text_projection"):
        run(
            small.question_ids(1),
            True,
            method="encode_question",
            model=LLaVA(dataclasses.replace(CONFIG, text_projection=False)),
        )


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (LlavaConfig, {"projector": "resampler"}),
        (LlavaConfig, {"feature_layer": -5}),
        (LlavaConfig, {"feature_layer": 4}),
        (LlavaConfig, {"eos": 64}),
        (LlavaConfig, {"max_length": 0}),
        (LlamaConfig, {"kv_heads": 3}),
        (LlamaConfig, {"heads": 32, "kv_heads": 32}),
        (LlamaConfig, {"layers": 0}),
    ],
)
def test_a_configuration_that_is_none_is_told(kind, change):
    with pytest.raises(ValueError, match=re_of(next(iter(change)))):
        dataclasses.replace(CONFIG if kind is LlavaConfig else CONFIG.llama, **change)


def re_of(name: str) -> str:
    return "heads" if name == "kv_heads" else name


def test_a_7b_model_has_the_parameters_that_llava_has():
    big = CLIPConfig(336, 14, 768, TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072), 49408)
    shapes = param_shapes(LlavaConfig(big, LlamaConfig(32000, 4096, 32, 32, 32, 11008)))
    assert {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()} == {
        "vision_model": 303_507_456,
        "visual_projection": 786_432,
        "text_model": 123_060_480,
        "text_projection": 589_824,
        "projector": 20_979_712,
        "language_model": 6_738_415_616,
    }
