"""Weights that OpenAI did not publish: read as they were meant, or refused in a sentence; guesses are told."""

import json

import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save_file

from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import assemble
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.run import continual
from tests.models.weights_test import CONFIG, assert_equal, openai_state
from tests.support.record_activations import seeded_params

OTHERS = CLIPConfig(**{**vars(CONFIG), "vision": TowerConfig(64, 2, 4, 48), "activation": "gelu"})


@pytest.fixture(scope="module")
def params():
    return seeded_params(CONFIG, seed=7)


def described(**changes):
    """open_clip_config.json of OTHERS; changes by section and key, such as vision_cfg__width."""
    vision = {"image_size": 16, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "mlp_ratio": 0.75}
    text = {"context_length": 10, "vocab_size": 30, "width": 128, "heads": 2, "layers": 1}
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (model[part] if part else model)[name] = value
    return {"model_cfg": model, "preprocess_cfg": {"mean": [0.48145466, 0.4578275, 0.40821073]}}


def written(folder, state, description=None, name="open_clip_model.safetensors"):
    folder.mkdir(exist_ok=True)
    save_file({key: np.array(value, order="C") for key, value in state.items()}, folder / name)
    if description is not None:
        (folder / "open_clip_config.json").write_text(json.dumps(description))
    return folder


def wide_state(vision, text):
    """Shapes of a CLIP of these widths with a block each, held in one number per tensor."""

    def zeros(*shape):
        return np.broadcast_to(np.float32(0), shape)

    def blocks(prefix, width):
        name = f"{prefix}transformer.resblocks.0"
        return {f"{name}.mlp.c_fc.weight": zeros(4 * width, width)}

    return {
        "visual.conv1.weight": zeros(vision, 3, 14, 14),
        "visual.positional_embedding": zeros(5, vision),
        "token_embedding.weight": zeros(99, text),
        "positional_embedding": zeros(77, text),
        "text_projection": zeros(text, 64),
        **blocks("visual.", vision),
        **blocks("", text),
    }


# ---- what the files say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["directory", "file"])
def test_activation_and_heads_are_those_of_open_clip_config(tmp_path, params, ask):
    folder = written(tmp_path / "clip", openai_state(params), described())
    path = folder if ask == "directory" else folder / "open_clip_model.safetensors"
    config, loaded = weights.load(path)
    assert config == weights.config(path) == OTHERS
    assert_equal(loaded, params)
    assert config.assumed.endswith(
        ": activation gelu (open_clip_config.json), 4 vision heads (open_clip_config.json),"
        " 2 text heads (open_clip_config.json)"
    )
    written(folder, openai_state(params), described(quick_gelu=True))
    assert weights.config(path).activation == "quick_gelu"


def test_keys_go_before_files_and_files_before_what_openai_has(tmp_path, params):
    state = openai_state(params)
    assert weights.from_openai(state)[0] == CONFIG
    told = weights.Towers(activation="gelu", vision_heads=4)
    config, loaded = weights.from_openai(state, told)
    assert config == OTHERS
    assert_equal(loaded, params)
    assert "activation gelu (config.towers), 4 vision heads (config.towers), 2 text heads (assumed" in config.assumed
    folder = written(tmp_path / "clip", state, described())
    assert weights.config(folder, weights.Towers(vision_heads=8)).vision.heads == 8
    with pytest.raises(UserError, match="a width that its heads divide"):
        weights.from_openai(state, weights.Towers(vision_heads=7))


def test_what_is_assumed_is_always_said(tmp_path, params):
    path = written(tmp_path / "clip", openai_state(params), name="x.safetensors") / "x.safetensors"
    config, _ = weights.load(path)
    assert config.assumed == (
        f"{path}: activation quick_gelu (assumed, as OpenAI's), 1 vision heads (assumed, as OpenAI's), 2 text heads"
        " (assumed, as OpenAI's); open_clip_config.json beside the weights or config.towers tells of others'"
    )
    weights.save(tmp_path / "hf", CONFIG, params)
    assert weights.load(tmp_path / "hf")[0].assumed == ""
    with pytest.raises(UserError, match=r"config\.towers says activation 'gelu', but .*config\.json says it itself"):
        weights.load(tmp_path / "hf", weights.Towers("gelu"))


def test_a_description_may_be_the_model_alone_as_open_clips_own_list_has_it(tmp_path, params):
    folder = written(tmp_path / "clip", openai_state(params), described()["model_cfg"])
    assert weights.config(folder) == OTHERS
    written(folder, openai_state(params), described(vision_cfg__pool_type="avg")["model_cfg"])
    with pytest.raises(UserError, match="pool_type is 'avg'"):
        weights.load(folder)
    for nothing in ({}, {"preprocess_cfg": {}}, {"text_cfg": {}}):
        written(folder, openai_state(params), nothing)
        with pytest.raises(UserError, match=r"open_clip_config\.json has neither model_cfg nor vision_cfg; expected"):
            weights.load(folder)


@pytest.mark.parametrize("copies", [("open_clip_model",), ("open_clip_model", "model")])
def test_a_folder_with_a_config_of_timms_is_one_of_open_clips(tmp_path, params, hub, copies):
    for folder in (tmp_path / "clip", hub[0]):
        for name in copies:  # timm's own weights are others, and not looked at
            state = openai_state(params) if name.startswith("open_clip") else {"head.weight": np.zeros(2, np.float32)}
            written(folder, state, described(), name=f"{name}.safetensors")
        (folder / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_clip_224", "num_classes": 0}))
    for path in (tmp_path / "clip", "some/clip"):
        config, loaded = weights.load(path)
        assert config == weights.config(path) == OTHERS
        assert_equal(loaded, params)


def test_a_config_of_transformers_beside_open_clips_description_goes_first(tmp_path, params):
    weights.save(tmp_path, CONFIG, params)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described()))
    assert weights.load(tmp_path)[0] == CONFIG
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not readable JSON"):
        weights.load(tmp_path)


def test_other_pixels_are_said(tmp_path, params):
    description = described()
    description["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    folder = written(tmp_path / "clip", openai_state(params), description)
    assert weights.config(folder).assumed.endswith("it saw pixels of mean [0.5, 0.5, 0.5]: compare config.pixels")


def test_a_run_says_and_records_what_was_assumed(make_config, tiny_clip, tmp_path, capfd):
    _, params = weights.load(tiny_clip)
    written(tmp_path / "clip", openai_state(params), name="x.safetensors")
    changes = {
        "backbone": str(tmp_path / "clip" / "x.safetensors"),
        "tokenizer": str(tiny_clip),
        "method.name": "zero_shot",
    }
    told = {"towers.activation": "gelu", "towers.vision_heads": 2, "towers.text_heads": 2}
    found = continual.run(make_config({**changes, **told, "data.domains": ("fax",)}), tmp_path / "run")
    sentence = "x.safetensors: activation gelu (config.towers), 2 vision heads (config.towers), 2 text heads"
    assert sentence in found["parameters"]["backbone_assumed"]
    assert sentence in "".join(capfd.readouterr())


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(1280, 1024), (1664, 1280), (768, 768), (512, 512), (384, 384)])
def test_widths_that_openai_never_had_are_refused_unless_told(widths):
    with pytest.raises(UserError, match=r"never had.*open_clip_config\.json.*--config\.towers\.vision_heads"):
        weights.from_openai(wide_state(*widths))
    with pytest.raises(UserError, match="tensors missing") as error:  # it got as far as the tensors
        weights.from_openai(wide_state(*widths), weights.Towers("gelu", 16, 16))
    assert "never had" not in str(error.value)


@pytest.mark.parametrize("widths", [(768, 512), (1024, 768)])
def test_widths_of_openai_are_read(widths):
    with pytest.raises(UserError, match="tensors missing"):
        weights.from_openai(wide_state(*widths))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vision_cfg__timm_model_name": "vit_base"}, "vision_cfg.timm_model_name is 'vit_base', which is another"),
        ({"text_cfg__hf_model_name": "roberta"}, "text_cfg.hf_model_name is 'roberta'"),
        ({"vision_cfg__attentional_pool": True}, "vision_cfg.attentional_pool is True"),
        ({"vision_cfg__pool_type": "avg"}, "vision_cfg.pool_type is 'avg'"),
        ({"text_cfg__pool_type": "last"}, "text_cfg.pool_type is 'last'"),
        ({"text_cfg__no_causal_mask": True}, "text_cfg.no_causal_mask is True"),
        ({"vision_cfg__ls_init_value": 0.1}, "vision_cfg.ls_init_value is 0.1"),
        ({"vision_cfg__a_new_thing": 3}, "vision_cfg.a_new_thing is 3"),
        ({"vision_cfg__layers": [3, 4, 6, 3]}, "a ResNet CLIP"),
        ({"multimodal_cfg": {}}, "a CoCa"),
        ({"init_logit_bias": -10}, "a SigLIP"),
        ({"vision_cfg__width": "64"}, "vision_cfg.width must be a whole number above 0, not '64'"),
        ({"vision_cfg": []}, r"vision_cfg must be an object, not \[\]"),
        ({"vision_cfg__width": 128}, r"describes other weights than .*vision_width 128 \(tensors: 64\)"),
        ({"text_cfg__vocab_size": 31}, r"text_vocab_size 31 \(tensors: 30\)"),
    ],
)
def test_another_model_in_open_clip_config_is_one_sentence(tmp_path, params, changes, sentence):
    folder = written(tmp_path / "clip", openai_state(params), described(**changes))
    with pytest.raises(UserError, match=sentence):
        weights.load(folder)


@pytest.mark.parametrize(
    ("key", "family"),
    [
        ("logit_bias", "SigLIP"),
        ("visual.trunk.blocks.0.norm1.weight", "timm"),
        ("visual.blocks.0.attn.q_bias", "EVA-CLIP"),
        ("text.transformer.embeddings.word_embeddings.weight", "transformers"),
        ("text_decoder.ln_final.weight", "CoCa"),
        ("image_encoder.model.head.weight", "MobileCLIP"),
        ("transformer.resblocks.0.ls_1.gamma", "layer scale"),
    ],
)
def test_other_families_are_named(params, key, family):
    with pytest.raises(UserError, match=f"is an? .*{family}.*only CLIP's own ViT towers are supported"):
        weights.from_openai(openai_state(params) | {key: np.zeros(1, np.float32)})


# ---- other ways to write the same ------------------------------------------------------------------------------------


def test_prefixes_buffers_and_a_scale_with_an_axis_are_accepted(params):
    state = openai_state(params)
    state |= {"logit_scale": state["logit_scale"].reshape(1), "attn_mask": np.zeros((10, 10), np.float32)}
    state |= {"position_ids": np.arange(10)[None]}
    text = {key: f"text.{key}" for key in state if not key.startswith(("visual.", "logit_scale"))}
    apart = {text.get(key, key): value for key, value in state.items()}
    for same in (state, apart, {f"module.{key}": value for key, value in apart.items()}):
        config, loaded = weights.from_openai(same)
        assert config == CONFIG
        assert_equal(loaded, params)


def test_a_padded_vocabulary_is_pooled_at_its_tokenizers_end(tmp_path, params, make_config, tiny_clip):
    config = CLIPConfig(**{**vars(CONFIG), "end_of_text": 24})
    weights.save(tmp_path / "hf", config, params)
    assert weights.load(tmp_path / "hf")[0] == config
    padded, tree = weights.load(tiny_clip)
    weights.save(tmp_path / "more", CLIPConfig(**{**vars(padded), "end_of_text": padded.vocab_size - 2}), tree)
    with pytest.raises(UserError, match=r"the tokenizer ends captions with id .* pools them at id"):
        assemble(make_config({"backbone": str(tmp_path / "more"), "tokenizer": str(tiny_clip)}), streamed=False)


def flax_tree(tree):
    """As transformers' Flax models name it: blocks one level deeper."""
    if not isinstance(tree, dict):
        return np.asarray(tree)
    blocks = {key.removeprefix("layers_"): flax_tree(tree[key]) for key in tree if key.startswith("layers_")}
    return {"layers": blocks} if blocks else {key: flax_tree(value) for key, value in tree.items()}


def test_flax_weights_are_read(tmp_path, params):
    weights.save(tmp_path, CONFIG, params)
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(serialization.msgpack_serialize(flax_tree(params)))
    config, loaded = weights.load(tmp_path)
    assert config == CONFIG
    assert_equal(loaded, params)
    good = path.read_bytes()
    objects = serialization.msgpack_serialize({"logit_scale": np.zeros(2)}).replace(b"float64", b"object_")
    for bad in (b"", good[:-9], b"\x93\x01\x02\x03", b"\x81" * 10**5, b"\xdf\xff\xff\xff\xff", objects):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"flax_model\.msgpack is not a readable msgpack file of Flax's"):
            weights.load(tmp_path)


# ---- the hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of one repository, whose files are those of the folder; what was asked of it."""
    folder, asked = tmp_path / "repository", []

    def snapshot_download(name, allow_patterns, revision=None):
        asked.append((name, revision))
        seen = tmp_path / f"seen{len(asked)}"
        seen.mkdir()
        for pattern in allow_patterns:
            for path in folder.glob(pattern):
                (seen / path.name).write_bytes(path.read_bytes())
        return str(seen)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda name, revision: [p.name for p in folder.iterdir()])
    return folder, asked


def test_a_revision_of_a_hub_id_is_asked_for(hub, params):
    folder, asked = hub
    weights.save(folder, CONFIG, params)
    assert_equal(weights.load("some/clip@refs/pr/12")[1], params)
    assert asked == [("some/clip", "refs/pr/12")]


def test_a_hub_id_with_open_clips_files_or_flaxs_is_read(hub, params):
    folder, _ = hub
    written(folder, openai_state(params), described())
    assert weights.load("some/clip")[0] == OTHERS
    for path in folder.iterdir():
        path.unlink()
    weights.save(folder, CONFIG, params)
    (folder / "model.safetensors").unlink()
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(flax_tree(params)))
    assert_equal(weights.load("some/clip")[1], params)


def test_a_hub_id_without_weights_names_what_is_there_and_the_next_step(hub):
    folder, _ = hub
    folder.mkdir()
    for name in ("config.json", "pytorch_model.bin", "tf_model.h5"):
        (folder / name).write_text("{}")
    sentence = r"some/clip holds pytorch_model.bin, tf_model.h5 but no model.safetensors.*ID@REVISION.*save_pretrained"
    with pytest.raises(UserError, match=sentence):
        weights.load("some/clip")
    with pytest.raises(UserError, match=r"model.safetensors does not exist; the folder holds pytorch_model.bin, tf_"):
        weights.load(folder)
