"""The towers: equal to a plain NumPy computation, with every way in which prompts enter, and CLIP's known sizes."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from lpi_jax.models.clip import CLIP, Block, CLIPConfig, TowerConfig, param_shapes
from lpi_jax.models.clip_start import init_params
from lpi_jax.models.kept import kept
from lpi_jax.models.tokenizer import trim
from tests.models import towers_reference_test as tiny
from tests.support.record_activations import seeded_params

SMALL = CLIPConfig(30, 7, 20, TowerConfig(32, 3, 4, 48), TowerConfig(24, 3, 3, 40), 60, 26)
EOT = SMALL.vocab_size - 1
OPENAI = {  # configuration and OpenAI's number of parameters
    "B/32": (CLIPConfig(224, 32, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408), 151277313),
    "B/16": (CLIPConfig(224, 16, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408), 149620737),
    "L/14": (
        CLIPConfig(224, 14, 768, TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072), 49408),
        427616513,
    ),
    "L/14-336": (
        CLIPConfig(336, 14, 768, TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072), 49408),
        427944193,
    ),
}


# ---- the plain computation: NumPy, float64, every token of every block -----------------------------------------------


def plain_norm(x, leaf, eps):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * leaf["scale"] + leaf["bias"]


def plain_dense(x, leaf):
    return x @ leaf["kernel"] + leaf.get("bias", 0.0)


def plain_blocks(config, tower, tree, x, prompts, injection, causal):
    batch, length, width = x.shape
    for layer in range(tower.layers):
        block = tree["encoder"][f"layers_{layer}"]
        attends = prompts is not None and injection == "attend" and layer < prompts.shape[1]
        if prompts is not None and injection != "attend" and 0 < layer < prompts.shape[1]:
            x = x.copy()
            inside = slice(1, 1 + prompts.shape[2])
            x[:, inside] = prompts[:, layer] if injection == "replace" else x[:, inside] + prompts[:, layer]
        h = plain_norm(x, block["layer_norm1"], config.layer_norm_eps)
        split = lambda y: y.reshape(*y.shape[:2], tower.heads, -1).transpose(0, 2, 1, 3)  # noqa: E731
        q, k, v = (split(plain_dense(h, block["self_attn"][name])) for name in ("q_proj", "k_proj", "v_proj"))
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width / tower.heads)
        if causal:
            scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        if attends:  # values meet the weights alone, the bias is in v already
            keys, values = np.split(prompts[:, layer], 2, axis=1)
            keys = plain_norm(keys, block["layer_norm1"], config.layer_norm_eps)
            values = values * block["layer_norm1"]["scale"]
            scores = q @ split(plain_dense(keys, block["self_attn"]["k_proj"])).transpose(0, 1, 3, 2)
            scores = np.exp(scores / math.sqrt(width / tower.heads))
            own = split(values @ block["self_attn"]["v_proj"]["kernel"])
            mixed = mixed + (scores / scores.sum(-1, keepdims=True)) @ own
        x = x + plain_dense(mixed.transpose(0, 2, 1, 3).reshape(batch, length, width), block["self_attn"]["out_proj"])
        h = plain_dense(plain_norm(x, block["layer_norm2"], config.layer_norm_eps), block["mlp"]["fc1"])
        h = h / (1 + np.exp(-1.702 * h)) if config.activation == "quick_gelu" else h * (1 + erf(h / math.sqrt(2))) / 2
        x = x + plain_dense(h, block["mlp"]["fc2"])
    return x


def plain_patches(config, params, images, prompts=None, injection="add"):
    """All tokens behind the last block, [B, N, D]."""
    tree, patch, grid = params["vision_model"], config.patch_size, config.image_size // config.patch_size
    patches = images[:, : grid * patch, : grid * patch].reshape(-1, grid, patch, grid, patch, 3)
    x = np.einsum("bipjqc,pqcd->bijd", patches, tree["embeddings"]["patch_embedding"]["kernel"])
    x = x.reshape(len(images), grid * grid, -1)
    first = np.broadcast_to(tree["embeddings"]["class_embedding"], (len(images), 1, x.shape[-1]))
    x = np.concatenate([first, x], axis=1) + tree["embeddings"]["position_embedding"]["embedding"]
    if prompts is not None and injection != "attend":
        x = np.concatenate([x[:, :1], prompts[:, 0], x[:, 1:]], axis=1)
    x = plain_norm(x, tree["pre_layrnorm"], config.layer_norm_eps)
    return plain_blocks(config, config.vision, tree, x, prompts, injection, causal=False)


def plain_image(config, params, images, prompts=None, injection="add"):
    tokens, norm = plain_patches(config, params, images, prompts, injection), params["vision_model"]["post_layernorm"]
    x = plain_dense(plain_norm(tokens[:, 0], norm, config.layer_norm_eps), params["visual_projection"])
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain_words(config, params, ids, prompts=None, injection="add"):
    """All tokens behind the last block, [B, N, D]."""
    tree = params["text_model"]
    x = tree["embeddings"]["token_embedding"]["embedding"][ids]
    if prompts is not None and injection != "attend":
        x[:, 1 : 1 + prompts.shape[2]] = prompts[:, 0]
    x = x + tree["embeddings"]["position_embedding"]["embedding"][: ids.shape[1]]
    return plain_blocks(config, config.text, tree, x, prompts, injection, causal=True)


def plain_text(config, params, ids, prompts=None, injection="add"):
    x = plain_words(config, params, ids, prompts, injection)
    x = plain_norm(x, params["text_model"]["final_layer_norm"], config.layer_norm_eps)
    x = np.stack([row[list(words).index(words.max())] for row, words in zip(x, ids, strict=True)])
    x = plain_dense(x, params["text_projection"])
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def example(config=SMALL, batch=3, layers=3, count=4, seed=0):
    """Images, ids with EOT in several places behind the placeholders, prompts [B, L, P, D] of both towers."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((batch, config.image_size, config.image_size, 3)).astype(np.float32)
    ids = rng.integers(0, EOT, (batch, config.context_length)).astype(np.int32)
    ids[np.arange(batch), [count + 3, count + 9, config.context_length - 1][:batch]] = EOT
    visual = rng.standard_normal((batch, layers, count, config.vision.width)).astype(np.float32)
    textual = rng.standard_normal((batch, layers, count, config.text.width)).astype(np.float32)
    return images, ids, visual, textual


@functools.cache  # one program for all tests that want the same
def compiled(method, config, **options):
    model = CLIP(config, **options)
    return jax.jit(lambda tree, *rest: model.apply({"params": tree}, *rest, method=method))


def apply(params, method, *arguments, config=SMALL, **options):
    return np.asarray(compiled(method, config, **options)(params, *arguments))


def apply_both(params, method, *arguments):
    return jax.tree.map(np.asarray, compiled(method, SMALL)(params, *arguments))


def float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.fixture(scope="module")
def params():
    return seeded_params(SMALL, seed=3)


# ---- equal to the plain computation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_without_prompts_equal_the_plain_computation(params, activation):
    config = CLIPConfig(**{**vars(SMALL), "activation": activation})
    images, ids, _, _ = example()
    image_features = apply(params, "encode_image", images, config=config)
    text_features = apply(params, "encode_text", ids, config=config)
    np.testing.assert_allclose(image_features, plain_image(config, float64(params), float64(images)), atol=1e-5)
    np.testing.assert_allclose(text_features, plain_text(config, float64(params), ids), atol=1e-5)


def test_the_last_block_is_described_by_its_pooled_token_and_the_mean_of_what_was_seen(params):
    images, ids, _, _ = example()
    tree = float64(params)
    features, told = apply_both(params, "describe_image", images)
    tokens = plain_patches(SMALL, tree, float64(images))
    first = plain_norm(tokens[:, 0], tree["vision_model"]["post_layernorm"], SMALL.layer_norm_eps)
    np.testing.assert_allclose(features, plain_image(SMALL, tree, float64(images)), atol=1e-5)
    np.testing.assert_allclose(told, np.concatenate([first, tokens[:, 1:].mean(1)], axis=1), atol=1e-5)

    features, told = apply_both(params, "describe_text", ids)
    tokens, ends = plain_words(SMALL, tree, ids), [list(row).index(EOT) for row in ids]
    last = np.stack([row[end] for row, end in zip(tokens, ends, strict=True)])
    last = plain_norm(last, tree["text_model"]["final_layer_norm"], SMALL.layer_norm_eps)
    mean = np.stack([row[: end + 1].mean(0) for row, end in zip(tokens, ends, strict=True)])
    np.testing.assert_allclose(features, plain_text(SMALL, tree, ids), atol=1e-5)
    np.testing.assert_allclose(told, np.concatenate([last, mean], axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("injection", "layers"), [("add", 1), ("add", 3), ("replace", 3), ("attend", 2), ("attend", 3)]
)
def test_features_with_prompts_equal_the_plain_computation(params, injection, layers):
    images, ids, visual, textual = example(layers=layers)
    image_features = apply(params, "encode_image", images, visual, injection=injection)
    text_features = apply(params, "encode_text", ids, textual, injection=injection)
    tree = float64(params)
    expected = plain_image(SMALL, tree, float64(images), float64(visual), injection)
    np.testing.assert_allclose(image_features, expected, atol=1e-5)
    np.testing.assert_allclose(text_features, plain_text(SMALL, tree, ids, float64(textual), injection), atol=1e-5)


@pytest.mark.parametrize(("causal", "places"), [(True, [0, 3, 10, 5]), (False, 0)])
def test_a_block_asked_for_one_token_gives_the_same_output_and_gradient(causal, places):
    block = Block(SMALL, SMALL.vision, causal, jnp.float32)
    x, weight = np.random.default_rng(0).standard_normal((2, 4, 11, SMALL.vision.width)).astype(np.float32)
    only = jnp.array(places) if causal else places
    tree = seeded_params(SMALL, seed=3)["vision_model"]["encoder"]["layers_0"]

    def whole(x):
        out = block.apply({"params": tree}, x)[np.arange(4), places]
        return jnp.sum(out * weight[:, 0]), out

    def single(x):
        out = block.apply({"params": tree}, x, only)[:, 0]
        return jnp.sum(out * weight[:, 0]), out

    results = [jax.jit(jax.grad(function, has_aux=True))(x) for function in (single, whole)]
    chex.assert_trees_all_close(*results, atol=1e-5)


def test_trimmed_captions_have_the_same_features(params):
    _, ids, _, textual = example()
    ids[2, -1] = 0
    ids[2, 14] = EOT  # the longest caption: 15 tokens
    short = trim(ids)
    assert short.shape == (3, 16)
    np.testing.assert_allclose(
        apply(params, "encode_text", short), apply(params, "encode_text", ids), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        apply(params, "encode_text", short, textual), apply(params, "encode_text", ids, textual), rtol=0, atol=1e-6
    )


def test_words_behind_the_end_token_change_nothing(params):
    _, ids, _, _ = example()
    other = np.where(np.arange(ids.shape[1]) > ids.argmax(1)[:, None], 1, ids)
    other[0, -1] = EOT  # Hugging Face pads with EOT: the first counts
    np.testing.assert_allclose(apply(params, "encode_text", other), apply(params, "encode_text", ids), atol=1e-6)


# ---- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("injection", ["add", "replace", "attend"])
def test_one_prompt_set_for_all_equals_the_same_set_for_each(params, injection):
    images, ids, visual, textual = example()
    for method, items, prompts in (("encode_image", images, visual[0]), ("encode_text", ids, textual[0])):
        shared = apply(params, method, items, prompts, injection=injection)
        each = apply(params, method, items, np.broadcast_to(prompts, (3, *prompts.shape)), injection=injection)
        np.testing.assert_allclose(shared, each, rtol=0, atol=1e-6)


@pytest.mark.parametrize("injection", ["add", "attend"])
def test_each_item_sees_its_own_prompts_only(params, injection):
    images, ids, visual, textual = example()
    for method, items, prompts in (("encode_image", images, visual), ("encode_text", ids, textual)):
        together = apply(params, method, items, prompts, injection=injection)
        for row in range(3):
            alone = apply(params, method, items[row : row + 1], prompts[row], injection=injection)
            np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=1e-5)


def test_no_deep_row_means_no_deep_injection(params):
    images, ids, visual, textual = example()
    deep = np.zeros_like(visual)
    deep[:, 0] = visual[:, 0]
    np.testing.assert_allclose(
        apply(params, "encode_image", images, visual[:, :1]), apply(params, "encode_image", images, deep), atol=1e-6
    )
    assert np.abs(apply(params, "encode_text", ids, textual) - apply(params, "encode_text", ids)).max() > 1e-2


def without_values(prompts):
    """Keys as they are, values of zero."""
    keys, values = np.split(prompts, 2, axis=-2)
    return np.concatenate([keys, np.zeros_like(values)], axis=-2)


@pytest.mark.parametrize("each", [False, True], ids=["shared", "per_item"])
def test_attended_values_of_zero_leave_every_bit_of_the_features(params, each):
    images, ids, visual, textual = example()
    for method, items, prompts in (("encode_image", images, visual), ("encode_text", ids, textual)):
        plain = apply(params, method, items)
        chosen = prompts if each else prompts[0]
        features = apply(params, method, items, without_values(chosen), injection="attend")
        np.testing.assert_array_equal(features, plain)
        assert np.abs(apply(params, method, items, chosen, injection="attend") - plain).max() > 1e-2  # values are felt


def test_attended_prompts_take_no_position_of_a_caption(params):
    """A caption that fills the context goes with prompts, and more prompts than the context has positions do too."""
    _, ids, _, _ = example()
    ids[:] = np.where(ids == EOT, 1, ids)
    ids[:, -1] = EOT
    many = np.random.default_rng(5).standard_normal((3, 2, 2 * SMALL.context_length, SMALL.text.width))
    features = apply(params, "encode_text", ids, many.astype(np.float32), injection="attend")
    np.testing.assert_allclose(features, plain_text(SMALL, float64(params), ids, many, "attend"), atol=1e-5)


@pytest.mark.parametrize("side", ["encode_image", "encode_text"])
@pytest.mark.parametrize("depth", [1, 2])
def test_attended_prompts_equal_the_slow_reference(side, depth):
    prompts = tiny.draw(tiny.tower(side).width, 2, per_item=True)
    prompts = np.concatenate([prompts, prompts[::-1]], axis=2)
    features = tiny.by_package(side, prompts[:, :depth], "attend")
    np.testing.assert_allclose(features, tiny.by_reference(side, prompts, "attend", depth), atol=1e-5)


@pytest.mark.parametrize("injection", ["add", "attend"])
def test_every_prompt_number_gets_a_gradient(params, injection):
    images, ids, visual, textual = example()
    model = CLIP(SMALL, injection=injection)

    def loss(visual, textual):
        image = model.apply({"params": params}, images, visual, method="encode_image")
        text = model.apply({"params": params}, ids, textual, method="encode_text")
        return jnp.sum(image[:, 0]) + jnp.sum(text[:, 0])

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1)))(visual, textual):
        assert np.isfinite(gradient).all()
        assert (np.asarray(gradient) != 0).mean() > 0.99


@pytest.mark.parametrize("injection", ["add", "replace", "attend"])
def test_what_is_computed_again_changes_no_gradient(params, injection):
    images, ids, *prompts = example()

    def gradient(remat):
        model = CLIP(SMALL, injection=injection, remat=remat)

        def loss(visual, textual):
            image = model.apply({"params": params}, images, visual, method="encode_image")
            text = model.apply({"params": params}, ids, textual, method="encode_text")
            return jnp.sum(image[:, 0]) + jnp.sum(text[:, 0])

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(*prompts)

    kept = gradient("none")
    for remat in ("blocks", "dots"):
        chex.assert_trees_all_close(gradient(remat), kept, rtol=1e-5, atol=1e-6)


# ---- numbers and shapes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPENAI)
def test_openai_models_have_their_known_sizes_and_shapes(name):
    config, size = OPENAI[name]
    params = param_shapes(config)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == size
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    images = jax.ShapeDtypeStruct((2, config.image_size, config.image_size, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((2, 48), jnp.int32)
    prompts = [jax.ShapeDtypeStruct((9, 16, tower.width), jnp.float32) for tower in (config.vision, config.text)]
    model = CLIP(config, dtype=jnp.bfloat16)
    image, text = jax.eval_shape(
        lambda tree, images, ids, visual, textual: (
            model.apply({"params": tree}, images, visual, method="encode_image"),
            model.apply({"params": tree}, ids, textual, method="encode_text"),
        ),
        params,
        images,
        ids,
        *prompts,
    )
    chex.assert_shape([image, text], (2, config.embed_dim))
    chex.assert_type([image, text], jnp.float32)


def test_features_have_length_one_and_the_scale_is_the_factor(params):
    images, ids, _, _ = example()
    image, text, scale = compiled("__call__", SMALL)(params, images, ids)
    np.testing.assert_allclose(np.linalg.norm(image, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(text, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(image, apply(params, "encode_image", images), atol=1e-6)
    np.testing.assert_allclose(scale, np.exp(params["logit_scale"]), rtol=1e-6)


def test_bfloat16_features_keep_a_cosine_above_0_999(params):
    images, ids, visual, textual = example()
    for method, items, prompts in (("encode_image", images, visual), ("encode_text", ids, textual)):
        exact, rounded = (apply(params, method, items, prompts, dtype=t) for t in (jnp.float32, jnp.bfloat16))
        assert rounded.dtype == jnp.float32
        assert np.sum(exact * rounded, axis=-1).min() > 0.999
        assert np.abs(exact - rounded).max() > 0  # it did compute in another precision


@pytest.mark.parametrize("injection", ["add", "attend"])
def test_leaves_kept_in_bfloat16_change_no_bit_of_what_bfloat16_towers_compute(params, injection):
    def narrow(steps, leaf):
        return np.asarray(leaf).astype(kept(tuple(step.key for step in steps), jnp.bfloat16))

    narrowed = jax.tree_util.tree_map_with_path(narrow, params)
    of = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for name, tree in (("a", params), ("b", narrowed))}
    assert of["b"] < 0.75 * of["a"]
    assert narrowed["logit_scale"].dtype == narrowed["visual_projection"]["kernel"].dtype == np.float32
    images, ids, *prompts = example()
    model = CLIP(SMALL, dtype=jnp.bfloat16, injection=injection)

    @jax.jit
    def features_and_gradients(params):
        def loss(visual, textual):
            image = model.apply({"params": params}, images, visual, method="encode_image")
            text = model.apply({"params": params}, ids, textual, method="encode_text")
            return jnp.sum(image[:, 0]) + jnp.sum(text[:, 0]), (image, text)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(*prompts)

    chex.assert_trees_all_equal(features_and_gradients(narrowed), features_and_gradients(params))


def test_initial_values_have_clips_scales():
    config = CLIPConfig(32, 8, 64, TowerConfig(128, 2, 2, 512), TowerConfig(64, 3, 1, 256), 2000, 40)
    params = init_params(config, jax.random.key(0))
    chex.assert_trees_all_equal(params, init_params(config, jax.random.key(0)))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, param_shapes(config))
    block = params["vision_model"]["encoder"]["layers_1"]
    text = params["text_model"]
    for leaf, std in (
        (block["self_attn"]["q_proj"]["kernel"], 128**-0.5),
        (block["self_attn"]["out_proj"]["kernel"], (2 * 2 * 128) ** -0.5),
        (block["mlp"]["fc1"]["kernel"], (2 * 128) ** -0.5),
        (block["mlp"]["fc2"]["kernel"], (2 * 2 * 128) ** -0.5),
        (params["visual_projection"]["kernel"], 128**-0.5),
        (text["embeddings"]["token_embedding"]["embedding"], 0.02),
        (text["embeddings"]["position_embedding"]["embedding"], 0.01),
    ):
        np.testing.assert_allclose(np.std(leaf), std, rtol=0.05)
    np.testing.assert_allclose(np.exp(params["logit_scale"]), 1 / 0.07, rtol=1e-6)
    assert not np.any(block["mlp"]["fc1"]["bias"])


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "items", "prompts", "sentence"),
    [
        ("encode_image", (2, 28, 28, 3), None, r"images must be \[B, 30, 30, 3\]"),
        ("encode_image", (2, 3, 30, 30), None, r"images must be \[B, 30, 30, 3\]"),
        ("encode_image", (2, 30, 30, 3), (4, 2, 32), "4 layers; this tower takes 1 to 3"),
        ("encode_image", (2, 30, 30, 3), (3, 2, 24), r"image prompts must be \[L, P, 32\]"),
        ("encode_image", (2, 30, 30, 3), (5, 3, 2, 32), r"or \[2, L, P, 32\]; got \[5, 3, 2, 32\]"),
        ("encode_text", (2, 27), None, "N from 1 to 26"),
        ("encode_text", (26,), None, "N from 1 to 26"),
        ("encode_text", (2, 16), (4, 2, 24), "4 layers; this tower takes 1 to 3"),
        ("encode_text", (2, 16), (2, 15, 24), "15 text prompts, a start and an end token do not fit in 16 tokens"),
        ("encode_text", (2, 16), (2, 32), "text prompts must be"),
    ],
)
def test_wrong_shapes_are_named(params, method, items, prompts, sentence):
    items = np.zeros(items, np.float32 if method == "encode_image" else np.int32)
    prompts = None if prompts is None else np.zeros(prompts, np.float32)
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(lambda: CLIP(SMALL).apply({"params": params}, items, prompts, method=method))


def test_impossible_configurations_are_named(params):
    with pytest.raises(ValueError, match="a width that its heads divide"):
        TowerConfig(32, 2, 5, 64)
    with pytest.raises(ValueError, match="activation 'relu' is unknown"):
        CLIPConfig(**{**vars(SMALL), "activation": "relu"})
    with pytest.raises(ValueError, match="patch_size 31 does not fit in image_size 30"):
        CLIPConfig(**{**vars(SMALL), "patch_size": 31})
    images, _, _, _ = example()
    with pytest.raises(ValueError, match="injection 'ad' is unknown"):
        CLIP(SMALL, injection="ad").apply({"params": params}, images, method="encode_image")
