"""Flickr30k in Karpathy's form: splits, captions, folders, manifests, and what each mistake says."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data.sources.karpathy import read
from lpi_jax.errors import UserError
from tests.support.pixels import pixels
from tests.support.sources import flickr30k
from tests.support.splits import captions_of

SPLITS = ("train", "train", "val", "test", "test", "train")


def entry(number: int, split: str, captions=("Two dogs\n run. ", "Dogs.")) -> dict:
    """One image as the published file has it."""
    sentences = [
        {"tokens": text.split(), "raw": text, "imgid": number, "sentid": 5 * number + i}
        for i, text in enumerate(captions)
    ]
    sentids = [sentence["sentid"] for sentence in sentences]
    return {
        "sentids": sentids,
        "imgid": number,
        "sentences": sentences,
        "split": split,
        "filename": f"{1000 + number}.jpg",
    }


ENTRIES = [entry(number, split) for number, split in enumerate(SPLITS)]


def write(folder: Path, entries, images: str = "flickr30k-images") -> Path:
    (folder / images).mkdir(parents=True, exist_ok=True)
    for number in range(len(SPLITS)):
        Image.new("RGB", (6 + number, 4), (10 * number, 0, 0)).save(folder / images / f"{1000 + number}.jpg")
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "flickr", ENTRIES)


def table(folder: Path, *rows: str, header: str = "image,task,split") -> str:
    path = folder.parent / "tasks.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_one_task_measured_on_karpathys_test_images(folder):
    stream = flickr30k(folder)
    (task,) = stream.tasks
    assert stream.name == task.name == task.description == "flickr30k"
    assert task.train.keys == ("1000.jpg", "1001.jpg", "1005.jpg") and task.val.keys == ("1003.jpg", "1004.jpg")
    assert captions_of(task.train)[0] == ("Two dogs run.", "Dogs.")
    assert pixels(task.val.load(0)).shape == (4, 9, 3) and task.val.records[0].annotation is None
    assert stream.notes["left_out"] == {"Karpathy's val, not evaluated": 1}
    assert stream.notes["split"] == "Karpathy's, measured on test" and stream.notes["path"] == str(folder)
    assert stream.notes["chosen"] == {"flickr30k": {"train": 3, "val": 2}}
    canonical = "image,task,split\n" + "".join(
        f"{1000 + n}.jpg,flickr30k,{split}\n" for n, split in [(0, "train"), (1, "train"), (3, "val"), (4, "val")]
    )
    canonical += "1005.jpg,flickr30k,train\n"
    assert stream.notes["manifest_sha256"] == hashlib.sha256(canonical.encode()).hexdigest()


def test_or_on_his_val_images(folder):
    stream = flickr30k(folder, evaluate="val")
    assert stream.tasks[0].val.keys == ("1002.jpg",) and len(stream.tasks[0].train) == 3
    assert stream.notes["left_out"] == {"Karpathy's test, not evaluated": 2}
    assert stream.fingerprint != flickr30k(folder).fingerprint


@pytest.mark.parametrize("images", ["flickr30k_images", "images", "."])
def test_images_may_lie_in_other_folders_or_beside_the_file(tmp_path, folder, images):
    other = write(tmp_path / "other", ENTRIES, images)
    found, expected = (pixels(flickr30k(path).tasks[0].train.load(1)) for path in (other, folder))
    assert np.array_equal(found, expected)
    assert flickr30k(other).fingerprint == flickr30k(folder).fingerprint


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_where_images_were_looked_for_is_said_when_there_are_none(tmp_path, mode):
    folder = write(tmp_path / "other", ENTRIES, "photos")
    with pytest.raises(UserError) as caught:
        flickr30k(folder, on_bad_example=mode)
    assert str(caught.value) == (
        f"{folder}: here is no image of dataset_flickr30k.json; expected them in one of"
        " flickr30k-images/, flickr30k_images/, images/ or beside the file"
    )


def test_one_image_that_is_missing_beside_the_file_is_no_missing_folder(tmp_path):
    folder = write(tmp_path / "beside", ENTRIES, ".")
    (folder / "1000.jpg").unlink()
    assert flickr30k(folder, on_bad_example="skip").skipped == {"missing file": 1}
    with pytest.raises(UserError, match=r"images\[0\]: .*1000.jpg: there is no such file"):
        flickr30k(folder)


def test_restval_is_trained_on(tmp_path):
    stream = flickr30k(write(tmp_path / "rest", [ENTRIES[0] | {"split": "restval"}, *ENTRIES[1:]]))
    assert stream.tasks[0].train.keys == ("1000.jpg", "1001.jpg", "1005.jpg")


def test_loaders_cross_process_borders(folder):
    load = pickle.loads(pickle.dumps(flickr30k(folder).tasks[0].train.load))
    assert pixels(load(0)).shape == (4, 6, 3)


ROWS = ("1005.jpg,dogs,val", "1000.jpg,dogs,train", "1002.jpg,runs,train", "1003.jpg,runs,val")


def test_a_manifest_decides_tasks_and_splits_alone(folder):
    stream = flickr30k(folder, manifest=table(folder, *ROWS), task_order=["runs", "dogs"])
    runs, dogs = stream.tasks
    assert (runs.name, runs.train.keys, runs.val.keys) == ("runs", ("1002.jpg",), ("1003.jpg",))
    assert (dogs.name, dogs.train.keys, dogs.val.keys) == ("dogs", ("1000.jpg",), ("1005.jpg",))
    assert stream.notes["left_out"] == {"not in the manifest": 2} and stream.notes["split"] == "manifest"
    assert stream.notes["chosen"]["dogs"] == {"train": 1, "val": 1}


def test_a_manifest_that_says_what_karpathy_says_makes_the_same_stream(folder):
    rows = [f"{1000 + n}.jpg,flickr30k,{s.replace('test', 'val')}" for n, s in enumerate(SPLITS) if s != "val"]
    assert flickr30k(folder, manifest=table(folder, *rows)).fingerprint == flickr30k(folder).fingerprint


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("9.jpg,dogs,val", "line 6: image is '9.jpg', which is no image of .*dataset_flickr30k.json$"),
        ("1000.jpg,dogs,val", "line 6: image '1000.jpg' stands already in line 3$"),
        ("1001.jpg,dogs,test", "line 6: split is 'test'; expected 'train' or 'val'$"),
    ],
)
def test_a_bad_row_of_a_manifest_is_named(folder, row, message):
    with pytest.raises(UserError, match=message):
        flickr30k(folder, manifest=table(folder, *ROWS, row))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, r"images\[1\]: split is 'dev'"),
        ({"filename": 5}, r"images\[1\]: filename is 5; expected a string"),
    ],
)
def test_a_row_of_an_entry_that_is_bad_is_passed_over(folder, change, message):
    """Also where the entry's file name is what cannot be read: then one row has no entry."""
    given = table(folder, *ROWS, "1001.jpg,dogs,val")
    write(folder, [ENTRIES[0], ENTRIES[1] | change, *ENTRIES[2:]])
    with pytest.raises(UserError, match=message):
        flickr30k(folder, manifest=given)
    stream = flickr30k(folder, manifest=given, on_bad_example="skip")
    assert sum(stream.skipped.values()) == 1
    assert [task.val.keys for task in stream.tasks] == [("1005.jpg",), ("1003.jpg",)]
    with pytest.raises(UserError, match=r"line 7: image is '9\.jpg', which is no image of"):
        flickr30k(folder, manifest=table(folder, *ROWS, "1001.jpg,dogs,val", "9.jpg,dogs,val"), on_bad_example="skip")


def test_a_bad_entry_counts_for_the_task_of_its_row(folder):
    write(folder, [ENTRIES[0] | {"split": "dev"}, *ENTRIES[1:]])
    with pytest.raises(UserError, match=r"task 'dogs' has no train images once 1 bad examples are skipped"):
        flickr30k(folder, manifest=table(folder, *ROWS), on_bad_example="skip")


def test_a_manifest_of_coco_is_refused(folder):
    with pytest.raises(UserError, match="line 1: column 'image' is missing; expected the header image,task,split"):
        flickr30k(folder, manifest=table(folder, header="image_id,task,split"))


def lacking(number: int, key: str) -> dict:
    return {name: value for name, value in ENTRIES[number].items() if name != key}


BAD = [
    ("not an object", 7, "this is a number; expected an object"),
    ("missing key", lacking(1, "split"), "key 'split' is missing"),
    ("missing key", lacking(1, "filename"), "key 'filename' is missing"),
    ("wrong type", ENTRIES[1] | {"split": 1}, "split is 1; expected a string"),
    ("unknown split", ENTRIES[1] | {"split": "dev"}, "split is 'dev'; expected one of train, restval, val, test"),
    ("wrong type", ENTRIES[1] | {"filename": ["a"]}, "filename is a list; expected a string"),
    ("not UTF-8", ENTRIES[1] | {"filename": "\ud800"}, "filename holds half of a surrogate pair"),
    ("unsafe path", ENTRIES[1] | {"filename": "/etc/hosts"}, "filename is '/etc/hosts', which leads out of .*images"),
    ("unsafe path", ENTRIES[1] | {"filename": "../dataset_flickr30k.json"}, "which leads out of"),
    ("no captions", ENTRIES[1] | {"sentences": []}, "this image has no sentences"),
    ("no captions", lacking(1, "sentences"), "this image has no sentences"),
    ("wrong type", ENTRIES[1] | {"sentences": "Dogs."}, "sentences is a string; expected a list"),
    ("wrong type", ENTRIES[1] | {"sentences": ["Dogs."]}, "sentences holds something else than objects like"),
    ("wrong type", ENTRIES[1] | {"sentences": [{"raw": None}]}, "sentences holds something else than objects"),
    ("empty caption", entry(1, "train", [" ..\n", ""]), "caption '..' is empty"),
    ("not UTF-8", entry(1, "train", ["\udc00"]), "captions holds half of a surrogate pair"),
    ("repeated image", ENTRIES[0] | {"split": "test"}, r"image '1000.jpg' stands already in images\[0\], in the other"),
    (
        "repeated image",
        ENTRIES[0] | {"filename": "./1000.jpg", "split": "test"},
        r"image './1000.jpg' stands already in images\[0\], in the other split \(train\)",
    ),
    ("missing file", ENTRIES[1] | {"filename": "no.jpg"}, "there is no such file"),
    ("NUL character", ENTRIES[1] | {"filename": "a\0b"}, "filename holds a NUL character"),
    ("NUL character", entry(1, "train", ["a\0dog"]), "captions holds a NUL character"),
    ("unreadable list", entry(1, "train", ["['a dog', 'a c"]), "it looks like a list written as text"),
]


@pytest.mark.parametrize(("kind", "bad", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_image_is_one_sentence_or_is_counted(tmp_path, kind, bad, message):
    folder = write(tmp_path / "bad", [ENTRIES[0], bad, *ENTRIES[2:]])
    with pytest.raises(UserError, match=message) as caught:
        flickr30k(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'dataset_flickr30k.json'}, images[1]: ")
    assert "\n" not in text and len(text) < 500
    stream = flickr30k(folder, on_bad_example="skip")
    assert stream.skipped == {kind: 1}
    assert stream.tasks[0].train.keys == ("1000.jpg", "1005.jpg")


def test_an_image_that_stands_twice_has_the_captions_of_both(tmp_path):
    again = entry(0, "restval", ["Dogs.", "A third."])
    stream = flickr30k(write(tmp_path / "twice", [*ENTRIES, again]))
    train = stream.tasks[0].train
    assert captions_of(train)[0] == ("Two dogs run.", "Dogs.", "A third.") and len(train) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file; expected one of Karpathy's files"),
        ("[]", "holds a list, not an object"),
        ("{", "line 1, column 2: this is not JSON"),
        ("{}", "images is missing; expected a list of objects"),
        ('{"images": {}}', "images is an object; expected a list"),
        ('{"images": []}', "nothing in it names a task"),
    ],
)
def test_a_file_that_is_none_of_karpathys_says_so(folder, content, message):
    file = folder / "dataset_flickr30k.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=f"{file}.*{message}"):
        flickr30k(folder)


def test_a_wrong_argument_is_named(folder):
    with pytest.raises(UserError, match="evaluate is 'train'; expected 'test' or 'val'"):
        flickr30k(folder, evaluate="train")
    with pytest.raises(UserError, match="task 'flickr30k' has no val images"):
        flickr30k(write(folder, ENTRIES[:2]), evaluate="val")


def test_tokens_are_not_kept(folder):
    images = list(read(str(folder / "dataset_flickr30k.json")))
    assert "tokens" not in images[0].entry["sentences"][0] and images[0].entry["sentences"][0]["raw"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ENTRIES[0], "raw"]), inner, max_size=5)
        ),
        max_leaves=12,
    )
)
def test_any_json_at_all_is_refused_or_skipped(tmp_path, value):
    folder = write(tmp_path / "any", [*ENTRIES, value])
    with pytest.raises(UserError, match=r"images\[6\]: "):
        flickr30k(folder)
    stream = flickr30k(folder, on_bad_example="skip")
    assert stream.skipped and stream.notes["images"] == len(ENTRIES) - 1  # Karpathy's val is left out
