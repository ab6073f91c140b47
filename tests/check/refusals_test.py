"""What a run would refuse is told by the check: all of it, in the run's own words; what follows is chosen instead."""

import json

import pytest

from lpi_jax import config as configs
from lpi_jax.check import command
from lpi_jax.config import command_line
from lpi_jax.experiment.experiment import method_of, resolved
from lpi_jax.main import main
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.problems.retrieval.assemble import BUNDLED
from lpi_jax.problems.retrieval.problem import sites
from tests.conftest import ROOT
from tests.support.survey_streams import manifest, photo

OWN_DATA = ROOT / "configs" / "own_data_lpi.py"
VIT_B16 = CLIPConfig(224, 16, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408)
VIT_B32 = CLIPConfig(224, 32, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408)


@pytest.fixture
def flags(tmp_path):
    """(backbone) -> the flags of own data with four training captions."""
    rows = [(photo(i), [f"a cat {i}"], "pets", "train" if i < 4 else "val") for i in range(6)]

    def make(backbone):
        path = tmp_path / "stream.jsonl"
        if not path.exists():
            manifest(tmp_path, rows)
        return [f"--config={OWN_DATA}", f"--config.data.path={path}", f"--config.backbone={backbone}"]

    return make


def told(capfd, given, out):
    """What the check says that a run would refuse."""
    assert command.main(["check", f"--out={out}", *given]) == 0
    lines = capfd.readouterr().out.splitlines()
    return [line.partition(": ")[2] for line in lines if line.startswith("a run would refuse: ")]


def refused(capfd, given, workdir):
    """What a run says, which leaves nothing behind."""
    assert main(["main", f"--workdir={workdir}", *given]) == 2
    assert not workdir.exists()
    return capfd.readouterr().err.removeprefix("error: ").removesuffix("\n")


FAULTS = {
    "train.batch=3": "",  # fits
    "train.batch=5": "task 'pets' has 3 training examples, too few for a batch: config.train.batch is 5; use",
    "devices=99": "config.devices is 99, expected 0 (all) to ",
    "method.depth=3": "config.method.depth is 3, but the vision tower has 2 layers; use --config.method.depth=2, or",
    "method.length=40": "config.method.length is 40, too long for a context of 77 tokens and 16 patches; use",
    "method.length=90": "config.method.length is 90, too long for a context of 77 tokens and 16 patches; use",
    "train.optimizer=sdg": "config.train.optimizer is 'sdg', expected 'sgd' or the name of an optax optimiser",
    "train.optimizer_args.momentum=0.9": "config.train.optimizer_args do not fit optimiser 'adam': ",
    "method.injection=add": "config.train.held_out is 0.1, but lpi as configured cannot leave a task to the frozen",
    "method.similarity=nosuch.csv": "similarity table nosuch.csv cannot be read: No such file or directory",
    "reuse=/no/such/run": "/no/such/run/config.json cannot be read (No such file or directory)",
    "tokenizer=/no/such/words": "/no/such/words does not exist; expected a checkpoint directory, a checkpoint file",
}


@pytest.mark.parametrize("fault", [fault for fault, sentence in FAULTS.items() if sentence])
def test_the_check_says_what_the_run_would_say(flags, tiny_clip, tmp_path, capfd, fault):
    given = [*flags(tiny_clip), *([] if fault.startswith("reuse") else ["--config.train.batch=3"]), f"--config.{fault}"]
    (sentence,) = told(capfd, given, tmp_path / "out")
    assert sentence.startswith(FAULTS[fault])
    assert sentence == refused(capfd, given, tmp_path / "run")


def test_a_cache_that_is_too_small_is_found(flags, tiny_clip, tmp_path, capfd):
    small = [f"--config.data.cache_dir={tmp_path / 'cache'}", "--config.data.cache_side=16", "--config.train.batch=3"]
    (sentence,) = told(capfd, [*flags(tiny_clip), *small], tmp_path / "out")
    assert sentence.endswith("of the backbone's images; use --config.data.cache_side=32")
    assert sentence == refused(capfd, [*flags(tiny_clip), *small], tmp_path / "run")


def test_all_refusals_are_told_and_not_the_first_only(flags, tiny_clip, tmp_path, capfd):
    faults = ["train.batch=5", "devices=99", "method.depth=3", "train.optimizer=sdg", "method.similarity=nosuch.csv"]
    sentences = told(capfd, [*flags(tiny_clip), *(f"--config.{fault}" for fault in faults)], tmp_path / "out")
    assert len(sentences) == len(faults)
    assert all(any(sentence.startswith(FAULTS[fault]) for sentence in sentences) for fault in faults)


def test_own_data_on_the_bundled_backbone_needs_no_more_than_a_batch_that_fits(flags, tmp_path, capfd):
    (sentence,) = told(capfd, flags("bundled"), tmp_path / "out")
    assert sentence.startswith(
        "task 'pets' has 3 training examples, too few for a batch: config.train.batch is 64; use"
    )
    assert told(capfd, [*flags("bundled"), sentence.partition("use ")[2]], tmp_path / "out") == []


def test_a_method_that_does_not_train_needs_no_batch(flags, tmp_path, capfd):
    assert told(capfd, [*flags("bundled"), "--config.method.name=zero_shot"], tmp_path / "out") == []


def test_a_folder_that_is_no_backbone_is_found(flags, tmp_path, capfd):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    given = [*flags(tmp_path / "clip"), "--config.train.batch=3"]
    sentences = told(capfd, given, tmp_path / "out")
    assert refused(capfd, given, tmp_path / "run") == sentences[0]


# ---- what follows from the backbone ----------------------------------------------------------------------------------


def sized(config, clip):
    """The method's section as it is resolved for towers of these sizes."""
    return resolved(config, method_of(config, sites(clip))).method


@pytest.mark.parametrize(("clip", "length", "layers"), [(VIT_B16, 16, 9), (VIT_B32, 16, 9), ("bundled", 8, 4)])
@pytest.mark.parametrize(("preset", "all_enter"), [("intended", True), ("released", False)])
def test_sizes_follow_from_the_backbone(clip, length, layers, preset, all_enter):
    clip = weights.config(BUNDLED) if clip == "bundled" else clip
    config = command_line.load(f"{OWN_DATA}:{preset}")
    method = sized(config, clip)
    assert (method.length, method.layers, method.depth) == (length, layers, layers if all_enter else 1)
    assert config.method.length == 0  # a copy


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_what_is_chosen_is_what_the_presets_say(preset):
    config, tiny = configs.preset(preset), configs.preset(preset)
    expected = config.method.to_dict()
    configs.for_any_backbone(config)
    assert sized(config, VIT_B16).to_dict() == expected
    configs.for_tiny_backbone(tiny)
    assert sized(config, weights.config(BUNDLED)).to_dict() == tiny.method.to_dict()


@pytest.mark.parametrize(
    ("given", "expected"),
    [((3, 0, 0), (3, 9, 9)), ((0, 4, 0), (16, 4, 4)), ((0, 0, 11), (16, 11, 11)), ((0, 30, 0), (16, 30, 12))],
)
def test_what_is_given_is_kept_and_the_rest_follows(given, expected):
    config = configs.intended()
    config.method.length, config.method.layers, config.method.depth = given
    method = sized(config, VIT_B16)
    assert (method.length, method.layers, method.depth) == expected
