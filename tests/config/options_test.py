"""The table of keys: whole, true to what the sources read, and a key that was set for nothing is refused."""

import contextlib
import dataclasses

import pytest

from lpi_jax import config as configs
from lpi_jax.config import command_line
from lpi_jax.config.table import OPTIONS, is_read
from lpi_jax.data.sources import registry
from lpi_jax.errors import UserError
from lpi_jax.options import chosen, option

SPEED = {
    *("preset", "devices", "fsdp", "distributed", "compilation_cache", "data.cache_mb"),
    *(
        "train.log_every",
        "train.checkpoint_every",
        "train.checkpoints_kept",
        "train.remat",
        "train.microbatch",
        "eval.shown",
    ),
}
PLACE = {
    *("reuse", "backbone", "tokenizer", "problem.clip"),
    *("data.path", "data.images", "data.manifest", "data.val_list", "data.cache_dir"),
}
INSTRUCTION = ("method.name=modalprompt", "problem.name=instruction", "data.name=questions")


@pytest.fixture
def parsed(tmp_path):
    """(flags, ..., text of the file) -> the configuration that the command line makes."""

    def parse(*flags, text="return config.preset(preset)"):
        file = tmp_path / "experiment.py"
        file.write_text(f"from lpi_jax import config\n\n\ndef get_config(preset='intended'):\n    {text}\n")
        return command_line.parse([f"--config={file}", "--workdir=x", *(f"--config.{flag}" for flag in flags)])[0]

    return parse


# ---- the table -------------------------------------------------------------------------------------------------------


def test_every_key_is_described_and_its_default_is_allowed():
    configs.check(configs.intended())
    for key, known in OPTIONS.items():
        assert len(known.meaning) > 5, key
        assert known.kind in ("numbers", "speed", "place"), key
        assert not known.choices or known.default in known.choices, key


def test_these_keys_change_no_number_and_no_others():
    assert {key for key, known in OPTIONS.items() if known.kind == "speed"} == SPEED
    assert {key for key, known in OPTIONS.items() if known.kind == "place"} == PLACE


def test_help_tells_what_a_key_means_what_it_may_be_who_reads_it_and_what_it_changes():
    text = " ".join(command_line.usage().split())
    assert "train.lr = 0.05 learning rate at the beginning of a task; at least 0; read by training" in text
    assert (
        "data.split = 'published' whose splits; 'published' | 'karpathy'; read with config.data.name=coco; num" in text
    )
    assert "data.cache_mb = 1024 decoded images kept in memory; at least 0; speed" in text
    for known in OPTIONS.values():
        assert f"{known.meaning}; " in text


@pytest.mark.parametrize("name", registry.SOURCES)
def test_a_source_reads_what_the_table_says(name, tmp_path):
    source, read = registry.SOURCES[name], set()

    class Watched(source.options):
        """Options that remember which of them were looked at."""

        def __getattribute__(self, key):
            read.add(key)
            return super().__getattribute__(key)

    usual = configs.intended().data.to_dict()
    settings = {**usual, "name": name, "path": str(tmp_path / "nosuch"), "train": 2, "val": 1, "image_size": 32}
    settings |= {"builder": "no/such"} if name == "tfds" else {}
    given = chosen(Watched, settings)
    read.clear()
    with contextlib.suppress(UserError):  # there is no such file
        source.build(given)
    variants = [{}, {"data.rule": "manifest"}, {"data.split": "karpathy"}, {"data.val_list": "x"}]
    values = [{**configs.flat(configs.intended()), "data.name": name, **variant} for variant in variants]
    of_source = {key for key, known in OPTIONS.items() if key.startswith("data.") and known.reader}
    of_source -= {"data.cache_side", "data.train_transform", "data.crop_scale", "data.flip", "data.max_words"}
    expected = {key.split(".")[1] for key in of_source if any(is_read(key, one) for one in values)}
    declared = {field.name for field in dataclasses.fields(source.options)} - {"image_size", "task_order"}
    assert declared == expected
    # These are looked at only once there is something.
    later = {"on_bad_example", "max_pixels", "evaluate", "val_list", "val_share", "seed", "separator"}
    assert declared - read <= (set() if name == "scenes" else later)


def test_the_columns_of_a_source_are_those_of_the_table():
    for name in registry.NAMES:
        values = {**configs.flat(configs.intended()), "data.name": name}
        fields = {key.rpartition(".")[2] for key in OPTIONS if key.startswith("data.fields.") and is_read(key, values)}
        assert fields == set(registry.FIELDS.get(name, ())), name


def test_a_key_that_two_sources_declare_in_other_words_is_a_mistake_of_ours(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Options:
        rule: str = option("any", "another rule")

    monkeypatch.setitem(registry.SOURCES, "jsonl", registry.Source(Options, None))
    with pytest.raises(ValueError, match=r"^data\.rule is declared as .*another rule"):
        registry.declared()


# ---- keys that were set for nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "key", "reader"),
    [
        *(
            (["data.name=jsonl", f"data.{key}={value}"], f"data.{key}", reader)
            for key, value, reader in (
                ("rule", "single_only", "with config.data.name=coco"),
                ("split", "karpathy", "with config.data.name=coco"),
                ("manifest", "x.csv", "with config.data.name=coco and config.data.rule=manifest, or with config."),
                ("builder", "coco", "with config.data.name=tfds"),
                ("domains", "fax", "with config.data.name=scenes"),
                ("train", "5", "with config.data.name=scenes"),
                ("val_share", "0.5", "with config.data.name=folder without config.data.val_list, or with config.data"),
                ("streams", "{'name': 'scenes'}", "with config.data.name=multi"),
                ("fields.caption", "text", "with config.data.name=tfds or table or huggingface"),
                ("seed", "3", "with config.data.name=scenes"),
                ("cache_side", "64", "with config.data.cache_dir"),
            )
        ),
        (["data.path=x"], "data.path", "with every config.data.name but scenes and questions and multi"),
        (["method.name=zero_shot", "method.length=4"], "method.length", "with config.method.name=lpi"),
        (
            ["method.name=zero_shot", "train.lr=1"],
            "train.lr",
            "by training (a config.method.name that trains, without config.reuse)",
        ),
        (["method.name=zero_shot", "train.optimizer_args.momentum=0"], "train.optimizer_args.momentum", "by training"),
        (["method.name=zero_shot", "train.optimizer_args={}"], "train.optimizer_args", "by training"),
        (
            ["method.name=zero_shot", "data.flip=false"],
            "data.flip",
            "with config.problem.name=retrieval and by training with config.data.train_transform=random",
        ),
        (
            ["reuse=runs/a", "method.threshold=0.5"],
            "method.threshold",
            "with config.method.name=lpi and config.method.task=released or intended and by training",
        ),
        (
            ["towers.text_heads=8"],
            "towers.text_heads",
            "with config.problem.name=retrieval and another config.backbone than bundled",
        ),
        (["eval.max_new=8"], "eval.max_new", "with config.problem.name=instruction"),
        *(
            ([*INSTRUCTION, f"{key}={value}"], key, "with config.problem.name=retrieval")
            for key, value in (
                ("eval.score", "plain"),
                ("eval.gallery", "task"),
                ("data.max_words", "9"),
                ("problem.equal_texts", "one"),
                ("pixels", "imagenet"),
                ("towers.text_heads", "8"),
            )
        ),
        *(
            ([*INSTRUCTION, f"{key}={value}"], key, "with a config.method.name that")
            for key, value in (("routing.rule", "knn"), ("routing.centres", "3"), ("routing.caption", "placeholders"))
        ),
        (["data.name=multi", "data.path=x", "data.streams={'name': 'jsonl'}"], "data.path", "with every config.data."),
        (["data.name=multi", "data.rule=single_only", "data.streams={'name': 'jsonl'}"], "data.rule", "with config."),
    ],
)
def test_a_flag_that_nothing_reads_is_refused_with_who_would(parsed, flags, key, reader):
    with pytest.raises(UserError) as refused:
        parsed(*flags)
    assert str(refused.value).startswith(f"config.{key} is ")
    assert f", but nothing reads it in this configuration: it is read {reader}" in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["method.name=zero_shot"], "made = config.preset(preset); config.for_tiny_backbone(made); return made"),
        (["data.name=jsonl"], "made = config.preset(preset); made.data.train = 5; return made"),
        (
            ["data.name=jsonl"],
            "made = config.preset(preset); made.data.name = 'tfds'; made.data.builder = 'x'; return made",
        ),
        (["data.name=jsonl", "data.train=200", "data.rule=largest_area"], "return config.preset(preset)"),  # defaults
        (["method.name=zero_shot"], "return config.preset('released')"),
        (["data.name=coco", "data.rule=manifest", "data.manifest=x.csv"], "return config.preset(preset)"),
        (["data.name=multi", "data.rule=single_only", "data.streams={'name': 'coco'}"], "return config.preset(preset)"),
        (["data.name=jsonl", "data.shots=3", "data.seed=3"], "return config.preset(preset)"),
        (
            ["data.name=scenes"],
            "made = config.preset(preset); made.data.name = 'jsonl'; made.data.train = 5; return made",
        ),
    ],
)
def test_what_a_file_set_before_a_flag_took_another_way_is_no_mistake(parsed, flags, text):
    assert configs.flat(parsed(*flags, text=text))


def test_what_a_file_sets_for_nothing_is_refused(parsed):
    with pytest.raises(
        UserError, match=r"^config\.data\.train is 5, but nothing reads it in this configuration: it is"
    ):
        parsed(text="made = config.preset(preset); made.data.name = 'jsonl'; made.data.train = 5; return made")


def test_a_program_says_which_keys_it_set_on_purpose():
    config = configs.intended()
    config.method.name, config.method.length = "zero_shot", 4
    configs.check(config)
    configs.check(config, ["method.depth", "method.name"])
    with pytest.raises(UserError, match=r"^config\.method\.length is 4, but nothing reads it"):
        configs.check(config, ["method.length"])


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (
            {"name": "jsonl", "rule": "single_only"},
            "rule is 'single_only', but nothing reads it: it is read with config.d",
        ),
        ({"name": "jsonl", "fields": {"task": "x"}}, "fields.task is 'x', but nothing reads it: it is read with"),
        (
            {"name": "coco", "flip": False},
            "flip is False, but is read of config.data alone, for all streams: use --con",
        ),
    ],
)
def test_a_key_of_one_of_several_streams_that_nothing_reads_is_refused(parsed, stream, message):
    with pytest.raises(UserError) as refused:
        parsed("data.name=multi", f"data.streams={{'name': 'scenes', 'train': 3}},{stream}")
    assert str(refused.value).startswith(f"config.data.streams[1]: {message}")


# ---- the optimiser's arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        (["train.optimizer=adam"], {}),
        (["train.optimizer_args.b1=0.8", "train.optimizer=adam"], {"b1": 0.8}),
        (["train.optimizer=adamw", "train.optimizer_args={'weight_decay': 2e-4}"], {"weight_decay": 2e-4}),
        (["train.optimizer=sgd"], {"momentum": 0.9, "weight_decay": 2e-4}),
        (["train.optimizer_args.momentum=0.5"], {"momentum": 0.5, "weight_decay": 2e-4}),
    ],
)
def test_another_optimiser_begins_without_the_arguments_of_sgd(parsed, flags, arguments):
    assert parsed(*flags).train.optimizer_args.to_dict() == arguments
