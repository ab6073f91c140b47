"""COCO's annotation files with all that can be wrong in them: one sentence that names file and entry."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpi_jax.data.formats import json_file
from lpi_jax.errors import UserError
from tests.support.coco_trees import edit, write_coco
from tests.support.sources import coco
from tests.support.splits import captions_of


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "mscoco")


@pytest.fixture
def copy(tmp_path, published) -> Path:
    """A folder in the published layout to break."""
    return Path(shutil.copytree(published, tmp_path / "mscoco"))


def replaced(key: str, value: Any) -> Callable[[Any], None]:
    """A change of images[1], annotations[1] and categories[1] that have the key."""

    def change(record) -> None:
        for name in ("images", "annotations", "categories"):
            if key in (entry := record.get(name, [{}, {}])[1]):
                entry[key] = value

    return change


def without(name: str, key: str) -> Callable[[Any], None]:
    return lambda record: record[name][1].pop(key)


def doubled(name: str) -> Callable[[Any], None]:
    return lambda record: record[name].append(record[name][0])


HUGE = 10**400
STRUCTURE = [  # of a whole file
    ("instances", lambda r: r.pop("images"), "json: images is missing; expected a list of objects"),
    ("instances", lambda r: r.update(annotations={}), "json: annotations is an object; expected a list of objects"),
    ("instances", lambda r: r.update(categories=None), "json: categories is null; expected a list"),
    ("captions", lambda r: r.pop("annotations"), "json: annotations is missing"),
]
ENTRIES = [  # of one entry
    ("instances", lambda r: r["images"].insert(1, 5), r"images\[1\]: this is a number; expected an object"),
    ("instances", lambda r: r["categories"].insert(1, []), r"categories\[1\]: this is a list; expected an object"),
    ("instances", lambda r: r["annotations"].insert(1, "x"), r"annotations\[1\]: this is a string; expected an object"),
    ("instances", without("images", "id"), r"images\[1\]: key 'id' is missing"),
    ("instances", without("images", "width"), r"images\[1\]: key 'width' is missing"),
    ("instances", without("annotations", "bbox"), r"annotations\[1\]: key 'bbox' is missing"),
    ("instances", replaced("id", "7"), r"categories\[1\]: id is '7'; expected a whole number from 0"),
    ("instances", replaced("id", True), r"categories\[1\]: id is true; expected a whole number"),
    ("instances", replaced("image_id", -3), r"annotations\[1\]: image_id is -3; expected a whole number from 0"),
    ("instances", replaced("image_id", HUGE), r"annotations\[1\]: image_id is 1000*; expected a whole number from 0"),
    ("instances", replaced("image_id", 2.0), r"annotations\[1\]: image_id is 2.0; expected a whole number"),
    ("instances", replaced("height", 0), r"images\[1\]: height is 0; expected a whole number from 1"),
    ("instances", replaced("file_name", 5), r"images\[1\]: file_name is 5; expected a string"),
    ("instances", replaced("file_name", " "), r"images\[1\]: file_name is ' '; expected a string with something in it"),
    (
        "instances",
        replaced("file_name", "/etc/hosts"),
        r"images\[1\]: file_name is '/etc/hosts', which leads out of .*",
    ),
    ("instances", replaced("file_name", "../a.jpg"), r"images\[1\]: file_name is '../a.jpg', which leads out of"),
    ("instances", replaced("file_name", "a/../../b.jpg"), r"file_name is 'a/../../b.jpg', which leads out of"),
    ("instances", replaced("file_name", "\ud800"), r"images\[1\]: file_name holds half of a surrogate pair"),
    ("instances", replaced("supercategory", 5), r"categories\[1\]: supercategory is 5; expected a string"),
    ("instances", replaced("name", None), r"categories\[1\]: name is null; expected a string"),
    (
        "instances",
        lambda r: r["categories"].append({**r["categories"][0], "name": "robot"}),
        r"categories\[80\]: category id 1 stands already in this file, for another category",
    ),
    ("instances", doubled("images"), r"images\[6\]: image id 6 stands already in images\[0\]"),
    (
        "instances",
        lambda r: r["images"].append({**r["images"][0], "id": 99}),
        r"images\[6\]: file name 'COCO_train2014_000000000006.jpg' stands already in images\[0\]",
    ),
    (
        "instances",
        doubled("annotations"),
        r"annotations\[9\]: annotation id 5000 stands already in this file, for the same image",
    ),
    ("instances", replaced("category_id", 12), r"annotations\[1\]: category_id is 12, which is none of the file's"),
    (
        "instances",
        replaced("area", float("nan")),
        r"annotations\[1\]: area is nan; expected a finite number, 0 or more",
    ),
    ("instances", replaced("area", float("inf")), r"annotations\[1\]: area is inf; expected a finite number"),
    ("instances", replaced("area", HUGE), r"annotations\[1\]: area is 1000*; expected a finite number"),
    ("instances", replaced("area", -0.5), r"annotations\[1\]: area is -0.5; expected a finite number, 0 or more"),
    ("instances", replaced("area", "5"), r"annotations\[1\]: area is '5'; expected a finite number"),
    ("instances", replaced("area", True), r"annotations\[1\]: area is true; expected a finite number"),
    ("instances", replaced("area", [1] * 999), r"annotations\[1\]: area is a list; expected a finite number"),
    (
        "instances",
        replaced("bbox", [1, 2, 3]),
        r"annotations\[1\]: bbox is \[1, 2, 3\]; expected a list of four finite",
    ),
    ("instances", replaced("bbox", [1, 2, 3, float("nan")]), r"bbox is \[1, 2, 3, nan\]; expected a list of four"),
    ("instances", replaced("bbox", "1234"), r"annotations\[1\]: bbox is '1234'; expected a list of four"),
    ("instances", replaced("iscrowd", 2), r"annotations\[1\]: iscrowd is 2; expected 0 or 1"),
    ("captions", without("annotations", "caption"), r"annotations\[1\]: key 'caption' is missing"),
    ("captions", replaced("caption", 3), r"annotations\[1\]: caption is 3; expected a string"),
    ("captions", replaced("caption", "\ud800"), r"annotations\[1\]: caption holds half of a surrogate pair"),
    ("captions", doubled("annotations"), r"annotations\[12\]: annotation id 9061 stands already"),
]


@pytest.mark.parametrize(("name", "change", "message"), STRUCTURE, ids=range(len(STRUCTURE)))
def test_broken_structure_is_one_sentence_with_file_and_entry(copy, name, change, message):
    file = copy / "annotations" / f"{name}_train2014.json"
    edit(file, change)
    for mode in ("error", "skip"):
        with pytest.raises(UserError, match=message) as caught:
            coco(copy, on_bad_example=mode)
        text = str(caught.value)
        assert text.startswith(str(file)) and "\n" not in text and len(text) < 500


@pytest.mark.parametrize(("name", "change", "message"), ENTRIES, ids=range(len(ENTRIES)))
def test_a_broken_entry_is_one_sentence_or_is_counted_alone(copy, name, change, message):
    file = copy / "annotations" / f"{name}_train2014.json"
    edit(file, change)
    with pytest.raises(UserError, match=message) as caught:
        coco(copy)
    text = str(caught.value)
    assert text.startswith(str(file)) and "\n" not in text and len(text) < 500
    try:
        refused = coco(copy, on_bad_example="skip").refused
    except UserError as error:  # the entry was all that some task had
        assert re.search(message, str(error))
    else:
        assert any(re.search(message, told) for told in refused.first)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"line 1, column 2: this is not JSON"),
        (b"", r"line 1, column 1: this is not JSON"),
        (b'{"a": "\xff"}', "the file is not UTF-8"),
        (b"[]", "the file holds a list, not an object; expected COCO 2014's layout"),
        (b"[" * 100_000, "this is JSON of an absurd kind"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "this is JSON of an absurd kind"),
    ],
)
def test_a_file_that_is_not_json_says_so(copy, content, message):
    file = copy / "annotations" / "instances_val2014.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}.*{message}"):
        coco(copy)


def test_a_file_that_would_fill_memory_is_not_read(copy, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"instances_train2014.json: the file has \d+ bytes, more than the 10 allowed"):
        coco(copy)


def described(stream) -> dict[str, list[list[tuple[str, ...]]]]:
    """task -> captions of its train and of its val images."""
    return {task.name: [list(captions_of(task.train)), list(captions_of(task.val))] for task in stream.tasks}


def test_image_ids_and_file_names_may_begin_anew_in_the_second_half(tmp_path, copy):
    before = described(coco(copy))
    for half, rename in (("train", 0), ("val", 10)):
        for name in ("instances", "captions"):

            def renumber(record, half=half, rename=rename):
                for image in record["images"]:
                    image["id"] -= rename
                    old, image["file_name"] = image["file_name"], f"{image['id']}.jpg"
                    if (copy / f"{half}2014" / old).exists():
                        (copy / f"{half}2014" / old).rename(copy / f"{half}2014" / image["file_name"])
                for entry in record["annotations"]:
                    entry["image_id"] -= rename
                    entry["id"] %= 1000

            edit(copy / "annotations" / f"{name}_{half}2014.json", renumber)
    assert described(coco(copy)) == before
    table = tmp_path / "table.csv"
    table.write_text("image_id,task,split\ntrain/6,toys,train\nval/1,toys,val\n")
    assert described(coco(copy, rule="manifest", manifest=str(table))) == {
        "toys": [[("A thing.", "Something else here.")], [("A cat sits.",)]]
    }
    with pytest.raises(UserError, match="a file name stands in both halves, so that Karpathy's file cannot say which"):
        edit(copy / "dataset_coco.json", lambda r: r.update(images=[]))
        coco(copy, split="karpathy")


def test_an_image_id_that_stands_for_two_files_is_neither(copy):
    """Nobody knows whose captions those of this id are: a wrong pair would not be noticed."""
    val = copy / "annotations" / "instances_val2014.json"
    edit(val, lambda r: r["images"][0].update(id=r["images"][1]["id"]))
    with pytest.raises(
        UserError, match=r"images\[1\]: image id 16 stands already in images\[0\], for another file: nei"
    ):
        coco(copy)
    counts = coco(copy, on_bad_example="skip").skipped
    assert counts["repeated image"] == 1
    assert counts["caption without image"] == 4
    assert counts["object without image"] == 2


def test_other_supercategories_are_tasks_and_a_category_without_one_is_its_own(copy):
    for half in ("train", "val"):

        def change(record):
            for category in record["categories"]:
                above = {"animal": "beast", "vehicle": " None ", "person": ""}.get(category["supercategory"])
                category["supercategory"] = category["supercategory"] if above is None else above
                if category["name"] in ("car", "bus", "truck"):
                    category.update(name="van")

        edit(copy / "annotations" / f"instances_{half}2014.json", change)
    stream = coco(copy, on_bad_example="skip")
    assert [task.name for task in stream.tasks] == ["person", "beast", "van"]  # COCO's own, then by name
    assert stream.tasks[1].description.startswith("beast: bird, cat, dog")
    assert stream.tasks[2].description == "van"


def test_crowds_and_areas_may_be_missing(copy):
    before = described(coco(copy))
    for half in ("train", "val"):

        def change(record):
            for thing in record["annotations"]:
                del thing["iscrowd"]
                thing["bbox"] = [0, 0, thing.pop("area"), 1]

        edit(copy / "annotations" / f"instances_{half}2014.json", change)
    assert described(coco(copy)) == before


def test_a_byte_order_mark_and_another_year_are_no_obstacle(copy):
    before = described(coco(copy))
    for file in (copy / "annotations").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        file.rename(file.with_name(file.name.replace("train2014", "train2017").replace("val2014", "val")))
    (copy / "train2014").rename(copy / "train2017")
    (copy / "val2014").rename(copy / "val")
    stream = coco(copy)
    assert described(stream) == before
    assert stream.notes["source"] == "annotations in COCO's format"
    (copy / "annotations" / "captions_val2017.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"annotations: there are captions_val.json, captions_val2017.json; expected one"
    ):
        coco(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["images"][2].pop("split"), r"dataset_coco.json, images\[2\]: key 'split' is missing"),
        (lambda r: r["images"][2].update(split="dev"), r"split is 'dev'; expected one of train, restval, val, test"),
        (lambda r: r["images"].append(r["images"][0]), r"images\[13\]: image 'COCO_train.*' stands already in it"),
        (lambda r: r["images"][0].update(filename="a.jpg"), "image 'a.jpg' is in none of the annotations of"),
        (lambda r: r.pop("images"), "dataset_coco.json: images is missing"),
    ],
)
def test_a_broken_file_of_karpathys_is_named(copy, change, message):
    edit(copy / "dataset_coco.json", change)
    with pytest.raises(UserError, match=message):
        coco(copy, split="karpathy", on_bad_example="skip")
    assert len(coco(copy).tasks) == 3  # without his splits it is not read


def test_karpathys_file_is_expected_where_his_splits_are_wanted(copy):
    (copy / "dataset_coco.json").unlink()
    with pytest.raises(
        UserError, match=r"annotations/dataset_coco\.json: there is no such file; expected one of Karpathy"
    ):
        coco(copy, split="karpathy")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_end_in_a_user_error_or_are_skipped(tmp_path_factory, published, data):
    name = data.draw(st.sampled_from(["instances_train", "captions_val"]))
    content = bytearray((published / "annotations" / f"{name}2014.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=4))
    ends_well(tmp_path_factory, published, name, bytes(content))


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from([10**30, "../a", -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "x"]), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_any_place_ends_in_a_user_error_or_is_skipped(tmp_path_factory, published, data):
    name = data.draw(st.sampled_from(["instances_train", "instances_val", "captions_train"]))
    record = json.loads((published / "annotations" / f"{name}2014.json").read_text())
    place, key = record, data.draw(st.sampled_from([*record]))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 4)):
        place = place[key]
        key = data.draw(st.sampled_from(range(len(place)) if isinstance(place, list) else [*place]))
    place[key] = data.draw(ANY_JSON)
    ends_well(tmp_path_factory, published, name, json.dumps(record).encode())


def ends_well(tmp_path_factory, published: Path, name: str, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        shutil.copytree(published, folder)
    file = folder / "annotations" / f"{name}2014.json"
    file.write_bytes(content)
    try:
        stream = coco(folder, on_bad_example="skip")
    except UserError as error:
        assert str(folder) in str(error) and "\n" not in str(error) and len(str(error)) < 600
    else:
        assert all(len(task.train) and len(task.val) for task in stream.tasks)
    finally:
        shutil.copy(published / "annotations" / file.name, file)
