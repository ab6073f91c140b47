"""One config line makes a stream: every source by its name, what is done to any stream, and streams of streams."""

import csv
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lpi_jax import config as configs
from lpi_jax.config import command_line
from lpi_jax.data.sources import registry
from lpi_jax.errors import UserError
from tests.data.sources.huggingface_test import save_split
from tests.support.pixels import pixels
from tests.support.splits import captions_of


def settings(**changes):
    """`config.data` as a run has it."""
    data = configs.intended().data.to_dict()
    assert set(changes) <= set(data)
    return {**data, **changes}


def made(**changes):
    return registry.stream(settings(**changes), 32)


def png(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 50), (shade, 10, 200 - shade)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Four images in two tasks, as a JSON Lines file, tables, tar shards, folders and a saved data set."""
    rows = [(f"{task}{split}.png", f"a {task} thing", task, split) for task in "ba" for split in ("train", "val")]
    for k, (name, *_) in enumerate(rows):
        (tmp_path / name).write_bytes(png(40 * k))
    lines = [{"image": n, "captions": [c], "task": t, "split": s} for n, c, t, s in rows]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with open(tmp_path / "s.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "text", "task", "split"), *rows])
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "000.tar", "w") as tar:
        for name, caption, task, split in rows:
            meta = json.dumps({"caption": caption, "task": task, "split": split}).encode()
            for member, content in ((name, (tmp_path / name).read_bytes()), (name[:-3] + "json", meta)):
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    for name, caption, task, split in rows:
        (tmp_path / "tree" / split / task).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / split / task / name).write_bytes((tmp_path / name).read_bytes())
        (tmp_path / "tree" / split / task / name).with_suffix(".txt").write_text(caption)
    columns = pa.table([*zip(*rows, strict=True)], names=["image", "caption", "task", "split"])
    columns = columns.set_column(0, "image", pa.array([(tmp_path / row[0]).read_bytes() for row in rows]))
    (tmp_path / "parts").mkdir()
    pq.write_table(columns.slice(0, 3), tmp_path / "parts" / "0.parquet")
    pq.write_table(columns.slice(3), tmp_path / "parts" / "1.parquet")
    save_split(tmp_path / "saved", {name: columns[name] for name in columns.column_names}, features={})
    return tmp_path


def sources(folder):
    yield {"name": "jsonl", "path": str(folder / "s.jsonl")}
    fields = {**settings()["fields"], "caption": "text"}
    yield {"name": "table", "path": str(folder / "s.csv"), "fields": fields}
    yield {"name": "table", "path": str(folder / "parts")}
    yield {"name": "webdataset", "path": str(folder / "shards")}
    yield {"name": "folder", "path": str(folder / "tree"), "task_order": ("b", "a")}
    yield {"name": "huggingface", "path": str(folder / "saved")}


def test_one_data_set_is_the_same_stream_from_every_source(folder):
    for given in sources(folder):
        stream = made(**given)
        assert [task.name for task in stream.tasks] == ["b", "a"], given["name"]
        for task in stream.tasks:
            assert captions_of(task.val) == ((f"a {task.name} thing",),)
            np.testing.assert_array_equal(
                pixels(task.val.load(0)), pixels(Image.open(folder / f"{task.name}val.png")), strict=True
            )


def test_scenes_are_drawn_at_the_backbones_size_and_ordered_by_name():
    stream = made(name="scenes", domains=("fax", "comic"), train=2, val=1, task_order=("comic", "fax"))
    assert [task.name for task in stream.tasks] == ["comic", "fax"]
    assert pixels(stream.tasks[0].train.load(0)).shape == (32, 32, 3)


def test_any_stream_can_be_shuffled_and_thinned_out():
    usual = made(name="scenes", train=6, val=1)
    orders = {tuple(t.name for t in made(name="scenes", train=6, val=1, order_seed=s).tasks) for s in range(4)}
    assert len(orders) == 4 and all(sorted(order) == sorted(t.name for t in usual.tasks) for order in orders)
    few = made(name="scenes", train=6, val=1, shots=2)
    for task, whole in zip(few.tasks, usual.tasks, strict=True):
        assert len(task.train) == 2 and len(task.val) == 1
        assert set(task.train.keys) < set(whole.train.keys)
    assert len({usual.fingerprint, few.fingerprint, made(name="scenes", train=6, val=1, shots=3).fingerprint}) == 3


def test_several_streams_come_domain_after_domain_each_with_its_own_settings(folder):
    parts = (
        {"name": "jsonl", "path": str(folder / "s.jsonl"), "task_order": ("a", "b")},
        {"name": "scenes", "domains": ("fax",), "train": 3},
        {"name": "jsonl", "path": str(folder / "s.jsonl"), "shots": 1},
    )
    stream = made(name="multi", streams=parts, val=2)
    assert [t.name for t in stream.tasks] == ["jsonl/a", "jsonl/b", "fax", "jsonl 2/b", "jsonl 2/a"]
    assert (len(stream.tasks[2].train), len(stream.tasks[2].val)) == (3, 2)
    order = ("fax", "jsonl 2/a", "jsonl 2/b", "jsonl/a", "jsonl/b")
    again = made(name="multi", streams=parts, val=2, task_order=order)
    assert tuple(t.name for t in again.tasks) == order and again.fingerprint != stream.fingerprint


@pytest.mark.parametrize("form", ["({}, {})", "[{}, {}]", "{}, {}"])
def test_several_streams_can_be_given_on_the_command_line(folder, form):
    one, other = {"name": "jsonl", "path": str(folder / "s.jsonl")}, {"name": "scenes", "domains": ("fax",), "train": 3}
    file = Path(__file__).parents[3] / "configs" / "own_data_lpi.py"
    changes = ["--config.data.name=multi", f"--config.data.streams={form.format(one, other)}"]
    config, _ = command_line.parse([f"--config={file}", "--workdir=runs/two", *changes])
    stream = registry.stream(config.data.to_dict(), 32)
    assert [task.name for task in stream.tasks] == ["b", "a", "fax"]
    assert len(stream.tasks[2].train) == 3


def test_one_stream_of_several_needs_no_brackets_on_the_command_line():
    file = Path(__file__).parents[3] / "configs" / "own_data_lpi.py"
    changes = ["--config.data.name=multi", "--config.data.streams={'name': 'scenes'}"]
    config, _ = command_line.parse([f"--config={file}", "--workdir=x", *changes])
    assert config.data.to_dict()["streams"] == ({"name": "scenes"},)


def test_images_come_from_the_cache_where_one_is_set(folder, tmp_path):
    given = {"name": "jsonl", "path": str(folder / "s.jsonl")}
    plain, kept = made(**given), made(**given, cache_dir=str(tmp_path / "cache"), cache_side=32)
    assert kept.fingerprint == plain.fingerprint
    assert pixels(plain.tasks[0].val.load(0)).shape == (50, 40, 3)
    assert pixels(kept.tasks[0].val.load(0)).shape == (40, 32, 3)
    assert list((tmp_path / "cache").rglob("*.array_record"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "cocoa"},
            "config.data.name is 'cocoa', expected one of scenes, jsonl, coco, flickr30k, tfds",
        ),
        ({"name": "jsonl"}, "config.data.path is empty, expected the path of a JSON Lines file"),
        ({"name": "folder"}, "config.data.path is empty, expected a folder of images"),
        ({"name": "huggingface"}, "config.data.path is empty, expected a folder that save_to_disk"),
        ({"name": "coco"}, "config.data.path is empty, expected the folder of COCO 2014"),
        ({"name": "tfds"}, "config.data.builder is empty, expected a TFDS data set"),
        ({"name": "multi"}, "config.data.streams is empty"),
        ({"name": "multi", "streams": ("scenes",)}, "config.data.streams[0] is 'scenes', expected a dictionary"),
        ({"name": "multi", "streams": ({"name": "multi"},)}, "config.data.streams[0] is {'name': 'multi'}"),
        (
            {"name": "multi", "streams": ({"name": "scenes", "trian": 3},)},
            "key 'trian', which config.data has not; the",
        ),
        ({"name": "multi", "streams": ({"name": "scenes", "train": "3"},)}, "streams[0]: train is '3', expected some"),
        (
            {"name": "multi", "streams": ({"name": "table", "path": "t.csv", "fields": {"tiem": "when"}},)},
            "config.data.streams[0]: fields has no key 'tiem'; the closest is 'time'",
        ),
        (
            {"name": "jsonl", "path": "s.jsonl", "fields": {**configs.intended().data.fields, "task": "topic"}},
            "config.data: fields.task is 'topic', but the source 'jsonl' reads none of the fields",
        ),
        (
            {"name": "multi", "streams": ({"name": "table", "path": "t.csv", "fields": {"train": "train"}},)},
            "config.data.streams[0]: fields.train is 'train', but the source 'table' reads fields.image, ",
        ),
        (
            {"name": "multi", "streams": ({"name": "table", "path": "t.csv", "fields": {"time": 3}},)},
            "config.data.streams[0]: fields.time is 3, expected text",
        ),
        ({"task_order": ("fax",), "domains": ("fax", "comic")}, "task_order is 'fax'; expected each of"),
        ({"task_order": ({"a": 1}, "fax")}, "config.data.task_order is ({'a': 1}, 'fax'), expected names"),
        ({"domains": ({"a": 1},)}, "config.data.domains is ({'a': 1},), expected names"),
        (
            {"name": "multi", "streams": ({"name": ["x"]},)},
            "config.data.streams[0] is {'name': ['x']}, expected a dict",
        ),
        ({"cache_dir": "x", "cache_side": 16}, "config.data.cache_side is 16, expected at least 32"),
    ],
)
def test_what_fits_no_source_is_one_sentence(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        made(**{"name": "scenes", "train": 2, "val": 1, **changes})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "probes", "where"),
    [
        ({"name": "coin"}, (), "config.data: the source 'coin' has instructions"),
        (
            {"name": "multi", "streams": ({"name": "scenes"}, {"name": "questions"})},
            (),
            r"config.data.streams\[1\]: the source 'questions' has instructions",
        ),
        ({"name": "scenes"}, ({"name": "ucit"},), r"config.eval.probes\[0\]: the source 'ucit' has instructions"),
    ],
)
def test_a_source_that_says_something_else_than_is_asked_for_is_refused(settings, probes, where):
    fitting = [name for name, source in registry.SOURCES.items() if source.said == registry.CAPTIONS]
    with pytest.raises(UserError, match=f"^{where}, but config.problem.name=retrieval asks for captions; exp") as no:
        registry.refuse_others(settings, registry.CAPTIONS, "retrieval", probes)
    assert str(no.value).endswith(", ".join(fitting))
    registry.refuse_others({"name": "scenes"}, registry.CAPTIONS, "retrieval", ({"name": "jsonl"},))
