"""Data sets that Hugging Face `datasets` saved to disk: their splits, classes and images, and files that lie.

The trees are written as `save_to_disk` of datasets 5.2 writes them: an Arrow stream per data file, with the columns'
features as metadata of its schema, and three JSON files.
"""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpi_jax.check import command
from lpi_jax.config import command_line
from lpi_jax.data.sources import registry
from lpi_jax.errors import UserError
from tests.support.pixels import shades
from tests.support.sources import huggingface
from tests.support.splits import captions_of
from tests.support.tables import damaged, encoded

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "task": {"names": ["cats", "big_dogs"], "_type": "ClassLabel"}}


def columns_of(numbers, **more):
    """A row for each number: the image of its shade, in the tasks by turns."""
    numbers = list(numbers)
    return {
        "image": pa.array([{"bytes": encoded(n), "path": f"{n}.png"} for n in numbers], IMAGE),
        "caption": [f"number {n}" for n in numbers],
        "task": pa.array([n % 2 for n in numbers], pa.int64()),
    } | more


def write_stream(path, table, batch=3, options=None):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch)


def save_split(folder, columns, features=FEATURES, shards=1, **how):
    """One split as `save_to_disk` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    names = [f"data-{shard:05d}-of-{shards:05d}.arrow" for shard in range(shards)]
    size = -(-table.num_rows // shards)
    for shard, name in enumerate(names):
        write_stream(folder / name, table.slice(shard * size, size), **how)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0123456789abcdef"}
    state |= {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False}
    (folder / "state.json").write_text(json.dumps(state | {"_split": None}, indent=2))
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    return folder


def save(folder, **splits):
    """Several splits as a `DatasetDict` leaves them; name -> columns."""
    for name, columns in splits.items():
        save_split(folder / name, columns)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


@pytest.mark.parametrize("val", ["validation", "val", "test"])
def test_splits_are_folders_classes_become_their_names_and_images_stay_in_the_file(tmp_path, val):
    stream = huggingface(save(tmp_path, train=columns_of(range(1, 9)), **{val: columns_of(range(9, 13))}))
    assert [task.name for task in stream.tasks] == ["big_dogs", "cats"]
    dogs, cats = stream.tasks
    assert shades(dogs.train) == [1, 3, 5, 7] and shades(dogs.val) == [9, 11] and shades(cats.val) == [10, 12]
    assert captions_of(cats.train)[0] == ("number 2",)
    assert cats.train.keys[0] == "train/data-00000-of-00001.arrow, row 2"
    assert shades(pickle.loads(pickle.dumps(dogs.train))) == [1, 3, 5, 7]
    assert stream.notes == {"path": str(tmp_path), "images": 12}


def test_rows_go_on_over_batches_and_data_files(tmp_path):
    save_split(tmp_path / "train", columns_of(range(20)), shards=3, batch=4)
    save(tmp_path, val=columns_of(range(20, 24)))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "val"]}')
    cats, _ = huggingface(tmp_path).tasks
    assert shades(cats.train) == list(range(0, 20, 2)) and len(set(cats.train.keys)) == 10


def test_of_validation_and_test_the_one_asked_for_validates_and_the_others_are_named(tmp_path):
    parts = {name: columns_of(range(n, n + 4)) for n, name in ((1, "train"), (5, "validation"), (9, "test"))}
    save(tmp_path, **parts, unsupervised=columns_of(range(20, 24)))
    stream = huggingface(tmp_path)
    assert shades(stream.tasks[0].val) == [9, 11] and stream.notes["left_out"] == ["validation", "unsupervised"]
    stream = huggingface(tmp_path, evaluate="val")
    assert shades(stream.tasks[0].val) == [5, 7] and stream.notes["left_out"] == ["test", "unsupervised"]


@pytest.mark.parametrize("alone", [True, False])
def test_one_split_alone_is_parted_by_a_column_or_else_by_a_share(tmp_path, alone):
    def saved(name, columns):
        return save_split(tmp_path / name, columns) if alone else save(tmp_path / name, train=columns)

    split = ["val" if n in (3, 4) else "train" for n in range(10)]
    by_column = huggingface(saved("column", columns_of(range(10), split=split)))
    assert [shades(task.val) for task in by_column.tasks] == [[4], [3]]
    other = huggingface(saved("named", columns_of(range(10), part=split)), split="part")
    assert [shades(task.val) for task in other.tasks] == [[4], [3]]
    path = saved("share", columns_of(range(80)))
    before, other_seed = huggingface(path, val_share=0.3), huggingface(path, val_share=0.3, seed=1)
    assert all(6 <= len(task.val) <= 18 for task in before.tasks) and before.fingerprint != other_seed.fingerprint
    after = huggingface(saved("more", columns_of([*range(100, 110), *range(80)])), val_share=0.3)
    for one, more in zip(before.tasks, after.tasks, strict=True):
        assert {*shades(one.val)} <= {*shades(more.val)} and {*shades(one.train)} <= {*shades(more.train)}


def test_a_share_where_splits_or_a_column_decide_is_refused(tmp_path):
    both = save(tmp_path / "both", train=columns_of(range(4)), test=columns_of(range(4, 8)))
    column = save_split(tmp_path / "one", columns_of(range(4), split=["train", "train", "val", "val"]))
    for path, decides in ((both, "its splits say"), (column, "column 'split' says")):
        assert huggingface(path).tasks
        said = f"val_share is 0.3, but {path}: {decides} which rows validate; expected 0.2, as if it were not set$"
        with pytest.raises(UserError, match=said):
            huggingface(path, val_share=0.3)


def test_rows_of_one_image_are_its_captions(tmp_path):
    columns = columns_of([2, 4, 2, 6], caption=pa.array([["one"], ["two", "zwei"], ["uno"], ["six"]]))
    save_split(tmp_path, columns)
    (cats,) = huggingface(tmp_path, val_share=0.5).tasks
    captions = dict(
        zip(shades(cats.train) + shades(cats.val), captions_of(cats.train) + captions_of(cats.val), strict=True)
    )
    assert captions == {2: ("one", "uno"), 4: ("two", "zwei"), 6: ("six",)}


@pytest.mark.parametrize("form", ["bytes", "large_bytes", "path", "struct of a path"])
def test_images_may_be_bytes_or_paths(tmp_path, form):
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(encoded(n))
    images = {
        "bytes": pa.array([encoded(n) for n in range(4)], pa.binary()),
        "large_bytes": pa.array([encoded(n) for n in range(4)], pa.large_binary()),
        "path": [f"{n}.png" for n in range(4)],
        "struct of a path": pa.array([{"bytes": None, "path": str(tmp_path / f"{n}.png")} for n in range(4)], IMAGE),
    }
    save_split(tmp_path, columns_of(range(4), image=images[form], split=["train", "train", "val", "val"]))
    cats, dogs = huggingface(tmp_path).tasks
    assert [shades(split) for split in (cats.train, cats.val, dogs.train, dogs.val)] == [[0], [2], [1], [3]]


def test_fields_name_the_columns_and_a_class_may_be_the_caption(tmp_path):
    columns = columns_of(range(8), when=list(range(8, 0, -1)))
    named = {"img": columns["image"], "label": columns["task"], "when": columns["when"]}
    features = {"label": FEATURES["task"]}
    save_split(tmp_path, named, features)
    stream = huggingface(tmp_path, image="img", caption="label", task="label", time="when")
    assert [task.name for task in stream.tasks] == ["big_dogs", "cats"]  # the last row is the earliest
    assert {*captions_of(stream.tasks[0].train)} == {("big_dogs",)}


# ---- what is wrong ---------------------------------------------------------------------------------------------------

BAD = [
    ("damaged value", {"task": pa.array([0, 1, 0, 1, 0, 2], pa.int64())}, "task cannot be read .2 is none of its 2 cl"),
    ("empty cell", {"task": pa.array([0, 1, 0, 1, 0, -1], pa.int64())}, "task is empty; expected text"),
    ("empty cell", {"task": pa.array([0, 1, 0, 1, 0, None], pa.int64())}, "task is empty; expected text"),
    ("empty cell", {"caption": ["a", "b", "c", "d", "e", None]}, "caption is empty; expected a caption"),
    ("empty caption", {"caption": ["a", "b", "c", "d", "e", "..."]}, "caption '...' is empty once"),
    (
        "empty cell",
        {"image": pa.array([{"bytes": encoded(n), "path": ""} for n in range(5)] + [None], IMAGE)},
        "image",
    ),
    (
        "unreadable image",
        {"image": pa.array([{"bytes": encoded(n) if n < 5 else b"none", "path": ""} for n in range(6)], IMAGE)},
        "row 6: this is not an image in a known format",
    ),
]


@pytest.mark.parametrize("kind, change, message", BAD, ids=[f"{kind}-{i}" for i, (kind, *_) in enumerate(BAD)])
def test_a_bad_row_is_one_clear_sentence_or_is_counted(tmp_path, kind, change, message):
    split = ["train", "train", "val", "val", "train", "train"]
    save_split(tmp_path, columns_of(range(6), split=split, **change))
    with pytest.raises(UserError, match=message) as caught:
        huggingface(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/data-00000-of-00001.arrow, row 6: ")
    stream = huggingface(tmp_path, on_bad_example="skip")
    assert stream.skipped == {kind: 1} and stream.notes["images"] == 5


def test_what_is_no_saved_data_set_is_told(tmp_path):
    def says(message, path=tmp_path):
        with pytest.raises(UserError, match=message):
            huggingface(path)

    says("nowhere: there is no such folder; expected a folder that save_to_disk", tmp_path / "nowhere")
    says("there is neither dataset_dict.json nor state.json in it; .*Parquet files are read by data.name=table")
    save(tmp_path, train=columns_of(range(4)), holdout=columns_of(range(4, 8)))
    says("its splits are 'train', 'holdout'; expected train and one of validation, val and test, or the column")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "../../etc"]}')
    says("dataset_dict.json: splits is '../../etc', which leads out of")
    (tmp_path / "dataset_dict.json").write_text('{"splits": "train"}')
    says("dataset_dict.json: splits is 'train'; expected the names of the splits")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    says("test/state.json: there is no such file")


@pytest.mark.parametrize(
    "name, change, message",
    [
        (
            "state.json",
            {"_data_files": [{"filename": "../x"}]},
            r"_data_files\[0\]: filename is '../x', which leads out",
        ),
        ("state.json", {"_data_files": [{"filename": "x.arrow"}]}, "x.arrow: there is no such file; expected an Arrow"),
        ("state.json", {"_data_files": "x"}, "_data_files is a string; expected a list of objects"),
        ("state.json", {"_indices_data_files": [{"filename": "i"}]}, "a choice among its rows; .* flatten_indices"),
        ("dataset_info.json", {"features": None}, "column 'task' holds numbers; expected text"),
        ("dataset_info.json", {"features": {"task": {"_type": "ClassLabel", "names": 3}}}, "'task' are no list of str"),
    ],
)
def test_json_files_that_lie_are_told(tmp_path, name, change, message):
    save_split(tmp_path, columns_of(range(4)))
    path = tmp_path / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        huggingface(tmp_path, on_bad_example="skip")
    assert str(caught.value).startswith(str(tmp_path))


def test_columns_of_another_kind_are_named(tmp_path):
    save_split(tmp_path, columns_of(range(4), caption=[1, 2, 3, 4]))
    with pytest.raises(UserError, match="arrow: column 'caption' holds numbers; expected text or lists of text"):
        huggingface(tmp_path)
    save_split(tmp_path, columns_of(range(4)))
    with pytest.raises(UserError, match="arrow: there is no column 'text'; the closest is"):
        huggingface(tmp_path, caption="text")


def test_compressed_rows_are_refused_before_they_grow(tmp_path):
    columns = columns_of(range(4)) | {"caption": ["x" * 1_000_000] * 4}
    save_split(tmp_path, columns, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    assert (tmp_path / "data-00000-of-00001.arrow").stat().st_size < 10_000
    with pytest.raises(UserError, match="arrow: the rows are compressed; expected them as save_to_disk writes them"):
        huggingface(tmp_path, on_bad_example="skip")
    words = pa.array([0, 0, 0, 0], pa.int32())
    columns["caption"] = pa.DictionaryArray.from_arrays(words, pa.array(["x" * 100_000]))
    save_split(tmp_path, columns, options=pa.ipc.IpcWriteOptions(compression="lz4"))
    with pytest.raises(UserError, match="arrow: the rows are compressed"):
        huggingface(tmp_path, on_bad_example="skip")


def test_a_value_that_is_too_long_is_refused(tmp_path):
    save_split(tmp_path, columns_of(range(4)) | {"caption": ["x" * 200_000] * 4})
    with pytest.raises(UserError, match="from row 1 on: column 'caption' has a value of 200000 bytes; at most"):
        huggingface(tmp_path, on_bad_example="skip")


def test_offsets_that_lead_elsewhere_are_told_not_followed(tmp_path):
    """Nothing in an Arrow file says what its values may be: they are looked at before they are read."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 2_000_000_000, 3)))
    wild = pa.Array.from_buffers(pa.string(), 4, [None, offsets, pa.py_buffer(b"abcd")])
    save_split(tmp_path, columns_of(range(4), caption=wild), batch=4)
    with pytest.raises(UserError, match="after row 0: the file cannot be read as an Arrow stream"):
        huggingface(tmp_path, on_bad_example="skip")


def test_empty_and_cut_files_are_told(tmp_path):
    save_split(tmp_path, columns_of(range(40)), batch=8)
    path = tmp_path / "data-00000-of-00001.arrow"
    whole = path.read_bytes()
    for content in (b"", b"ARROW1\0\0" + whole, b"no arrow", whole[: len(whole) // 2], whole[:8], bytes(100)):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            huggingface(tmp_path, on_bad_example="skip")
        assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_end_in_a_user_error_or_a_stream(tmp_path, data):
    save_split(tmp_path, columns_of(range(8), split=["train", "train", "val", "val"] * 2))
    name = data.draw(st.sampled_from(["data-00000-of-00001.arrow"] * 3 + ["state.json", "dataset_info.json"]))
    (tmp_path / name).write_bytes(damaged(data, (tmp_path / name).read_bytes()))
    for mode in ("error", "skip"):
        try:
            stream = huggingface(tmp_path, on_bad_example=mode)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert all(len(task.train) and len(task.val) for task in stream.tasks)


def test_the_check_and_the_command_line_know_the_source(tmp_path, capsys):
    save(tmp_path / "data", train=columns_of(range(8)), test=columns_of(range(8, 12)))
    own = Path(__file__).parents[3] / "configs" / "own_data_lpi.py"
    flags = [f"--config={own}", "--config.data.name=huggingface", f"--config.data.path={tmp_path / 'data'}"]
    flags += ["--config.backbone=bundled", "--config.data.fields.task=task"]
    assert command.main(["check", *flags, f"--out={tmp_path / 'out'}"]) == 0
    assert "big_dogs" in capsys.readouterr().out
    config, _ = command_line.parse([*flags, "--workdir=x"])
    assert [task.name for task in registry.stream(config.data.to_dict(), 32).tasks] == ["cats", "big_dogs"]
