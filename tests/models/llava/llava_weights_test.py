"""Checkpoints of LLaVA: every name of every version, nothing lost and nothing left over, tensor by tensor."""

import dataclasses
import json
import re
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from lpi_jax.errors import UserError
from lpi_jax.models.llava import weights
from lpi_jax.models.shards import Shards
from tests.models.llava import small

STATE = small.state()
CONFIG, PARAMS = small.model()
TOWER = ("vision_model.", "text_model.", "visual_projection.", "text_projection.")


def assert_equal(tree, expected, dtype=np.float32):
    flat, expected = traverse_util.flatten_dict(tree), traverse_util.flatten_dict(expected)
    assert flat.keys() == expected.keys()
    for path, leaf in flat.items():
        assert leaf.dtype == dtype
        np.testing.assert_array_equal(leaf, expected[path].astype(dtype), err_msg="/".join(path))


def renamed(*rules):
    """The state under other names: the first rule (a prefix, what comes instead) that fits a name counts."""

    def name(key):
        for prefix, instead in rules:
            if key.startswith(prefix):
                return instead + key.removeprefix(prefix)
        return key

    return {name(key): value for key, value in STATE.items()}


FLAT = (("language_model.lm_head", "lm_head"), ("language_model.", "model."))
OLD = (
    ("language_model.lm_head", "language_model.lm_head"),
    ("language_model.", "language_model.model."),
    ("projector.", "multi_modal_projector."),
    ("vision_model.", "vision_tower.vision_model."),
)
NEW = (
    ("language_model.lm_head", "lm_head"),
    ("language_model.", "model.language_model."),
    ("projector.", "model.multi_modal_projector."),
    ("vision_model.", "model.vision_tower."),
)
RELEASED = (
    *FLAT,
    ("projector.linear_1", "model.mm_projector.0"),
    ("projector.linear_2", "model.mm_projector.2"),
    ("vision_model.", "model.vision_tower.vision_tower.vision_model."),
)
BARE = (*FLAT, ("projector.linear_1", "projector.0"), ("projector.linear_2", "projector.2"))


# ---- from a state ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [FLAT, OLD, NEW, RELEASED, BARE], ids=["flat", "old", "new", "released", "bare"])
def test_every_spelling_gives_the_same_tree(rules):
    config, params = weights.from_hf(renamed(*rules), small.FIELDS)
    assert config == CONFIG == small.CONFIG
    assert_equal(params, PARAMS)


def test_the_tree_holds_matrices_the_other_way_round():
    np.testing.assert_array_equal(
        PARAMS["language_model"]["layers_1"]["mlp"]["up_proj"]["kernel"],
        STATE["language_model.layers.1.mlp.up_proj.weight"].T,
    )
    np.testing.assert_array_equal(
        PARAMS["vision_model"]["embeddings"]["patch_embedding"]["kernel"],
        STATE["vision_model.embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
    )


@pytest.mark.parametrize(
    "keys", [("mm_projector.weight", "mm_projector.bias"), ("projector.0.weight", "projector.0.bias")]
)
def test_one_layer_is_a_linear_projector(keys):
    state = {key: value for key, value in STATE.items() if not key.startswith("projector.")}
    state |= dict(zip(keys, (STATE["projector.linear_1.weight"], STATE["projector.linear_1.bias"]), strict=True))
    config, params = weights.from_hf(state, small.FIELDS)
    assert config.projector == "linear"
    assert params["projector"].keys() == {"linear_1"}


def test_sizes_may_stand_in_the_flat_form_or_follow_from_the_shapes():
    text = {key: value for key, value in small.TEXT_FIELDS.items() if key not in ("hidden_size", "vocab_size")}
    flat = {
        **text,
        "model_type": "llava_llama",
        "mm_vision_select_layer": -2,
        "mm_projector_type": "mlp2x_gelu",
        "vision_config": {"num_attention_heads": 4},
        "clip_text_config": {"num_attention_heads": 2},
    }
    assert weights.from_hf(STATE, flat)[0] == dataclasses.replace(small.CONFIG, words=0)
    joint = {**flat, "text_config": small.CLIP_TEXT_FIELDS, "clip_text_config": None, "tokenizer_model_max_length": 77}
    assert weights.from_hf(STATE, joint)[0].max_length == 77


def test_buffers_and_a_logit_scale_are_not_needed_and_a_projection_may_be_absent():
    more = {
        "logit_scale": np.float32(3),
        "text_model.embeddings.position_ids": np.arange(12),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4),
    }
    assert_equal(weights.from_hf({**STATE, **more}, small.FIELDS)[1], PARAMS)
    config, params = weights.from_hf({k: v for k, v in STATE.items() if k != "text_projection.weight"}, small.FIELDS)
    assert not config.text_projection
    assert "text_projection" not in params


def test_tied_embeddings_are_the_output_matrix():
    state = {key: value for key, value in STATE.items() if "lm_head" not in key}
    fields = {**small.FIELDS, "text_config": {**small.TEXT_FIELDS, "tie_word_embeddings": True}}
    config, params = weights.from_hf(state, fields)
    assert config.llama.tied
    assert "lm_head" not in params["language_model"]
    with pytest.raises(UserError, match=r"missing: language_model\.lm_head\.weight"):
        weights.from_hf(state, small.FIELDS)


def test_a_tensor_under_two_names_must_be_the_same():
    twice = {**STATE, "vision_tower.vision_model.post_layernorm.bias": STATE["vision_model.post_layernorm.bias"]}
    assert_equal(weights.from_hf(twice, small.FIELDS)[1], PARAMS)
    twice["vision_tower.vision_model.post_layernorm.bias"] = np.zeros(32, np.float32)
    with pytest.raises(UserError, match="two names"):
        weights.from_hf(twice, small.FIELDS)


@pytest.mark.parametrize("key", sorted(STATE.keys() - {"text_projection.weight"})[::9])
def test_a_missing_tensor_is_named(key):
    state = {k: v for k, v in STATE.items() if k != key}
    with pytest.raises(UserError, match=re.escape(key)):
        weights.from_hf(state, small.FIELDS)


def test_what_does_not_fit_is_listed_as_the_checkpoint_names_it():
    state = renamed(*OLD)
    del state["language_model.model.layers.1.mlp.up_proj.weight"]
    state["language_model.model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
    state["vision_tower.vision_model.encoder.layers.2.mlp.fc2.weight"] = np.zeros((32, 41), np.float32)
    with pytest.raises(UserError) as error:
        weights.from_hf(state, small.FIELDS)
    for said in (
        "missing: language_model.layers.1.mlp.up_proj.weight",
        "not used by the model: language_model.model.layers.0.self_attn.q_proj.bias",
        "vision_tower.vision_model.encoder.layers.2.mlp.fc2.weight is [32, 41], expected [32, 40]",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("text_config", {"num_attention_heads": None}, "num_attention_heads of the LLaMA .* is missing"),
        ("text_config", {"num_attention_heads": 5}, "num_attention_heads 5"),
        ("text_config", {"num_attention_heads": 32}, "num_key_value_heads"),
        ("text_config", {"hidden_size": 48}, r"hidden_size 48 \(tensors: 32\)"),
        ("text_config", {"model_type": "mistral"}, "model_type"),
        ("text_config", {"hidden_act": "gelu"}, "hidden_act"),
        ("text_config", {"rms_norm_eps": "small"}, "rms_norm_eps"),
        ("text_config", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ("text_config", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ("text_config", {"eos_token_id": [2, 3]}, "eos_token_id"),
        ("text_config", {"eos_token_id": 64}, "eos 64"),
        ("vision_config", {"image_size": 42}, "image_size"),
        ("vision_config", {"hidden_act": "relu"}, "hidden_act"),
        ("vision_config", {"num_attention_heads": 8}, "num_attention_heads is 8 in vision_config and 4 in clip"),
        ("clip", {"text_config": {**small.CLIP_TEXT_FIELDS, "num_attention_heads": None}}, "of the text"),
        ("clip", {"vision_config": {**small.VISION_FIELDS, "hidden_size": 64}}, "hidden_size"),
        ("clip", {"text_config": 3}, "text_config must be an object"),
        (None, {"text_config": []}, "text_config must be an object"),
        (None, {"projector_hidden_act": "relu"}, "projector_hidden_act"),
        (None, {"vision_feature_layer": [-2, -1]}, "vision_feature_layer"),
        (None, {"vision_feature_layer": -9}, "feature_layer -9"),
        (None, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told(section, change, said):
    fields = {**small.FIELDS, **(change if section is None else {section: {**small.FIELDS[section], **change}})}
    with pytest.raises(UserError, match=said) as error:
        weights.from_hf(STATE, fields)
    assert "\n" not in str(error.value)


def test_other_dtypes_are_converted_or_told():
    narrow = {key: value.astype(ml_dtypes.bfloat16) for key, value in STATE.items()}
    expected = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16).astype(np.float32), PARAMS)
    assert_equal(weights.from_hf(narrow, small.FIELDS)[1], expected)
    with pytest.raises(UserError, match="int8"):
        weights.from_hf({**STATE, "language_model.norm.weight": np.ones(32, np.int8)}, small.FIELDS)


# ---- from directories ------------------------------------------------------------------------------------------------


def write(directory, shards, fields):
    """A Hugging Face directory of these shards (a list of states)."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(fields))
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors")
        return directory
    where = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, directory / file)
        where |= dict.fromkeys(shard, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return directory


@pytest.fixture
def saved(tmp_path):
    """A LLaVA in three shards and the CLIP beside it."""
    of_llava = {key: value for key, value in renamed(*OLD).items() if not key.startswith(TOWER[1:])}
    keys = sorted(of_llava)
    shards = [{key: of_llava[key] for key in keys[start::3]} for start in range(3)]
    fields = {key: value for key, value in small.FIELDS.items() if key != "clip"}
    of_clip = {key: value for key, value in STATE.items() if key.startswith(TOWER)}
    of_clip |= {"logit_scale": np.array(2.0, np.float32)}
    return write(tmp_path / "llava", shards, fields), write(tmp_path / "clip", [of_clip], small.CLIP_FIELDS)


def test_a_sharded_directory_and_its_clip_give_the_tree(saved):
    config, params = weights.load(*saved)
    assert config == small.CONFIG
    assert_equal(params, PARAMS)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))


def test_the_image_tower_may_come_from_clip(saved, tmp_path):
    own = {key: value for key, value in renamed(*FLAT).items() if not key.startswith(TOWER)}
    flat = {**small.TEXT_FIELDS, "mm_vision_select_layer": -2}
    directory = write(tmp_path / "flat", [own], flat)
    config, params = weights.load(directory, str(saved[1]))
    assert config == dataclasses.replace(small.CONFIG, words=0)
    assert_equal(params, PARAMS)


def test_leaves_have_the_dtype_and_the_sharding_asked_for(saved):
    mesh = Mesh(np.array(jax.devices()[:1]), ("model",))
    whole = NamedSharding(mesh, PartitionSpec())
    _, params = weights.load(*saved, sharding=whole, dtype=ml_dtypes.bfloat16)
    assert_equal(params, PARAMS, ml_dtypes.bfloat16)
    assert {leaf.sharding for leaf in jax.tree.leaves(params)} == {whole}

    def by_leaf(path, shape):
        return NamedSharding(mesh, PartitionSpec("model" if path[-1] == "kernel" and len(shape) == 2 else None))

    _, params = weights.load(*saved, sharding=by_leaf)
    assert params["language_model"]["lm_head"]["kernel"].sharding.spec == PartitionSpec("model")
    assert params["projector"]["linear_1"]["bias"].sharding.spec == PartitionSpec(None)


def test_each_tensor_is_placed_before_the_next_is_read(saved, monkeypatch):
    order, read = [], Shards.tensors

    def watched(self, names):
        for name, tensor in read(self, names):
            order.append("read")
            yield name, tensor

    def where(path, shape):
        order.append("placed")
        return jax.sharding.SingleDeviceSharding(jax.devices()[0])

    monkeypatch.setattr(Shards, "tensors", watched)
    weights.load(*saved, sharding=where)
    assert order == ["read", "placed"] * len(STATE)


@pytest.mark.parametrize(
    "name", ["../clip/model.safetensors", "/etc/passwd", "model.bin", "a/b.safetensors", 3, "..safetensors"]
)
def test_an_index_that_names_other_files_is_refused(saved, name):
    index = saved[0] / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    where[next(iter(where))] = name
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(UserError, match=r"is not the name of a \.safetensors file beside it"):
        weights.load(*saved)


def test_what_the_index_promises_must_be_there(saved):
    index = saved[0] / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**where, "model.extra.weight": next(iter(where.values()))}}))
    with pytest.raises(UserError, match=r"promises tensors that its shards lack: model\.extra\.weight"):
        weights.load(*saved)
    index.write_text(json.dumps({"weight_map": []}))
    with pytest.raises(UserError, match="weight_map"):
        weights.load(*saved)


def test_missing_and_damaged_files_are_told(saved):
    shard = saved[0] / "model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    for damage in (whole[:50], struct.pack("<Q", 2**40) + whole[8:], b"\x80\x04K\x01."):
        shard.write_bytes(damage)
        with pytest.raises(UserError, match="not a readable safetensors file"):
            weights.load(*saved)
    shard.unlink()
    with pytest.raises(UserError, match="does not exist"):
        weights.load(*saved)
    with pytest.raises(UserError, match="does not exist"):
        weights.load(saved[0] / "nowhere", saved[1])
    (saved[1] / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        weights.load(*saved)


def test_another_clip_is_told(saved, tmp_path):
    other = {**small.CLIP_FIELDS, "vision_config": {**small.VISION_FIELDS, "image_size": 56}}
    (saved[1] / "config.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"image_size is 28 in vision_config and 56 in clip\.vision_config"):
        weights.load(*saved)


@pytest.mark.parity
def test_what_transformers_saves_is_read(tmp_path, saved):
    pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    from transformers.utils import logging

    logging.disable_progress_bar()
    small.torch_llava(STATE).save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    config, params = weights.load(tmp_path / "theirs", saved[1])
    assert config == small.CONFIG
    assert_equal(params, PARAMS)
