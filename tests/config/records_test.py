"""What a run's record says: older records are read, and only what changes a number makes another run."""

import json
import shutil

import pytest
from ml_collections import ConfigDict

import lpi_jax
from lpi_jax import config as configs
from lpi_jax import report
from lpi_jax.config import records
from lpi_jax.config.table import FREE, OPTIONS, RENAMED, REVALUED, is_read
from lpi_jax.data.sources import registry
from lpi_jax.errors import UserError
from lpi_jax.experiment import reuse
from lpi_jax.run import continual
from tests.support.splits import captions_of

OTHER = {
    bool: lambda v: not v,
    int: lambda v: v + 1,
    float: lambda v: v / 2,
    str: lambda v: f"{v}x",
    tuple: lambda v: v,
}
HASHES = {name: name[0] * 64 for name in ("stream", "backbone", "tokenizer")}


def record(hashes=HASHES, **changes):
    config = configs.intended()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return {"config": json.loads(json.dumps(config.to_dict())), **hashes}


def different(there, here):
    return set(records.differences(there, here, "config.json"))


# ---- one run or two --------------------------------------------------------------------------------------------------


COMPARED = [key for key in OPTIONS if key not in ("data.crop_scale", "data.task_order", "reuse", FREE)]
OTHERS = {"data.streams": ({"name": "coco"},), "data.domains": ("fax",), "method.depth": 1}


@pytest.mark.parametrize("key", COMPARED)
def test_a_key_makes_another_run_where_it_changes_numbers_and_is_read(key):
    known, several = OPTIONS[key], {"data.name": "multi", "data.streams": ({"name": "scenes"},)}
    choices = [choice for choice in known.choices if choice != known.default]
    if len(known.choices) == 1:
        pytest.skip("there is no other value")
    value = choices[0] if choices else OTHERS.get(key) or OTHER[type(known.default)](known.default)
    for start in ({}, several, {"data.name": "coco"}, {"method.name": "zero_shot"}, {"data.name": "folder"}):
        there, here = (record(**{**start, **change}) for change in ({}, {key: value}))
        if there == here:
            continue
        read = any(is_read(key, configs.flat(ConfigDict(one["config"]))) for one in (there, here))
        # With a cache, wherever it is, pictures are resized before they are cropped.
        counts = known.kind == "numbers" or key == "data.cache_dir"
        assert different(there, here) == ({f"config.{key}"} if read and counts else set()), start


def test_a_run_that_measures_another_is_told_by_what_that_was_made_from():
    source = record(seed=3)
    moved, other = ({**source, "environment": {"devices": 8}}, record(seed=4))
    assert records.fingerprint(source) == records.fingerprint(moved) != records.fingerprint(other)
    there, here = (record({**HASHES, "reuse": records.fingerprint(source)}, reuse=path) for path in ("a", "b"))
    assert different(there, here) == set()
    assert different(there, {**here, "reuse": records.fingerprint(other)}) == {"reuse"}
    assert different(record(), here) == {"config.reuse"}


def test_where_something_lies_is_told_by_its_content():
    for key in ("backbone", "tokenizer", "data__path", "data__manifest"):
        there, here = (record(data__name="flickr30k", **{key: value}) for value in ("a/b", "c/d"))
        assert different(there, here) == set()
        content = {"backbone": "backbone", "tokenizer": "tokenizer"}.get(key, "stream")
        assert different(there, {**here, content: "0" * 64}) == {content}
        without = {name: value for name, value in there.items() if name != content}
        assert different(without, here) == {f"config.{key.replace('__', '.')}"}  # a record that has no hash of it yet


def test_a_table_of_similarities_is_told_by_its_content_and_from_none():
    there, here = (record({**HASHES, "similarity": "7" * 64}, method__similarity=path) for path in ("a.csv", "b/a.csv"))
    assert different(there, here) == set()
    assert different(there, {**here, "similarity": "8" * 64}) == {"similarity"}
    assert different(there, record()) == {"config.method.similarity"}


def test_what_one_of_several_streams_says_of_places_is_told_by_the_content_of_all():
    def several(**first):
        return record(data__name="multi", data__streams=({"name": "jsonl", **first}, {"name": "scenes", "train": 3}))

    assert different(several(path="a.jsonl"), several(path="b.jsonl")) == set()
    assert different(several(path="a.jsonl"), several(path="a.jsonl", shots=3)) == {"config.data.streams"}


def test_a_stream_that_was_moved_is_the_same_stream(tmp_path, toy_stream):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    lines = []
    for task in toy_stream(tasks=2, train=2, val=1).tasks:
        for split in ("train", "val"):
            for i, captions in enumerate(captions_of(getattr(task, split))):
                name = f"{task.name} {split} {i}.png"
                getattr(task, split).load(i).save(here / name)
                lines.append({"image": name, "captions": list(captions), "task": task.name, "split": split})
    (here / "s.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = {**configs.intended().data.to_dict(), "name": "jsonl"}
    first = registry.stream({**settings, "path": str(here / "s.jsonl")}, 32)
    shutil.move(here, there)
    second = registry.stream({**settings, "path": str(there / "s.jsonl")}, 32)
    assert first.fingerprint == second.fingerprint


# ---- older records ---------------------------------------------------------------------------------------------------

NEWER = ("towers", "matmul_precision", "compilation_cache", "problem")
OF_PROMPTS = ("length", "rank", "layers", "depth", "injection", "interaction")
OF_LOSSES = ("alignment", "alignment_weight", "task", "task_weight", "threshold", "similarity")


def older(tree):
    """A record as it was written before there were some of today's keys."""
    tree = json.loads(json.dumps(tree))
    for key in NEWER:
        del tree["config"][key]
    for key in ("separator", "val_list", "val_share"):
        del tree["config"]["data"][key]
    for key in ("checkpoints_kept", "batches", "accumulate", "warmup", "clip_norm", "decay", "groups"):
        del tree["config"]["train"][key]
    method = tree["config"]["method"]
    tree["config"]["prompt"] = {key: method.pop(key) for key in OF_PROMPTS}
    tree["config"]["loss"] = {key: method.pop(key) for key in OF_LOSSES}
    tree["config"]["method"] = method.pop("name")  # all that is left are keys of methods that there were not
    return {key: value for key, value in tree.items() if key != "tokenizer"}


def test_what_a_record_lacks_is_as_the_run_did_it():
    found = records.configuration(older(record(seed=3, data__domains=("fax",))), "config.json")
    assert configs.flat(found) == configs.flat(configs.intended()) | {"seed": 3, "data.domains": ("fax",)}
    assert found.is_locked
    on_cpu, on_gpu = ({**older(record()), "environment": {"devices": [name]}} for name in ("cpu", "NVIDIA H100"))
    assert records.configuration(on_cpu, "config.json").matmul_precision == "highest"
    assert records.configuration(on_gpu, "config.json").matmul_precision == "default"


@pytest.mark.parametrize(("former", "now"), [(False, "none"), (True, "blocks")])
def test_a_value_that_was_another_is_read_as_what_it_is_called_today(former, now):
    made = record()
    del made["config"]["train"]["remat"]
    made["config"]["problem"]["remat"] = former
    assert records.configuration(made, "config.json").train.remat == now


@pytest.mark.parametrize(("old", "new"), [pair for pair in RENAMED.items() if pair[0] not in REVALUED])
def test_a_key_that_was_called_otherwise_is_read_under_its_name_of_today(old, new):
    known = OPTIONS[new]
    others = [choice for choice in known.choices if choice != known.default]
    value = others[0] if others else OTHERS.get(new) or OTHER[type(known.default)](known.default)
    tree = older(record())
    *path, name = old.split(".")
    section = tree["config"][path[0]] if path else tree["config"]
    assert name in section
    section[name] = value
    assert configs.flat(records.configuration(tree, "config.json"))[new] == value
    there, here = older(record(**{new: value})), record(**{new: value})
    assert different(there, here) == different(older(record()), record()) == set()
    assert different(there, record()) == {f"config.{new}"}


def test_arguments_of_an_optimiser_are_those_that_were_recorded():
    tree = record()
    tree["config"]["train"] |= {"optimizer": "adam", "optimizer_args": {"b1": 0.8}}
    assert records.configuration(tree, "config.json").train.optimizer_args.to_dict() == {"b1": 0.8}


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "epochs", "x", "there/config.json: config.train.epochs is 'x', expected a whole number"),
        (
            "train",
            "warm_up",
            3,
            "there/config.json: there is no key 'train.warm_up'; expected a run of this",
        ),
        (None, "prompt", 3, "there/config.json: there is no key 'prompt'; expected a run of this version"),
        (None, "method", "lwf", "there/config.json: config.method.name is 'lwf', expected one of lpi, l2p, lora,"),
    ],
)
def test_a_record_of_no_such_run_is_named(section, key, value, message):
    tree = record()
    (tree["config"][section] if section else tree["config"])[key] = value
    with pytest.raises(UserError) as refused:
        records.configuration(tree, "there/config.json")
    assert str(refused.value).startswith(message)


def test_an_older_run_is_reported_loaded_reused_and_found_again(copied_run, make_config, tmp_path, decided):
    path = copied_run.directory / "config.json"
    path.write_text(json.dumps(older(json.loads(path.read_text()))))
    assert "LPI intended" in report.table([copied_run.directory])
    assert len(lpi_jax.load(copied_run.directory).tasks) == 3
    again = continual.run(make_config(), copied_run.directory)
    assert decided(again) == decided(copied_run.results)
    reused = make_config({"reuse": str(copied_run.directory)})
    assert reuse.record(reused)["config"]["prompt"]["length"] == 4


def test_sizes_that_follow_from_the_backbone_are_recorded_and_the_run_is_found_again(copied_run, make_config, decided):
    sizes = dict.fromkeys(("method.length", "method.layers", "method.depth"), 0)
    free = {"train.log_every": 7, "train.checkpoint_every": 9, "data.cache_mb": 3, "train.checkpoints_kept": 1}
    again = continual.run(make_config({**sizes, **free}), copied_run.directory)
    assert decided(again) == decided(copied_run.results)


# ---- rows of a report ------------------------------------------------------------------------------------------------


def test_runs_of_one_row_may_differ_in_what_changes_no_number():
    first = records.telling(record(), "x")
    assert first == records.telling(older(record()), "x")
    free = {"distributed": True, "devices": 2, "train__log_every": 3, "train__checkpoints_kept": 9, "data__cache_mb": 1}
    assert first == records.telling(record(**free), "x")
    assert first != records.telling(record(train__lr=0.1), "x")
    zero = records.telling(record(method__name="zero_shot"), "x")
    assert zero == records.telling(record(method__name="zero_shot", train__lr=0.1, method__length=8), "x")
    tables = [record({**HASHES, "similarity": "7" * 64}, method__similarity=path) for path in ("a.csv", "b/a.csv")]
    assert records.telling(tables[0], "x") == records.telling(tables[1], "x") != first
