"""Holds the plain LLaMA against numbers worked by hand, and against transformers' where torch is installed."""

import math

import numpy as np
import pytest

from tests.reference import llama

SILENT = {"q": 0.0, "k": 0.0, "v": 1.0, "o": 1.0}


def one_block(width=2, vocabulary=3):
    """A model of one block whose attention is uniform and whose MLP is silent."""
    name, zero, eye = "model.layers.0", np.zeros((width, width)), np.eye(width)
    return {
        **{f"{name}.self_attn.{part}_proj.weight": share * eye for part, share in SILENT.items()},
        **{f"{name}.mlp.{part}_proj.weight": zero for part in ("gate", "up", "down")},
        f"{name}.input_layernorm.weight": np.ones(width),
        f"{name}.post_attention_layernorm.weight": np.ones(width),
        "model.norm.weight": np.ones(width),
        "model.embed_tokens.weight": np.eye(vocabulary, width),
        "lm_head.weight": np.eye(vocabulary, width),
    }


def random_model(layers=2, width=16, heads=4, shared=2, hidden=24, vocabulary=11):
    """Weights from seed 0, keys and values with `shared` heads."""
    rng, size = np.random.default_rng(0), width // heads
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "lm_head.weight": (vocabulary, width)}
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.self_attn.{part}_proj.weight": (width, width) for part in "qo"}
        shapes |= {f"{name}.self_attn.{part}_proj.weight": (shared * size, width) for part in "kv"}
        shapes |= {f"{name}.mlp.{part}_proj.weight": (hidden, width) for part in ("gate", "up")}
        shapes[f"{name}.mlp.down_proj.weight"] = (width, hidden)
        shapes |= {f"{name}.{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    shapes["model.norm.weight"] = (width,)
    return {name: rng.normal(size=shape) * (0.3 if len(shape) > 1 else 1.0) for name, shape in shapes.items()}


def test_the_norm_does_not_centre():
    np.testing.assert_allclose(
        llama.rms_norm(np.array([3.0, 4.0]), np.array([1.0, 2.0]), 1e-5), np.array([3, 8]) / math.sqrt(12.5 + 1e-5)
    )


def test_the_rotation_pairs_the_two_halves():
    x, turned = np.array([1.0, 10.0, 0.0, 0.0]), 2 * 1e4**-0.5
    expected = [math.cos(2), 10 * math.cos(turned), math.sin(2), 10 * math.sin(turned)]
    np.testing.assert_allclose(llama.rotate(x, 2, 1e4), expected, rtol=1e-12)
    np.testing.assert_allclose(
        llama.rotate(np.array([0.0, 1.0]), 3, 1e4), [-math.sin(3), math.cos(3)], rtol=1e-12
    )  # from the second half back into the first


def test_attention_averages_what_a_position_may_see():
    x = 1000 * np.array([[[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]])  # of root mean square 1000: added rows are (+-1, +-1)
    weights, name = one_block(), "model.layers.0.self_attn"
    mixed = llama.attention(x[0] / 1000, weights, name, 1, [1, 1, 1], range(3), 1e4)
    np.testing.assert_allclose(mixed, [[1, -1], [0, 0], [1 / 3, 1 / 3]], atol=1e-12)
    mixed = llama.attention(x[0] / 1000, weights, name, 1, [0, 1, 1], range(3), 1e4)
    np.testing.assert_allclose(mixed, [[1, -1], [-1, 1], [0, 1]], atol=1e-12)
    logits = llama.forward(weights, x, heads=2)
    last = np.array([1000 + 1 / 3, 1000 + 1 / 3, 0])
    np.testing.assert_allclose(logits[0, 2], last / last.max(), rtol=1e-6)


def test_scores_are_products_over_the_root_of_the_size_of_a_head():
    weights = {f"a.{part}_proj.weight": np.eye(4) for part in "qkvo"}
    x = np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 1.0]])  # products of the second: 2 with the first, 5 with itself
    share = 1 / (1 + math.exp((5 - 2) / 2))
    found = llama.attention(x, weights, "a", 1, [1, 1], [0, 0], 1e4)
    np.testing.assert_allclose(found, [[1, 0, 0, 0], [2 - share, 0, 0, 1 - share]], rtol=1e-12)


def test_query_heads_share_key_heads_in_neighbouring_groups():
    kept, scaled = np.eye(8), np.diag([5.0, 5.0, 7.0, 7.0, 0, 0, 0, 0])[:4]
    weights = {f"a.{part}_proj.weight": kept for part in "qo"} | {f"a.{part}_proj.weight": scaled for part in "kv"}
    # Four query heads of size 2 over two value heads, 5 (x_0, x_1) and 7 (x_2, x_3), at the only position.
    x = np.array([[1.0, 1.5, 2.0, 2.5, 0, 0, 0, 0]])
    found = llama.attention(x, weights, "a", 4, [1], [0], 1e4)
    np.testing.assert_allclose(found, [[5, 7.5, 5, 7.5, 14, 17.5, 14, 17.5]], rtol=1e-12)


def test_the_mlp_gates_with_silu():
    weights = one_block() | {
        "model.layers.0.self_attn.o_proj.weight": np.zeros((2, 2)),
        "model.layers.0.mlp.gate_proj.weight": np.array([[2.0, 0.0]]),
        "model.layers.0.mlp.up_proj.weight": np.array([[0.0, 3.0]]),
        "model.layers.0.mlp.down_proj.weight": np.array([[0.0], [5.0]]),
    }
    x = np.array([1.0, 1.0]) * (1 + 5e-6)  # of the norm 1 but for the epsilon
    second = 1 + 5 * 3 * 2 / (1 + math.exp(-2))
    expected = np.array([1, second, 0]) / math.sqrt((1 + second**2) / 2)
    np.testing.assert_allclose(llama.forward(weights, x[None, None], heads=1)[0, 0], expected, rtol=1e-4)


def test_only_the_distances_of_positions_count_and_padding_on_either_side_is_not_seen():
    weights = random_model()
    x = np.random.default_rng(1).normal(size=(5, 16))
    plain = llama.forward(weights, x[None], heads=4)[0]
    np.testing.assert_allclose(llama.forward(weights, x[None], 4, positions=[range(7, 12)])[0], plain, atol=1e-10)
    padded = np.stack([np.concatenate([np.ones((2, 16)), x]), np.concatenate([x, np.ones((2, 16))])])
    mask, positions = [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]], [[0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 0, 0]]
    left, right = llama.forward(weights, padded, 4, mask, positions)
    np.testing.assert_allclose(left[2:], plain, atol=1e-12)
    np.testing.assert_allclose(right[:5], plain, atol=1e-12)
    np.testing.assert_allclose(llama.forward(weights, x[None, :3], 4)[0], plain[:3], atol=1e-12)
    apart = llama.forward(weights, x[None], 4, positions=[[0, 2, 4, 6, 8]])[0]
    assert np.abs(apart[1:] - plain[1:]).max(axis=-1).min() > 1e-3


def test_decoding_takes_the_likeliest_token_until_the_end():
    weights = one_block(3, 4) | {f"model.layers.0.self_attn.{part}_proj.weight": np.zeros((3, 3)) for part in "qkvo"}
    weights["model.embed_tokens.weight"] = np.eye(4, 3)
    weights["lm_head.weight"] = np.array([[0.0, 0, 1], [1, 0, 0], [0, 2, 0], [0, 1, 1]])  # 0 -> 1 -> 2 -> 0 -> ...
    start = np.eye(3)[:1]
    assert llama.greedy(weights, start, 1, eos=3, max_new=4) == [1, 2, 0, 1]
    assert llama.greedy(weights, start, 1, eos=2, max_new=4) == [1, 2]
    assert llama.greedy(weights, start, 1, eos=2, max_new=0) == []
    assert llama.greedy(weights, np.zeros((1, 3)), 1, eos=0, max_new=2) == [0]  # all logits equal


@pytest.mark.parity
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_logits_and_greedy_answers_equal_transformers(shared):
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=shared,
        vocab_size=11,
        rms_norm_eps=1e-5,
        attn_implementation="eager",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    weights = random_model(shared=shared)
    model = LlamaForCausalLM(config).double().eval()
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()}, strict=True)
    x = np.random.default_rng(2).normal(size=(2, 6, 16))
    mask = np.array([[1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    positions = np.array([[0, 0, 0, 1, 2, 3], [0, 1, 2, 5, 6, 7]])
    with torch.no_grad():
        theirs = model(
            inputs_embeds=torch.tensor(x), attention_mask=torch.tensor(mask), position_ids=torch.tensor(positions)
        ).logits.numpy()
        answers = [
            model.generate(inputs_embeds=torch.tensor(row[None]), do_sample=False, max_new_tokens=8)[0].tolist()
            for row in x
        ]
    ours = llama.forward(weights, x, 4, mask, positions)
    np.testing.assert_allclose(ours[mask > 0], theirs[mask > 0], atol=1e-5)  # their rotation and norms are of float32
    assert [llama.greedy(weights, row, 4, eos=2, max_new=8) for row in x] == answers
