"""Checkpoints: nothing is lost on the way in or out, and whatever does not fit is named."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from lpi_jax.errors import UserError
from lpi_jax.models import tensor_files, weights
from lpi_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from lpi_jax.models.tokenizer import Tokenizer
from tests.support.record_activations import inputs, seeded_params

CONFIG = CLIPConfig(16, 8, 24, TowerConfig(64, 2, 1, 48), TowerConfig(128, 1, 2, 40), 30, 10)
QUERY = "text_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def params():
    return seeded_params(CONFIG, seed=7)


@pytest.fixture
def saved(tmp_path, params):
    """A Hugging Face directory and its tensors."""
    weights.save(tmp_path / "hf", CONFIG, params)
    return tmp_path / "hf", load_file(tmp_path / "hf" / "model.safetensors")


def features(config, params):
    model = CLIP(config)
    images, ids = inputs(config, 3, seed=0)
    return jax.jit(lambda tree: model.apply({"params": tree}, images, ids))(params)[:2]


def assert_equal(tree, expected):
    flat, expected = traverse_util.flatten_dict(tree), traverse_util.flatten_dict(expected)
    assert flat.keys() == expected.keys()
    for path, leaf in flat.items():
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, expected[path], err_msg="/".join(path), strict=True)


def openai_state(params):
    """The same model under OpenAI's names, written down by hand."""

    def norm(name, leaf):
        return {f"{name}.weight": leaf["scale"], f"{name}.bias": leaf["bias"]}

    def dense(name, leaf):
        return {f"{name}.weight": leaf["kernel"].T, f"{name}.bias": leaf["bias"]}

    def blocks(prefix, encoder):
        state = {}
        for layer, block in encoder.items():
            name = f"{prefix}transformer.resblocks.{layer.removeprefix('layers_')}"
            attention = [block["self_attn"][part] for part in ("q_proj", "k_proj", "v_proj")]
            state[f"{name}.attn.in_proj_weight"] = np.concatenate([part["kernel"].T for part in attention])
            state[f"{name}.attn.in_proj_bias"] = np.concatenate([part["bias"] for part in attention])
            state |= dense(f"{name}.attn.out_proj", block["self_attn"]["out_proj"])
            state |= norm(f"{name}.ln_1", block["layer_norm1"]) | norm(f"{name}.ln_2", block["layer_norm2"])
            state |= dense(f"{name}.mlp.c_fc", block["mlp"]["fc1"]) | dense(f"{name}.mlp.c_proj", block["mlp"]["fc2"])
        return state

    vision, text = params["vision_model"], params["text_model"]
    return {
        "visual.class_embedding": vision["embeddings"]["class_embedding"],
        "visual.conv1.weight": vision["embeddings"]["patch_embedding"]["kernel"].transpose(3, 2, 0, 1),
        "visual.positional_embedding": vision["embeddings"]["position_embedding"]["embedding"],
        **norm("visual.ln_pre", vision["pre_layrnorm"]),
        **blocks("visual.", vision["encoder"]),
        **norm("visual.ln_post", vision["post_layernorm"]),
        "visual.proj": params["visual_projection"]["kernel"],
        "token_embedding.weight": text["embeddings"]["token_embedding"]["embedding"],
        "positional_embedding": text["embeddings"]["position_embedding"]["embedding"],
        **blocks("", text["encoder"]),
        **norm("ln_final", text["final_layer_norm"]),
        "text_projection": params["text_projection"]["kernel"],
        "logit_scale": params["logit_scale"],
    }


# ---- round trips -----------------------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path, params, saved):
    directory, _ = saved
    config, loaded = weights.load(directory)
    assert config == CONFIG
    assert_equal(loaded, params)
    assert weights.fingerprint(loaded) == weights.fingerprint(params)
    weights.save(tmp_path / "again", config, loaded)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors"]


def test_the_layout_is_hugging_faces(params, saved):
    _, state = saved
    block = params["text_model"]["encoder"]["layers_0"]
    np.testing.assert_array_equal(state[QUERY], block["self_attn"]["q_proj"]["kernel"].T)
    assert state["vision_model.embeddings.patch_embedding.weight"].shape == (64, 3, 8, 8)
    assert state["vision_model.pre_layrnorm.weight"].shape == (64,)
    assert state["visual_projection.weight"].shape == (24, 64)
    assert state["logit_scale"].shape == ()


def test_half_precision_halves_the_file_and_keeps_a_cosine_above_0_9999(tmp_path, params, saved):
    directory, _ = saved
    weights.save(tmp_path / "half", CONFIG, jax.tree.map(jax.numpy.asarray, params), dtype=np.float16)
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 0.6 * (directory / "model.safetensors").stat().st_size
    config, half = weights.load(tmp_path / "half")
    assert_equal(half, jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), params))
    for exact, rounded in zip(features(CONFIG, params), features(config, half), strict=True):
        assert np.sum(exact * rounded, axis=-1).min() > 0.9999


def test_half_precision_refuses_what_it_cannot_hold(tmp_path, params):
    large = jax.tree.map(np.copy, params)
    large["logit_scale"] = np.float32(7e4)
    with pytest.raises(UserError, match="logit_scale has values that float16 cannot hold"):
        weights.save(tmp_path, CONFIG, large, dtype=np.float16)
    with pytest.raises(UserError, match="saved as float32 or float16, not as float64"):
        weights.save(tmp_path, CONFIG, params, dtype=np.float64)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_files(monkeypatch, params, saved):
    directory, state = saved
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        weights.save(directory, CONFIG, jax.tree.map(np.zeros_like, params))
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors"]
    np.testing.assert_array_equal(load_file(directory / "model.safetensors")[QUERY], state[QUERY])


def test_a_tree_of_another_configuration_is_not_saved(tmp_path, params):
    other = CLIPConfig(**{**vars(CONFIG), "vocab_size": 31})
    with pytest.raises(UserError, match="text_model/embeddings/token_embedding/embedding"):
        weights.save(tmp_path, other, params)
    with pytest.raises(UserError, match="logit_scale"):
        weights.save(tmp_path, CONFIG, {key: value for key, value in params.items() if key != "logit_scale"})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(saved, params, dtype):
    directory, state = saved
    save_file({key: value.astype(dtype) for key, value in state.items()}, directory / "model.safetensors")
    _, loaded = weights.load(directory)
    assert_equal(loaded, jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), params))


def test_the_fingerprint_sees_names_shapes_and_every_bit(params):
    first = weights.fingerprint(params)
    assert len(first) == 64
    assert weights.fingerprint(jax.tree.map(jax.numpy.asarray, params)) == first
    changed = jax.tree.map(np.copy, params)
    leaf = changed["visual_projection"]["kernel"]
    leaf[0, 0] = np.nextafter(leaf[0, 0], np.float32(9))
    reshaped = {**params, "visual_projection": {"kernel": params["visual_projection"]["kernel"].reshape(24, 64)}}
    renamed = {("log" if key == "logit_scale" else key): value for key, value in params.items()}
    assert len({first, *(weights.fingerprint(tree) for tree in (changed, reshaped, renamed))}) == 4


# ---- Hugging Face directories ----------------------------------------------------------------------------------------


def test_shards_are_put_together(saved, params):
    directory, state = saved
    (directory / "model.safetensors").unlink()
    where = {key: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, key in enumerate(sorted(state))}
    for name in set(where.values()):
        save_file({key: state[key] for key in state if where[key] == name}, directory / name)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    assert_equal(weights.load(directory)[1], params)

    def refused(weight_map, sentence):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(UserError, match=sentence):
            weights.load(directory)

    for name in ("../hf/model-00001-of-00002.safetensors", "/etc/passwd", "model.bin", "..", 3):
        refused({**where, QUERY: name}, "is not the name of a .safetensors file beside it")
    refused({**where, "more": where[QUERY]}, "model.safetensors.index.json promises tensors that its shards lack: more")
    refused([], "weight_map must map")
    (directory / where[QUERY]).unlink()
    refused(where, f"{where[QUERY]} does not exist")


def test_a_tensor_in_two_shards_is_refused(saved):
    directory, state = saved
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    save_file({QUERY: state[QUERY]}, directory / "b.safetensors")
    where = {**dict.fromkeys(state, "a.safetensors"), QUERY: "b.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(UserError, match=r"b\.safetensors repeats tensors of another shard"):
        weights.load(directory)


def test_all_that_does_not_fit_is_listed(saved):
    directory, state = saved
    del state[QUERY], state["logit_scale"]
    state |= {"extra.weight": np.zeros(2, np.float32), "visual_projection.weight": np.zeros((64, 24), np.float32)}
    save_file(state, directory / "model.safetensors")
    with pytest.raises(UserError) as error:
        weights.load(directory)
    sentence = str(error.value)
    assert f"missing: logit_scale, {QUERY}" in sentence
    assert "not used by the model: extra.weight" in sentence
    assert "of the wrong shape: visual_projection.weight is [64, 24], expected [24, 64]" in sentence


def test_position_ids_are_ignored_and_integers_refused(saved, params):
    directory, state = saved
    extra = {f"{tower}.embeddings.position_ids": np.arange(5)[None] for tower in ("text_model", "vision_model")}
    save_file(state | extra, directory / "model.safetensors")
    assert_equal(weights.load(directory)[1], params)
    save_file(state | {"logit_scale": np.array(4)}, directory / "model.safetensors")
    with pytest.raises(UserError, match="logit_scale has dtype int64, expected float16"):
        weights.load(directory)


def read_config(tmp_path, fields):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return weights._config_from_hf(fields, tmp_path / "config.json")


def test_missing_fields_have_the_defaults_of_transformers(tmp_path):
    b32 = CLIPConfig(224, 32, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408)
    assert read_config(tmp_path, {}) == b32
    fields = {"text_config": {"eos_token_id": 2}, "vision_config": None, "text_config_dict": None, "unknown": 1}
    assert read_config(tmp_path, fields) == b32
    fields = {"text_config": {"hidden_size": 512}, "text_config_dict": {"hidden_size": 768}, "projection_dim": 768}
    assert read_config(tmp_path, fields).text.width == 768


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "siglip"}, "model_type must be 'clip', not 'siglip'"),
        ({"text_config": {"eos_token_id": 7}}, "eos_token_id must be 49407, the highest id"),
        ({"text_config": {"vocab_size": 99, "eos_token_id": 49407}}, "eos_token_id must be 98"),
        ({"text_config": {"eos_token_id": [2]}}, "eos_token_id must be 49407"),
        ({"text_config": {"hidden_act": "gelu"}}, "hidden_act must be the same in both towers"),
        ({"text_config": {"hidden_act": "x"}, "vision_config": {"hidden_act": "x"}}, "hidden_act must be one of"),
        ({"text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps must be the same"),
        ({"vision_config": {"num_channels": 1}}, "num_channels must be 3, not 1"),
        ({"vision_config": {"hidden_size": "768"}}, "hidden_size must be a whole number from 1 to"),
        ({"vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers must be a whole number from 1 to 512"),
        ({"vision_config": {"num_attention_heads": 7}}, "a width that its heads divide"),
        ({"vision_config": {"patch_size": 300}}, "patch_size 300 does not fit in image_size 224"),
        ({"vision_config": {"image_size": True}}, "image_size must be a whole number"),
        ({"projection_dim": 0}, "projection_dim must be a whole number"),
        ({"text_config": 3}, "text_config must be an object, not 3"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        read_config(tmp_path, fields)


# ---- OpenAI's names --------------------------------------------------------------------------------------------------


def test_openai_names_give_the_same_model(params):
    config, loaded = weights.from_openai(openai_state(params))
    assert config == CONFIG
    assert_equal(loaded, params)
    for same, expected in zip(features(config, loaded), features(CONFIG, params), strict=True):
        np.testing.assert_array_equal(same, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_one_file_with_openai_names_is_enough(tmp_path, params, suffix, dtype):
    state = {key: np.array(value, dtype, order="C") for key, value in openai_state(params).items()}
    for key, value in (("input_resolution", 16), ("context_length", 10), ("vocab_size", 30)):
        state[key] = np.array(value)
    path = tmp_path / f"model{suffix}"
    if suffix == ".npz":
        np.savez(path, **state)
    else:
        save_file(state, path)
    config, loaded = weights.load(str(path))
    assert config == CONFIG
    assert_equal(loaded, jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), params))


def test_openai_tensors_that_do_not_fit_are_named(params):
    def refused(changes, sentence):
        state = openai_state(params) | changes
        with pytest.raises(UserError, match=sentence):
            weights.from_openai({key: value for key, value in state.items() if value is not None})

    fused = "visual.transformer.resblocks.1.attn.in_proj_weight"
    refused({fused: None, "ln_final.bias": None}, rf"missing: ln_final\.bias, {fused}")
    refused({"more": np.zeros(1)}, "not used by the model: more")
    refused({fused: np.zeros((64, 64), np.float32)}, rf"{fused} is \[64, 64\], expected \[192, 64\]")
    refused({"visual.proj": None}, r"missing: visual\.proj")
    refused({"token_embedding.weight": None}, r"missing: token_embedding\.weight")
    refused({"visual.conv1.weight": np.zeros((64, 8, 8))}, r"visual\.conv1\.weight is \[64, 8, 8\], expected 4 dim")
    refused({"visual.positional_embedding": np.zeros((6, 64))}, "has 6 rows, expected 1 \\+ a square number")
    refused({"visual.conv1.weight": np.zeros((96, 3, 8, 8))}, "is 96, expected a multiple of 64")
    refused({"visual.layer1.0.conv1.weight": np.zeros(1)}, "is a ResNet CLIP")
    refused({"vision_model.post_layernorm.bias": np.zeros(1)}, "has Hugging Face's key names")


# ---- the configuration alone -----------------------------------------------------------------------------------------


def test_the_configuration_of_a_directory_needs_its_config_only(saved):
    directory, _ = saved
    assert weights.config(directory) == weights.load(directory)[0] == CONFIG
    (directory / "model.safetensors").write_bytes(b"damaged")
    assert weights.config(str(directory)) == CONFIG
    (directory / "model.safetensors").unlink()
    assert weights.config(directory) == CONFIG
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not readable JSON"):
        weights.config(directory)
    (directory / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        weights.config(directory)


def test_the_configuration_of_one_file_follows_from_its_shapes(tmp_path, params, monkeypatch):
    state = openai_state(params)
    del state["logit_scale"]  # only `load` finds out
    np.savez(tmp_path / "model.npz", **state)
    save_file({key: np.array(value, order="C") for key, value in state.items()}, tmp_path / "model.safetensors")
    for name in ("model.npz", "model.safetensors"):
        with pytest.raises(UserError, match="missing: logit_scale"):
            weights.load(tmp_path / name)
    monkeypatch.setattr(tensor_files, "tensors", lambda path: pytest.fail(f"the tensors of {path} were read"))
    for name in ("model.npz", "model.safetensors"):
        assert weights.config(tmp_path / name) == CONFIG


def test_a_file_without_a_configuration_is_refused_as_it_is_by_load(tmp_path, saved, params):
    directory, _ = saved
    (tmp_path / "damaged.safetensors").write_bytes(b"\x01")
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    (tmp_path / "clip.pt").write_bytes(pickle.dumps(Trap()))
    odd = openai_state(params) | {"visual.positional_embedding": np.zeros((6, 64), np.float32)}
    save_file({key: np.array(value, order="C") for key, value in odd.items()}, tmp_path / "odd.safetensors")
    save_file({"visual.layer1.0.conv1.weight": np.zeros(1)}, tmp_path / "resnet.safetensors")
    names = ("damaged.safetensors", "damaged.npz", "clip.pt", "odd.safetensors", "resnet.safetensors", "gone.npz")
    for path in (directory / "model.safetensors", *(tmp_path / name for name in names)):
        said = []
        for read in (weights.load, weights.config):
            with pytest.raises(UserError) as error:
                read(path)
            said.append(str(error.value))
        assert said[0] == said[1] and str(path) in said[0]


# ---- files that cannot be read ---------------------------------------------------------------------------------------


def test_damaged_safetensors_are_named(saved):
    directory, _ = saved
    path = directory / "model.safetensors"
    good = path.read_bytes()
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    for bad in (
        b"",
        b"\x01",
        good[: len(good) // 2],
        good[:40],
        struct.pack("<Q", 2**63) + good[8:],
        struct.pack("<Q", len(header)) + header,
        struct.pack("<Q", 4) + b"null",
        b"\x80\x04" + good,
        good + b"\0",
    ):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"model\.safetensors is not a readable safetensors file"):
            weights.load(directory)
    path.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        weights.load(directory)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_damaged_npz_files_and_pickles_are_named(tmp_path, params):
    path = tmp_path / "model.npz"

    def refused(sentence=r"model\.npz is not a readable \.npz file of plain arrays"):
        with pytest.raises(UserError, match=sentence):
            weights.load(path)

    np.savez(path, **openai_state(params))
    good = path.read_bytes()
    for bad in (b"", b"PK", good[: len(good) // 2], good.replace(b"descr", b"dexcr"), pickle.dumps(Trap())):
        path.write_bytes(bad)
        refused()
    np.savez(path, logit_scale=np.array([Trap()], object))
    refused("allow_pickle=False")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logit_scale", b"no array")
    refused()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("logit_scale.npy", bytes(2**27))
    refused("would unpack to 134217728 bytes")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logit_scale.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    refused()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": ' * 100_000, "\udcff"])
def test_a_damaged_config_is_named(saved, text):
    directory, _ = saved
    (directory / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r"config\.json (is not readable JSON|must hold a JSON object)"):
        weights.load(directory)


def test_wrong_paths_are_named(tmp_path, saved):
    directory, _ = saved
    with pytest.raises(UserError, match="nowhere does not exist"):
        weights.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone\.npz does not exist"):
        weights.load("gone.npz")
    with pytest.raises(UserError, match="give the directory that holds it"):
        weights.load(directory / "model.safetensors")
    with pytest.raises(UserError, match=r"expected a directory, a \.safetensors or a \.npz file"):
        weights.load(directory / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        weights.load(tmp_path / "empty")


@pytest.mark.parametrize("read", [weights.local_path, weights.load, weights.config, Tokenizer.load])
@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("~nobody-here/clip", "Could not determine home directory"),
        ("x" * 9999, "File name too long"),
        ("a/" * 4999 + "clip", "File name too long"),
        ("~\0/clip", "embedded null byte"),
    ],
    ids=["home", "name", "path", "null"],
)
def test_impossible_paths_are_told_in_one_short_sentence(monkeypatch, name, reason, kind, read):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(UserError) as error:
        read(kind(name))
    sentence = str(error.value)
    assert f"{name[:100]!r}"[:-1] in sentence and reason in sentence
    assert sentence.endswith("expected a checkpoint directory, a checkpoint file or a hub id")
    assert len(sentence) < 600 and "\n" not in sentence


def test_hub_ids_fetch_only_what_is_needed(monkeypatch, saved, params):
    directory, _ = saved
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, sorted(allow_patterns)))
        if name != "some/clip":
            raise OSError("no\nsuch model")
        return str(directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert_equal(weights.load("some/clip")[1], params)
    assert asked == [("some/clip", ["*.json", "*.safetensors", "*.txt"])]
    with pytest.raises(UserError, match=r"other/clip is neither a local path nor a hub id .*\(no such model\)"):
        weights.load("other/clip")
