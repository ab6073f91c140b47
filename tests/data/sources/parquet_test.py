"""Parquet tables: images inside them, values of every type, and files that lie about themselves."""

import os
import pickle
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpi_jax.data.formats import parquet
from lpi_jax.data.images import BadImage
from lpi_jax.errors import UserError
from tests.support.pixels import shades
from tests.support.sealed import nothing_is_paired_wrongly, sealed
from tests.support.sources import table
from tests.support.splits import captions_of
from tests.support.tables import SPREAD, columns_of, damaged, encoded, outcome, parquet_of, write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.mark.parametrize(
    "times",
    [
        [2, 2, 1, 3],
        [2.5, 2.5, -1.0, 3.0],
        [datetime(2026, 1, day) for day in (2, 2, 1, 3)],
        [datetime(2026, 1, day, tzinfo=UTC) for day in (2, 2, 1, 3)],
        [date(2026, 1, day) for day in (2, 2, 1, 3)],
        pa.array([2_000_000_000_000_000_001, 2_000_000_000_000_000_002, 7, 2**62], pa.timestamp("ns")),
        pa.array([2**51, 2**51, -(2**51), 2**52], pa.timestamp("s")),
        ["2026-01-02", "2026-01-02", "2026-01-01", "2026-01-03"],
    ],
    ids=str,
)
def test_times_of_every_type_in_parquet(folder, times):
    assert [t.name for t in table(parquet_of(folder, columns_of(when=times)), time="when").tasks] == ["dogs", "cats"]


UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@pytest.mark.parametrize("late", [*map(pa.timestamp, UNITS), pa.date32(), pa.date64()], ids=str)
@pytest.mark.parametrize("early", [*map(pa.timestamp, UNITS), pa.date32(), pa.date64()], ids=str)
def test_times_of_the_files_of_a_folder_may_be_counted_in_different_units(folder, early, late):
    parts = folder / "parts"
    parts.mkdir()
    for name, task, kind, day in (("a", "second", late, 2), ("b", "first", early, 1)):
        image = [f"{folder}/img/{n}.png" for n in ((1, 2) if name == "a" else (3, 4))]
        when = pa.array([datetime(2026, 1, day)] * 2).cast(kind)
        columns = {"image": image, "caption": ["x", "y"], "task": [task] * 2, "split": ["train", "val"], "when": when}
        parquet_of(parts, columns, name=f"{name}.parquet")
    assert [task.name for task in table(parts, time="when").tasks] == ["first", "second"]
    assert [task.name for task in table(parts).tasks] == ["second", "first"]


def test_times_that_are_missing_or_mixed_with_numbers_are_told(folder):
    def told(when, message):
        with pytest.raises(UserError, match=message):
            table(parquet_of(folder / "parts", columns_of(**moved, when=when), name="b.parquet").parent, time="when")

    (folder / "parts").mkdir()
    moved = {"image": [f"../img/{n}.png" for n in range(5, 9)]}
    told(pa.array([datetime(2026, 1, 1), None] * 2), r"b.parquet, row 2: time is None; expected a finite number or an")
    dates = {"image": [f"../img/{n}.png" for n in range(1, 5)], "when": [date(2026, 1, 1)] * 4}
    parquet_of(folder / "parts", columns_of(**dates), name="a.parquet")
    told([1, 2, 3, 4], r"b.parquet, row 1: time is 1, a number; rows before have a date")


def test_captions_may_be_lists_in_parquet(folder):
    captions = [["one", "uno"], ["two"], ["three"], ["four"]]
    cats, _ = table(parquet_of(folder, columns_of(caption=captions))).tasks
    assert captions_of(cats.train) == (("one", "uno"),) and captions_of(cats.val) == (("two",),)


TYPES = {
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("inner", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("outer", [None, pa.list_, pa.large_list, lambda inner: pa.list_(inner, 2), pa.list_view])
def test_text_and_lists_of_every_arrow_type(folder, inner, outer):
    captions = [[f"number {n}", "again"] for n in range(4)] if outer else [f"number {n}" for n in range(4)]
    held = outer(pa.string() if pa.types.is_dictionary(inner) else inner) if outer else inner
    columns = columns_of(caption=pa.array(captions, held))
    for name in ("image", "task", "split"):
        columns[name] = pa.array(columns[name], inner)
    stream = table(parquet_of(folder, columns))
    assert [task.name for task in stream.tasks] == ["cats", "dogs"]
    expected = ("number 0", "again") if outer else ("number 0",)
    assert captions_of(stream.tasks[0].train) == (expected,) and shades(stream.tasks[1].val) == [4]


BYTES = {"large_binary": pa.large_binary(), "binary_view": pa.binary_view()}


@pytest.mark.parametrize("kind", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("struct", [False, True])
def test_images_of_every_arrow_type(folder, kind, struct):
    images = [encoded(number) for number in range(1, 5)]
    held = pa.struct([("bytes", kind), ("path", pa.string_view())]) if struct else kind
    images = [{"bytes": raw, "path": None} for raw in images] if struct else images
    stream = table(parquet_of(folder, columns_of(image=pa.array(images, held))))
    assert shades(stream.tasks[1].train) == [3] and shades(stream.tasks[1].val) == [4]


def test_a_long_text_in_a_list_of_any_type_is_refused(folder):
    huge = ["x" * 200_000, "y"]
    for held in (pa.list_(pa.string(), 2), pa.list_view(pa.string()), pa.large_list(pa.large_string())):
        path = parquet_of(folder, columns_of(caption=pa.array([huge] * 4, held)))
        with pytest.raises(UserError, match="column 'caption' has a value of 200000 bytes"):
            table(path)


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_a_folder_of_parquet_files_is_one_table_in_the_order_of_their_names(folder, form):
    parts = folder / "parts"
    (parts / "deeper").mkdir(parents=True)
    for name, first in [("b.parquet", 5), ("a.PARQUET", 1), ("deeper/c.parquet", 9)]:
        rows = range(first, min(first + 4, 10))
        images = [f"{folder}/img/{n}.png" for n in rows] if form == "path" else [encoded(n) for n in rows]
        split = ["train", "train", "val", "train"][: len(rows)]
        columns = {"caption": [f"n {n}" for n in rows], "image": images, "task": ["t"] * len(rows), "split": split}
        parquet_of(parts, columns, name=name)
    for name in ("_SUCCESS", ".a.parquet.crc", ".hidden.parquet", "notes.txt"):
        (parts / name).write_text("x")
    stream = table(parts)
    (task,) = stream.tasks
    assert shades(task.train) == [1, 2, 4, 5, 6, 8, 9] and shades(task.val) == [3, 7]
    assert stream.name == "parts" and len(set(task.train.keys)) == 7
    if form == "bytes":
        assert task.train.keys[-1] == "deeper/c.parquet, row 1"
        with pytest.raises(
            UserError, match=r"b.parquet, row 1: image 'b.parquet, row 1' stands already in .*RQUET, row 2"
        ):
            parquet_of(parts, {**columns, "image": [encoded(2)], "split": ["val"]}, name="b.parquet")
            table(parts)


def test_a_file_of_another_table_among_those_of_a_folder_is_named(folder):
    parts = folder / "parts"
    parts.mkdir()
    parquet_of(parts, columns_of(image=[encoded(n) for n in range(4)]), name="a.parquet")
    parquet_of(parts, {"image": ["x"], "text": ["x"]}, name="b.parquet")
    with pytest.raises(UserError, match=r"parts/b.parquet: there is no column 'caption'; the closest is"):
        table(parts, on_bad_example="skip")
    (parts / "b.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(UserError, match=r"parts/b.parquet, after row 0: the file cannot be read as Parquet"):
        table(parts, on_bad_example="skip")


def test_images_in_all_files_of_a_folder_count_together(folder, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_TABLE_BYTES", 1000)
    parts = folder / "parts"
    parts.mkdir()
    for name in ("a.parquet", "b.parquet"):
        parquet_of(parts, columns_of(image=[os.urandom(101) for _ in range(4)]), name=name)
    with pytest.raises(UserError, match=r"parts: with its images the table has \d+ bytes, more than the 1000"):
        table(parts)


@pytest.mark.parametrize("form", ["bytes", "struct"])
@pytest.mark.parametrize("groups", [1, 3, 100])
def test_images_may_stand_in_a_parquet_table(folder, form, groups):
    count = 20
    images = [encoded(number) for number in range(count)]
    if form == "struct":
        images = [{"bytes": raw, "path": "0.png"} for raw in images]
    columns = {
        "image": [*images, images[2]],  # the last row: a second caption for image 2
        "caption": [f"number {number}" for number in range(count)] + ["two"],
        "task": ["all"] * (count + 1),
        "split": ["val", *["train"] * count],
    }
    path = parquet_of(folder, columns, row_group_size=groups)
    (task,) = table(path).tasks
    assert shades(task.train) == list(range(1, count)) and shades(task.val) == [0]
    assert captions_of(task.train)[0] == ("number 1",) and captions_of(task.train)[1] == ("number 2", "two")
    assert task.train.keys[:2] == ("row 2", "row 3")
    assert shades(pickle.loads(pickle.dumps(task.train))) == list(range(1, count))


def test_a_struct_without_bytes_names_a_file(folder):
    images = [{"bytes": None, "path": f"img/{number}.png"} for number in range(1, 5)]
    stream = table(parquet_of(folder, columns_of(image=images)))
    assert shades(stream.tasks[1].val) == [4] and stream.tasks[1].val.keys == ("img/4.png",)


def test_equal_images_inside_a_table_are_found_across_splits(folder):
    images = [encoded(number) for number in (1, 1, 3, 4)]
    with pytest.raises(UserError, match=r"row 2: image 'row 2' stands already in row 1, in the other split"):
        table(parquet_of(folder, columns_of(image=images)))


def test_a_table_with_too_many_images_inside_is_refused(folder, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_TABLE_BYTES", 1000)
    columns = columns_of(image=[os.urandom(101) for _ in range(4)])
    path = parquet_of(folder, columns, row_group_size=1)
    with pytest.raises(
        UserError, match=r"with its images the table has \d+ bytes, more than the 1000 .* paths of imag"
    ):
        table(path)
    path = parquet_of(folder, columns_of(caption=["word " * 500] * 4))
    with pytest.raises(
        UserError, match=r"a row group of the table has \d+ bytes, more than the 1000 .* smaller row gro"
    ):
        table(path)


def test_an_image_inside_a_table_that_changes_later_is_read_anew_or_is_a_bad_image(folder):
    path = parquet_of(folder, columns_of(image=[encoded(number) for number in range(4)]))
    split = table(path).tasks[1].val
    assert shades(split) == [3]
    os.utime(parquet_of(folder, columns_of(image=[encoded(number + 9) for number in range(4)])), ns=(1, 1))
    assert shades(split) == [12]
    path.write_bytes(b"PAR1")
    with pytest.raises(BadImage, match=f"{path}, row 4: the row cannot be read"):
        split.load(0)
    path.unlink()
    with pytest.raises(BadImage, match=f"{path}, row 4: the file cannot be read") as caught:
        split.load(0)
    assert caught.value.kind == "missing file"


BAD_VALUES = [
    ("empty cell", {"image": None}, "image is empty"),
    ("empty cell", {"caption": None}, "caption is empty; expected a caption"),
    ("empty cell", {"task": None}, "task is empty"),
    ("no captions", {"caption": []}, "captions is an empty list"),
    ("wrong type", {"caption": ["x", None]}, "captions holds null"),
    ("empty caption", {"caption": ["!", "?"]}, "caption '!' is empty"),
    ("missing file", {"image": {"bytes": None, "path": "img/no.png"}}, "no such file"),
    ("empty cell", {"image": {"bytes": None, "path": None}}, "image is empty"),
    ("unreadable image", {"image": b""}, "not an image in a known format"),
    ("unreadable image", {"image": b"no image"}, "row 5: .*row 5: this is not an image in a known format"),
    ("unreadable image", {"image": {"bytes": encoded(1)[:-20], "path": None}}, "row 5: "),
]


@pytest.mark.parametrize("kind, bad, message", BAD_VALUES, ids=[f"{k}-{i}" for i, (k, _, _) in enumerate(BAD_VALUES)])
def test_a_bad_value_in_parquet_is_one_clear_sentence_or_is_counted(folder, kind, bad, message):
    (value,), columns = bad.values(), columns_of()
    if isinstance(value, list):
        columns["caption"] = [[caption] for caption in columns["caption"]]
    if isinstance(value, bytes | dict):
        raw = [encoded(number) for number in range(1, 5)]
        columns["image"] = raw if isinstance(value, bytes) else [{"bytes": one, "path": None} for one in raw]
    last = {"image": "img/5.png", "caption": "x", "task": "cats", "split": "train"}
    if isinstance(value, list):
        last["caption"] = ["x"]
    for name, own in (last | bad).items():
        columns[name] = [*columns[name], own]
    path = parquet_of(folder, columns)
    with pytest.raises(UserError, match=message) as caught:
        table(path)
    assert str(caught.value).startswith(f"{path}, row 5: ")
    stream = table(path, on_bad_example="skip")
    assert stream.skipped == {kind: 1} and shades(stream.tasks[0].train) == [1]


def test_text_that_is_not_utf8_in_parquet_is_a_bad_row(folder):
    raw = pa.array([b"a", b"b", b"c", b"caf\xe9"]).view(pa.string())
    path = parquet_of(folder, columns_of(caption=raw))
    with pytest.raises(UserError, match="row 4: caption holds bytes that are not UTF-8"):
        table(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"caption": [1, 2, 3, 4]}, "column 'caption' holds numbers; expected text or lists of text"),
        ({"caption": [{"a": 1}] * 4}, "column 'caption' holds struct<a: int64>; expected"),
        ({"task": [1, 2, 3, 4]}, "column 'task' holds numbers; expected text$"),
        ({"image": [1, 2, 3, 4]}, "column 'image' holds numbers; expected text or bytes or structs of bytes and path"),
        ({"image": [{"url": "x"}] * 4}, "column 'image' holds struct<url: string>; expected"),
        ({"split": [None] * 4}, "column 'split' holds nothing; expected text"),
    ],
)
def test_columns_of_the_wrong_type_are_refused(folder, change, message):
    path = parquet_of(folder, columns_of(**change))
    with pytest.raises(UserError, match=message) as caught:
        table(path, on_bad_example="skip")
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("nested", [False, True])
def test_a_small_parquet_file_that_unpacks_to_gigabytes_is_refused(folder, nested):
    rows, huge = 2000, "x" * 2_000_000
    captions = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([huge]))
    if nested:
        captions = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), captions)
    columns = {"image": ["img/1.png"] * rows, "caption": captions, "task": ["t"] * rows, "split": ["train"] * rows}
    path = parquet_of(folder, columns, store_schema=False, compression="zstd")  # 4 GB
    assert path.stat().st_size < 10_000
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(UserError, match=r"from row 1 on: column 'caption' has a value of 2000000 bytes; at"):
        table(path, on_bad_example="skip")
    assert pa.default_memory_pool().max_memory() - before < 50_000_000


def test_a_small_parquet_file_of_endless_equal_rows_is_refused(folder):
    columns = {"image": ["img/1.png"], "caption": ["x"], "task": ["t"], "split": ["train"]}
    path = parquet_of(folder, {name: column * 200_000 for name, column in columns.items()}, compression="zstd")
    with pytest.raises(UserError, match=r"table.parquet: the table says that it has 200000 rows, in \d+ bytes"):
        table(path, on_bad_example="skip")


def test_parquet_is_known_by_its_first_bytes_too(folder):
    path = parquet_of(folder, columns_of(), name="table.bin")
    assert len(table(path).tasks) == 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_parquet_ends_in_a_user_error_or_a_sound_stream(folder, data):
    inside = data.draw(st.booleans())
    columns = {
        "image": [encoded(n) if inside else f"img/{n}.png" for n in range(1, 9)],
        "caption": [[sealed(n)] for n in range(1, 9)],
        "task": [task for task, _ in SPREAD],
        "split": [split for _, split in SPREAD],
        "when": [datetime(2026, 1, n) for n in range(1, 9)],
    }
    path = parquet_of(folder, columns, name="fuzz.parquet", row_group_size=3, write_page_checksum=True)
    path.write_bytes(damaged(data, path.read_bytes()))
    for stream in outcome(path, time="when"):
        nothing_is_paired_wrongly(stream)
