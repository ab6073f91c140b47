"""The model against transformers' classes: live where torch is installed, and always against what they gave once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.models.llava import LLaVA
from lpi_jax.models.llava.config import LlamaConfig
from lpi_jax.models.llava.generation import generate
from lpi_jax.models.llava.llama import Llama
from lpi_jax.models.llava.llava import Inputs
from tests.models.llava import small


def ours(seed: int, new: int) -> dict[str, np.ndarray]:
    """The same numbers as small.torch_features and small.torch_answers."""
    config, params = small.model(seed)
    model, images, ids = LLaVA(config), small.images(3), small.token_ids(3, 7)

    @jax.jit
    def all_of(params):
        def run(*arguments, method):
            return model.apply({"params": params}, *arguments, method=method)

        patches = run(images, method=lambda m, x: m.vision_model.with_patches(x, config.hidden_layer)[0])
        projected = run(small.question_ids(3), True, method="encode_question")
        pooled = run(small.question_ids(3), method="encode_question")
        return (
            patches,
            run(images, method="encode_image")[1],
            pooled,
            projected,
            run(ids, images, method="logits").logits,
        )

    patches, feature, pooled, projected, logits = all_of(params)
    answers = generate(model, params, Inputs(ids, images), new).ids
    return {
        "patches": patches,
        "image_embeds": feature,
        "pooler_output": pooled,
        "text_embeds": projected,
        "logits": logits,
        "answers": answers,
    }


def assert_alike(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 if name == "logits" else 1e-5, err_msg=name)


@pytest.fixture
def torch_side():
    """Skips without torch; keeps progress bars out of the output."""
    pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    from transformers.utils import logging

    logging.disable_progress_bar()


def test_features_logits_and_greedy_answers_are_the_recorded_ones():
    with np.load(small.RECORDED, allow_pickle=False) as file:
        assert_alike(ours(small.SEED, file["answers"].shape[1]), dict(file))


@pytest.mark.parity
@pytest.mark.parametrize("seed", [0, 1])
def test_features_logits_and_greedy_answers_are_those_of_transformers(seed, torch_side):
    tensors = small.state(seed)
    assert_alike(ours(seed, 8), small.torch_features(tensors) | small.torch_answers(tensors, 8))


@pytest.mark.parity
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_with_shared_key_heads_has_the_logits_of_transformers(kv_heads, tied, torch_side):
    import torch
    import transformers as hf

    config = LlamaConfig(40, 32, 2, 4, kv_heads, 48, rms_norm_eps=1e-6, rope_theta=5e3, tied=tied)
    theirs = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            intermediate_size=48,
            rope_parameters={"rope_type": "default", "rope_theta": 5e3},
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
    ).eval()
    rng = np.random.default_rng(kv_heads)
    model, ids = Llama(config, jnp.float32), rng.integers(3, 40, (2, 9), np.int32)
    places, valid = np.broadcast_to(np.arange(9, dtype=np.int32), (2, 9)), np.ones((2, 9), bool)

    def run(module, ids):
        return module.logits(module(module.embed(ids), places, valid)[0])

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), ids, method=run))["params"]
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32) * np.float32(0.3), shapes)
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = tuple(part.key for part in path)
        tensors[small.name_of(("language_model", *names))] = leaf.T if names[-1] == "kernel" else leaf
    if tied:
        tensors["language_model.lm_head.weight"] = tensors["language_model.embed_tokens.weight"]
    small.filled(theirs, tensors)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids.astype(np.int64))).logits.numpy()
    with jax.default_matmul_precision("highest"):
        found = model.apply({"params": params}, ids, method=run)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parity
def test_a_linear_projector_is_that_of_transformers(torch_side):
    import torch

    config = dataclasses.replace(small.CONFIG, projector="linear")
    tensors = small.state(2, config)
    params = small.weights.from_hf(tensors, small.FIELDS)[1]
    tokens, _ = LLaVA(config).apply({"params": params}, small.images(2), method="encode_image")
    patches = torch.from_numpy(small.torch_features(tensors)["patches"][:2])
    matrix, bias = (torch.from_numpy(tensors[f"projector.linear_1.{part}"]) for part in ("weight", "bias"))
    expected = torch.nn.functional.linear(patches, matrix, bias).numpy()
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=1e-5)
