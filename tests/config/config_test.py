"""The configuration: the two presets are the specification's numbers, and what no run could use is named."""

import ast
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax.config import command_line
from lpi_jax.config.table import OPTIONS, RENAMED
from lpi_jax.errors import UserError

FILES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))

# The numbers of the method's description, section by section; the second column is `released` where it differs.
SPECIFIED = {
    # 1. Factorised prompts
    "method.layers": (9,),
    "method.length": (16,),
    "method.rank": (4,),
    # 2. Where prompts enter
    "method.depth": (9, 1),
    "method.injection": ("add",),
    "method.interaction": (False,),
    # 3. Losses
    "method.alignment_weight": (0.1,),
    "method.task_weight": (0.1,),
    "method.alignment": ("cosine", "released"),
    "method.task": ("intended", "released"),
    "method.threshold": (0.4,),
    "method.similarity": ("text",),
    # 4. Training one task
    "train.optimizer": ("sgd",),
    "train.optimizer_args.momentum": (0.9,),
    "train.optimizer_args.weight_decay": (2e-4,),
    "train.lr": (0.05,),
    "train.schedule": ("cosine",),
    "train.epochs": (10,),
    "train.batch": (64,),
    "data.train_transform": ("random",),
    "data.crop_scale": ((0.08, 1.0),),
    "data.flip": (True,),
    "data.max_words": (30,),
    "pixels": ("clip", "imagenet"),
    # 5. Routing
    "routing.centres": (5,),
    "routing.caption": ("plain", "placeholders"),
    "task_id": ("inferred",),
    # 6. Evaluation
    "eval.gallery": ("union",),
    "eval.transform": ("centre", "random"),
    # for the record
    "preset": ("intended", "released"),
    "method.name": ("lpi",),
}


@pytest.mark.parametrize(("name", "column"), [("intended", 0), ("released", -1)])
def test_a_preset_holds_the_numbers_of_the_specification(name, column):
    values = configs.flat(configs.preset(name))
    assert {key: values[key] for key in SPECIFIED} == {key: value[column] for key, value in SPECIFIED.items()}


def test_the_presets_differ_in_nothing_but_what_the_specification_says():
    intended, released = configs.flat(configs.intended()), configs.flat(configs.released())
    different = {key for key in intended if intended[key] != released[key]}
    assert intended.keys() == released.keys()
    assert different == {key for key, value in SPECIFIED.items() if len(value) == 2}


def test_anchored_begins_at_the_frozen_model_and_measures_comparably():
    intended, anchored = configs.flat(configs.intended()), configs.flat(configs.anchored())
    for key in ("train.optimizer_args.momentum", "train.optimizer_args.weight_decay"):
        del intended[key]  # another optimiser's
    assert intended.keys() == anchored.keys()
    assert {key: value for key, value in anchored.items() if value != intended[key]} == {
        "preset": "anchored",
        "method.injection": "attend",
        "method.alignment_weight": 0.0,
        "method.task_weight": 0.0,
        "routing.rule": "lda",
        "routing.features": "tower",
        "eval.score": "matched+prior",
        "eval.equal_texts": "one",
        "train.optimizer": "adam",
        "train.schedule": "smooth",
        "train.lr": 0.03,
        "train.min_steps": 60,
        "train.held_out": 0.1,
    }


def test_the_defaults_train_5284_numbers_a_task_on_vit_b16():
    method = configs.intended().method
    numbers = (method.layers + 2 * method.length + 768 + 512) * method.rank
    assert numbers == 5_284
    assert 12 * numbers == 63_408
    assert method.layers * method.length * (768 + 512) == 184_320


@pytest.mark.parametrize("name", configs.PRESETS)
def test_presets_pass_their_own_check_and_are_locked(name):
    config = configs.preset(name)
    configs.check(config)
    assert config.is_locked
    for misspelt in ("train.lrr", "data.domain", "seeed"):
        with pytest.raises(KeyError, match=misspelt.rpartition(".")[2]):
            config.update_from_flattened_dict({misspelt: 1})
    with pytest.raises(TypeError, match="epochs"):
        config.train.epochs = 1.5
    config.train.optimizer_args.b1 = 0.9  # another optimiser has other arguments
    configs.check(config)


def test_two_presets_share_nothing():
    first, second = configs.intended(), configs.intended()
    first.train.optimizer_args.momentum = 0.0
    first.method.depth = 1
    assert second.train.optimizer_args.momentum == 0.9
    assert second.method.depth == 9


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"^preset is 'releasd', expected one of anchored, intended, released$"):
        configs.preset("releasd")


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_the_tiny_backbone_gets_no_more_layers_than_it_has(preset):
    config = configs.preset(preset)
    depth = config.method.depth
    configs.for_tiny_backbone(config)
    configs.check(config)
    assert config.method.layers == 4
    assert config.method.depth == min(depth, 4)


# ---- the files in configs/ -------------------------------------------------------------------------------------------


def test_there_are_config_files():
    assert {file.stem for file in FILES} >= {"scenes_lpi", "clipart_lpi", "own_data_lpi"}


@pytest.mark.parametrize("file", [file for file in FILES if "lpi" in file.stem], ids=lambda file: file.stem)
@pytest.mark.parametrize("preset", configs.PRESETS)
def test_a_config_file_of_lpi_makes_all_presets(file, preset):
    config = command_line.load(f"{file}:{preset}")
    configs.check(config)
    assert config.preset == preset
    assert config.is_locked
    assert config.eval.transform == ("random" if preset == "released" else "centre")
    if preset == ("released" if file.stem.endswith("released") else "anchored"):
        assert command_line.load(str(file)).to_dict() == config.to_dict()


@pytest.mark.parametrize("file", [file for file in FILES if "modalprompt" in file.stem], ids=lambda file: file.stem)
@pytest.mark.parametrize("preset", ["intended", "released"])
def test_a_config_file_of_modalprompt_makes_both_presets(file, preset):
    config = command_line.load(f"{file}:{preset}")
    config.unlock()
    config.data.path = config.data.path or "instructions"
    configs.check(config)
    assert (config.preset, config.method.name, config.problem.name) == (preset, "modalprompt", "instruction")
    assert config.method.freeze_last == (preset == "released")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_file_says_how_and_on_what_it_runs(file):
    header = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    command = f"Command:  python -m lpi_jax.main --config=configs/{file.name}"
    assert command in header
    assert "--workdir=" in header
    assert any(line.startswith("Hardware: ") and len(line) > len("Hardware: ") + 5 for line in header.splitlines())


# ---- what no run could use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task_id", "orakel", "config.task_id is 'orakel', expected 'inferred' or 'oracle'"),
        ("dtype", "float16", "config.dtype is 'float16', expected 'float32' or 'bfloat16'"),
        ("pixels", "", "config.pixels is '', expected 'clip' or 'imagenet'"),
        ("method.injection", "insert", "config.method.injection is 'insert', expected 'add' or 'replace'"),
        ("method.alignment", "intended", "config.method.alignment is 'intended', expected 'released' or 'cosine'"),
        ("method.task", "cosine", "config.method.task is 'cosine', expected 'released' or 'intended'"),
        ("train.schedule", "linear", "config.train.schedule is 'linear', expected 'cosine' or 'smooth' or"),
        ("data.on_bad_example", "stop", "config.data.on_bad_example is 'stop', expected 'error' or 'skip'"),
        ("data.train_transform", "center", "config.data.train_transform is 'center', expected 'random' or 'centre'"),
        ("eval.transform", "center", "config.eval.transform is 'center', expected 'centre' or 'random'"),
        ("eval.gallery", "all", "config.eval.gallery is 'all', expected 'union' or 'task'"),
        ("routing.caption", "X", "config.routing.caption is 'X', expected 'plain' or 'placeholders'"),
        ("train.epochs", 0, "config.train.epochs is 0, expected at least 1"),
        ("train.batch", -4, "config.train.batch is -4, expected at least 1"),
        ("train.log_every", 0, "config.train.log_every is 0, expected at least 1"),
        ("train.checkpoint_every", 0, "config.train.checkpoint_every is 0, expected at least 1"),
        ("train.lr", -0.1, "config.train.lr is -0.1, expected at least 0"),
        ("train.lr", float("nan"), "config.train.lr is nan, expected a finite number"),
        ("method.task_weight", float("inf"), "config.method.task_weight is inf, expected a finite number"),
        ("method.rank", 0, "config.method.rank is 0, expected at least 1"),
        ("method.length", -1, "config.method.length is -1, expected at least 0"),
        ("method.depth", -1, "config.method.depth is -1, expected at least 0"),
        (
            "method.depth",
            10,
            "config.method.depth is 10, expected at most config.method.layers, 9; use --config.method.depth=9 or"
            " --config.method.layers=10",
        ),
        ("method.name", "nonsense", "config.method.name is 'nonsense', expected one of lpi, l2p, lora,"),
        ("train.batches", (4, 0), "config.train.batches is (4, 0), expected whole numbers of pairs, one for each task"),
        ("train.groups", ("a",), "config.train.groups holds 'a', expected a pair of a regular expression and a factor"),
        ("train.warmup", -1, "config.train.warmup is -1, expected at least 0"),
        ("train.clip_norm", -0.5, "config.train.clip_norm is -0.5, expected at least 0"),
        ("train.accumulate", 0, "config.train.accumulate is 0, expected at least 1"),
        ("train.decay", "none", "config.train.decay is 'none', expected 'all' or 'matrices'"),
        ("data.name", "scene", "config.data.name is 'scene', expected one of scenes, jsonl, coco, flickr30k, tfds"),
        ("data.val_share", 1.5, "config.data.val_share is 1.5, expected at most 1"),
        ("routing.centres", 0, "config.routing.centres is 0, expected at least 1"),
        ("eval.batch", 0, "config.eval.batch is 0, expected at least 1"),
        ("data.max_words", 0, "config.data.max_words is 0, expected at least 1"),
        ("data.val", 0, "config.data.val is 0, expected at least 1"),
        ("data.cache_mb", -1, "config.data.cache_mb is -1, expected at least 0"),
        ("seed", -1, "config.seed is -1, expected at least 0"),
        ("data.seed", -1, "config.data.seed is -1, expected at least 0"),
        ("devices", -1, "config.devices is -1, expected at least 0"),
        ("data.crop_scale", (0.5, 0.1), "config.data.crop_scale is (0.5, 0.1), expected two numbers"),
        ("data.crop_scale", (0.0, 1.0), "config.data.crop_scale is (0.0, 1.0), expected two numbers"),
        ("data.crop_scale", (0.5, 1.5), "config.data.crop_scale is (0.5, 1.5), expected two numbers"),
        ("data.crop_scale", (0.5,), "config.data.crop_scale is (0.5,), expected two numbers"),
        ("data.crop_scale", ("a", "b"), "config.data.crop_scale is ('a', 'b'), expected two numbers"),
    ],
)
def test_an_impossible_value_is_named_with_what_was_expected(key, value, message):
    config = configs.intended()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as refused:
        configs.check(config)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"epochs": 1.5}, "config.train.epochs is 1.5, expected a whole number"),
        ("train", {"epochs": True}, "config.train.epochs is True, expected a whole number"),
        ("train", {"lr": "fast"}, "config.train.lr is 'fast', expected a number"),
        ("train", {"lrr": 0.1}, "config has no key 'train.lrr'; the closest is 'train.lr'"),
        ("data", {"flip": 1}, "config.data.flip is 1, expected true or false"),
        ("data", {"domains": "fax"}, "config.data.domains is 'fax', expected a tuple"),
        ("data", {"path": None}, "config.data.path is None, expected text"),
    ],
)
def test_a_configuration_made_by_hand_is_checked_as_well(section, changes, message):
    tree = configs.intended().to_dict()
    tree[section] |= changes
    with pytest.raises(UserError) as refused:
        configs.check(ConfigDict(tree))
    assert str(refused.value) == message


def test_a_missing_key_is_named():
    tree = configs.intended().to_dict()
    del tree["eval"]["gallery"]
    with pytest.raises(UserError, match=r"^config.eval.gallery is missing, expected text such as 'union'$"):
        configs.check(ConfigDict(tree))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("train.lrr", "train.lr"),
        ("tran.lr", "train.lr"),
        ("lr", "train.lr"),
        ("train.lr.x", "train.lr"),
        ("data.domain", "data.domains"),
        ("promt.depht", "method.depth"),
        ("oracle.task_id", "task_id"),
    ],
)
def test_the_closest_key_is_the_one_meant(wrong, right):
    assert configs.closest(wrong, configs.flat(configs.intended())) == right


# ---- keys as they were called before ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_that_is_called_otherwise_now_is_an_error_that_says_so(old, new):
    assert new in OPTIONS and old not in OPTIONS
    said = f"config.{old} is called config.{new} now; use --config.{new}=..."
    with pytest.raises(UserError) as refused:
        command_line.change(configs.intended(), old, "4")
    assert str(refused.value) == said
    tree = configs.intended().to_dict()
    *path, name = old.split(".")
    if path:
        tree[path[0]] = {name: 4}
    else:
        tree[name] = "lpi"
    with pytest.raises(UserError) as refused:
        configs.check(ConfigDict(tree))
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config.prompt.length = 4", "config.prompt.length is called config.method.length now"),
        ("config.loss.task = 'released'", "config.loss.alignment is called config.method.alignment now"),
        ("config.method = 'zero_shot'", "config.method is called config.method.name now"),
        ("config.update({'prompt': {'length': 4}})", "config.prompt.length is called config.method.length now"),
    ],
)
def test_a_file_for_an_older_version_is_told_in_one_sentence_with_its_line(tmp_path, text, said):
    file = tmp_path / "old.py"
    file.write_text(
        f"from lpi_jax import config as c\ndef get_config():\n  config = c.intended()\n  {text}\n  return config\n"
    )
    with pytest.raises(UserError) as refused:
        command_line.load(str(file))
    assert str(refused.value) == f"{file}, line 4: {said}"
