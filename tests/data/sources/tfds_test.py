"""Data sets that TFDS has prepared: what is read without TensorFlow, and what each kind of mistake says."""

import io
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data.images import BadImage
from lpi_jax.data.sources import tfds_records
from lpi_jax.data.sources.tfds_records import prepared
from lpi_jax.errors import UserError
from tests.support.coco_trees import edit_records
from tests.support.pixels import pixels, shades
from tests.support.sources import tfds
from tests.support.splits import captions_of

ANIMALS = ["cat", "dog"]


def encoded(shade):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(file, "png")
    return file.getvalue()


def record(number, **change):
    """One sound record; the image's red is its number, and so are its texts."""
    texts = [f"number {number}", f"number {number}, again"]
    return {
        "image": encoded(number),
        "image/id": f"id {number}",
        "captions": [{"id": i, "text": text} for i, text in enumerate(texts)],
        "objects": [{"label": number % 2}] * (1 + number % 3),
        "several": ["first", f"number {number}"],
        "label": number % 2,
        "one": f"number {number}",
        "form": np.float32(number),
    } | change


class TinyPairs(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of the records that it is given as `records`: a list for each split."""

    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        kinds = {
            "image": features.Image(),
            "image/id": features.Text(),
            "captions": features.Sequence({"id": np.int64, "text": features.Text()}),
            "objects": features.Sequence({"label": features.ClassLabel(names=ANIMALS)}),
            "several": features.Sequence(features.Text()),
            "label": features.ClassLabel(names=ANIMALS),
            "one": features.Text(),
            "form": features.Scalar(np.float32),
        }
        return tensorflow_datasets.core.DatasetInfo(builder=self, features=features.FeaturesDict(kinds))

    def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in self.records}

    def _generate_examples(self, split):
        for key, one in enumerate(self.records[split]):
            yield key, one | {"image": io.BytesIO(one["image"])}


def prepare(folder, **records):
    """Has TFDS prepare the data set in a folder; the folder of its version."""
    tensorflow_datasets.disable_progress_bar()
    builder = TinyPairs(data_dir=folder, file_format="array_record")
    builder.records = records
    builder.download_and_prepare()
    return folder / "tiny_pairs" / "1.0.0"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with the data set tiny_pairs: six images for training, three for validation. Read only."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder, train=[record(n) for n in range(6)], validation=[record(n) for n in range(6, 9)])
    return folder


@pytest.fixture
def copied(sound, tmp_path):
    """The same in a folder that may be damaged."""
    shutil.copytree(sound, tmp_path / "copy")
    return tmp_path / "copy"


def numbers(split):
    return [int(captions[0].split()[1].strip(",")) for captions in captions_of(split)]


def read(folder, builder="tiny_pairs", caption="captions/text", **more):
    return tfds(builder, data_dir=folder, caption=caption, **more)


def test_images_and_their_captions(sound):
    stream = read(sound)
    (task,) = stream.tasks
    assert (stream.name, task.name, task.description) == ("tiny_pairs", "tiny_pairs", "tiny_pairs")
    assert sorted(shades(task.train)) == [0, 1, 2, 3, 4, 5] and sorted(shades(task.val)) == [6, 7, 8]
    assert numbers(task.train) == shades(task.train) and numbers(task.val) == shades(task.val)
    first = numbers(task.train)[0]
    assert captions_of(task.train)[0] == (f"number {first}", f"number {first}, again")
    assert task.train.keys[:2] == ("train[0]", "train[1]") and task.val.keys[0] == "validation[0]"
    assert pixels(task.train.load(0)).shape == (4, 6, 3)
    path = str(sound / "tiny_pairs" / "1.0.0")
    notes = {"data_set": "tiny_pairs/1.0.0", "path": path, "train": "train", "val": "validation", "images": 9}
    assert stream.notes == notes and stream.skipped == {}


@pytest.mark.parametrize("caption", ["one", "several", "label", "objects/label"])
def test_captions_of_every_kind(sound, caption):
    train = read(sound, caption=caption).tasks[0].train
    for shade, captions in zip(shades(train), captions_of(train), strict=True):
        animals = (ANIMALS[shade % 2],)
        told = {"one": (f"number {shade}",), "several": ("first", f"number {shade}"), "label": animals}
        assert captions == told.get(caption, animals * (1 + shade % 3))


def test_captions_in_sequences_of_sequences(copied):
    """TFDS writes them only with TensorFlow, so they are put into the records here, in its way."""
    features = tensorflow_datasets.features
    kinds = {"image": features.Image(), "deep": features.Sequence({"said": features.Sequence(features.Text())})}
    folder = copied / "tiny_pairs/1.0.0"
    features.FeaturesDict(kinds).save_config(folder)

    def add(features):
        said = [b"a", b"b", *features["one"].bytes_list.value]
        features["deep/said/ragged_flat_values"].bytes_list.value.extend(said)
        features["deep/said/ragged_row_lengths_0"].int64_list.value.extend([2, 0, 1])

    for path in folder.glob("*.array_record-*"):
        edit_records(path, add)
    train = read(copied, caption="deep/said").tasks[0].train
    assert captions_of(train) == tuple(("a", "b", f"number {shade}") for shade in shades(train))


@pytest.mark.parametrize("task", ["label", "objects/label"])
def test_a_feature_may_name_the_task(sound, task):
    stream = read(sound, task=task, task_order=["dog", "cat"])
    assert [one.name for one in stream.tasks] == ["dog", "cat"]
    for one, rest in zip(stream.tasks, (1, 0), strict=True):
        assert {shade % 2 for shade in shades(one.train) + shades(one.val)} == {rest}


def test_splits_as_tfds_writes_them(sound):
    (task,) = read(sound, train="train[:4]+validation[:1]", val="train[5:]").tasks
    whole = shades(read(sound).tasks[0].train)
    assert shades(task.train)[:4] == whole[:4] and shades(task.val) == whole[5:]


def test_overlapping_splits_are_found(sound):
    message = r"record 3: image 'train\[3:\]\[0\]' stands already in record 3, in the other split \(train\)"
    with pytest.raises(UserError, match=message):
        read(sound, train="train[:4]", val="train[3:]")
    assert read(sound, train="train[:4]", val="train[3:]", on_bad_example="skip").skipped == {"repeated image": 1}


def test_records_with_the_same_image_are_one_image_with_the_captions_of_all(tmp_path):
    twice = [record(0), record(1, image=encoded(0)), record(2)]
    prepare(tmp_path, train=twice, validation=[record(7)])
    train = read(tmp_path, caption="one").tasks[0].train
    assert sorted(shades(train)) == [0, 2] and captions_of(train)[shades(train).index(2)] == ("number 2",)
    assert sorted(captions_of(train)[shades(train).index(0)]) == ["number 0", "number 1"]
    with pytest.raises(UserError, match="stands already in"):
        read(tmp_path, caption="one", val="validation+train[:1]")


def test_a_nul_in_a_text_is_a_bad_example(tmp_path):
    prepare(tmp_path, train=[record(0), record(1, one="number\0 1")], validation=[record(7)])
    with pytest.raises(UserError, match=r"record \d: feature 'one' holds a NUL character"):
        read(tmp_path, caption="one")
    assert read(tmp_path, caption="one", on_bad_example="skip").skipped == {"NUL character": 1}


def test_nothing_is_decoded_that_is_not_asked_for_and_no_tensorflow_imported(copied, monkeypatch):
    asked = []

    class Watch:
        def find_spec(self, name, *_):
            asked.append(name)

    def refuse(*_):
        raise AssertionError

    for kind in (tensorflow_datasets.features.Image, tensorflow_datasets.features.Text):
        monkeypatch.setattr(kind, "decode_example_np", refuse)
    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    train = read(copied).tasks[0].train
    assert shades(train) == numbers(train)
    assert not [name for name in asked if name.partition(".")[0] in ("tensorflow", "torch", "cv2")]


def test_the_library_is_imported_only_when_a_data_set_is_read():
    names = "import lpi_jax.data.sources.tfds, "
    names += "lpi_jax.data.sources.table, lpi_jax.data.sources.webdataset, lpi_jax.data.arrange, sys;"
    code = f"{names} print({{'tensorflow_datasets', 'tensorflow', 'pyarrow'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_streams_cross_process_borders(sound):
    stream = read(sound)
    again = pickle.loads(pickle.dumps(stream))
    assert shades(again.tasks[0].train) == shades(stream.tasks[0].train)


def test_fingerprint_follows_data_and_choice_but_not_the_folder(sound, copied, tmp_path):
    first = read(sound).fingerprint
    assert first == read(copied).fingerprint == read(sound, on_bad_example="skip").fingerprint and len(first) == 64
    found = {first, read(sound, caption="one").fingerprint, read(sound, task="label").fingerprint}
    found |= {read(sound, task="label", task_order=order).fingerprint for order in (["cat", "dog"], ["dog", "cat"])}
    found.add(read(sound, train="train[:5]").fingerprint)
    prepare(tmp_path, train=[record(n + 1) for n in range(6)], validation=[record(n) for n in range(7, 10)])
    found.add(read(tmp_path).fingerprint)
    assert len(found) == 6


def test_the_folder_of_a_version_and_versions_by_number(sound, tmp_path, monkeypatch):
    folder = sound / "tiny_pairs" / "1.0.0"
    assert read("", builder=str(folder)).fingerprint == read(sound, builder="tiny_pairs:1.0.0").fingerprint
    monkeypatch.chdir(sound)
    assert read("", builder=str(folder)).fingerprint == read(".").fingerprint
    for version in ("9.0.0", "10.2.0", "10.10.0", "10.11.0", "11.0.0", "notes"):
        (tmp_path / "pairs/plain" / version).mkdir(parents=True)
        if version not in ("10.11.0", "11.0.0"):  # not prepared to the end
            (tmp_path / "pairs/plain" / version / "features.json").touch()
    for name in ("pairs/plain", "pairs", "pairs/plain:10.10.0", "pairs/plain/10.10.0"):
        assert prepared(name, str(tmp_path)) == str(tmp_path / "pairs/plain/10.10.0")
    (tmp_path / "pairs/other/1.0.0").mkdir(parents=True)
    (tmp_path / "pairs/other/1.0.0/features.json").touch()
    with pytest.raises(UserError, match=r"has several configurations; expected one of 'pairs/other', 'pairs/plain'"):
        prepared("pairs", str(tmp_path))


def test_a_data_set_that_is_not_prepared_is_told_with_the_command_that_does(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    for builder, folder in [("coco_captions/2014", "coco_captions/2014"), ("flickr:2.0.0", "flickr/2.0.0")]:
        with pytest.raises(UserError) as caught:
            tfds(builder)
        assert str(caught.value) == (
            f"{tmp_path}/{folder}: no data set is prepared here; it is prepared by python -c"
            f" \"import tensorflow_datasets as tfds; tfds.builder('{builder}', data_dir='{tmp_path}',"
            " file_format='array_record').download_and_prepare()\""
        )


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"image": "picture"},
            r"there is no feature 'picture'; the closest is '[\w/]+', of 'captions/id', 'captions/text',",
        ),
        ({"caption": "captions/txt"}, "there is no feature 'captions/txt'; the closest is 'captions/text', of"),
        ({"caption": "captions"}, "there is no feature 'captions'; the closest is 'captions/"),
        ({"task": "lable"}, "there is no feature 'lable'; the closest is 'label', of"),
        ({"image": "label"}, r"feature 'label' is ClassLabel\(.*\); expected one image of whole numbers"),
        ({"caption": "image"}, r"feature 'image' is Image\(.*\); expected text or class labels"),
        ({"caption": "captions/id"}, r"feature 'captions/id' is a sequence of Tensor\(.*\); expected text or class"),
        ({"task": "form"}, r"feature 'form' is Scalar\(.*\); expected text or class labels"),
        ({"train": "trian"}, "split 'trian' cannot be read .*; its splits are 'train', 'validation'"),
        ({"val": "train["}, r"split 'train\[' cannot be read"),
        ({"val": "train[:0]"}, "task 'tiny_pairs' has no val images; expected at least one"),
        ({"on_bad_example": "ignore"}, "on_bad_example is 'ignore'"),
        ({"task": "label", "task_order": ["cat"]}, "task_order leaves out 'dog'"),
    ],
)
def test_a_wrong_argument_is_one_clear_sentence(sound, change, message):
    with pytest.raises(UserError, match=message) as caught:
        read(sound, **change)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


BAD = [
    ("no captions", {"captions": []}, {}, "captions is an empty list"),
    (
        "empty caption",
        {"captions": [{"id": 1, "text": " ... "}]},
        {},
        r"caption ' \.\.\. ' is empty once it is cleaned",
    ),
    ("not UTF-8", {"captions": [{"id": 1, "text": b"caf\xe9"}]}, {}, "byte 4 of feature 'captions/text' is not UTF-8"),
    (
        "no single task",
        {"objects": []},
        {"task": "objects/label"},
        "feature 'objects/label' says nothing; expected one",
    ),
    (
        "no single task",
        {"objects": [{"label": 0}, {"label": 1}]},
        {"task": "objects/label"},
        "says 'cat', 'dog'; expected",
    ),
    ("unknown label", {"objects": [{"label": -1}]}, {"task": "objects/label"}, "is -1, which stands for no class"),
    ("unreadable image", {"image": b""}, {}, "feature 'image': this is not an image"),
    ("unreadable image", {"image": encoded(1)[:-20]}, {}, r"train\[\d\], feature 'image': "),
    ("unreadable image", {"image": b"no image"}, {}, "this is not an image in a known format"),
]


@pytest.mark.parametrize("kind, change, more, message", BAD, ids=[f"{bad[0]}-{i}" for i, bad in enumerate(BAD)])
def test_a_bad_record_is_one_clear_sentence_or_is_counted(tmp_path, kind, change, more, message):
    names = {"cat": 0, "dog": 1}
    records = [record(n, objects=[{"label": n % 2}]) for n in range(4)]
    train = [*records, record(9, **change)]
    folder = prepare(tmp_path, train=train, validation=[record(n) for n in (4, 5)])
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, **more)
    text = str(caught.value)
    assert text.startswith(f"{folder}/tiny_pairs-train.array_record-00000-of-00001, record ") and "\n" not in text
    stream = read(tmp_path, on_bad_example="skip", **more)
    assert stream.skipped == {kind: 1}
    assert sorted(shade for task in stream.tasks for shade in shades(task.train)) == [0, 1, 2, 3]
    assert not more or {task.name for task in stream.tasks} == set(names)


def test_captions_in_any_script_stay_as_they_are(tmp_path):
    spoken = ["עפיפון אדום", "طائرة ورقية", "🪁 kite", "紅い凧"]
    records = {
        split: [record(n, captions=[{"id": 0, "text": text} for text in spoken])]
        for n, split in enumerate(("train", "validation"))
    }
    prepare(tmp_path, **records)
    assert captions_of(read(tmp_path).tasks[0].train) == (tuple(spoken),)


def test_a_task_with_one_example_is_an_error(tmp_path):
    prepare(tmp_path, train=[record(0), record(1)], validation=[record(2)])
    with pytest.raises(UserError, match="task 'dog' has no val images; expected at least one"):
        read(tmp_path, task="label")


def shard_of(folder):
    return folder / "tiny_pairs" / "1.0.0" / "tiny_pairs-train.array_record-00000-of-00001"


def test_a_damaged_shard_is_told_with_its_record_or_is_counted(copied):
    raw = shard_of(copied).read_bytes()
    shard_of(copied).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match=f"{shard_of(copied)}, record 0: the record cannot be read"):
        read(copied)
    whole = read(copied, train="validation[:2]+train", val="validation[2:]", on_bad_example="skip")
    assert whole.skipped == {"damaged record": 6} and len(whole.tasks[0].train) == 2


def test_a_missing_shard_and_one_that_claims_too_many_records(copied):
    told = copied / "tiny_pairs/1.0.0/dataset_info.json"
    text = told.read_text()
    told.write_text(text.replace('"6"', '"8000000000000"'))
    with pytest.raises(UserError, match=r"8000000000000 records cannot be in the \d+ bytes of this file"):
        read(copied)
    told.write_text(text)
    tfds_records.opened.cache_clear()
    shard_of(copied).unlink()
    with pytest.raises(UserError, match=f"{shard_of(copied)}: there is no such file"):
        read(copied)


def test_records_that_vanish_later_are_bad_images(copied):
    train = read(copied).tasks[0].train
    tfds_records.records.cache_clear()
    shard_of(copied).unlink()
    with pytest.raises(BadImage, match=r"record 1: train\[1\], feature 'image': the record cannot be read"):
        train.load(1)


def test_a_record_without_an_image_or_with_one_too_large_is_a_bad_image(copied, monkeypatch):
    train = read(copied).tasks[0].train
    monkeypatch.setattr(tfds_records, "MAX_BYTES", 3)
    with pytest.raises(BadImage, match=r"train\[0\], feature 'image': \d+ bytes are more than the 3 allowed"):
        train.load(0)
    edit_records(shard_of(copied), lambda features: features["image"].int64_list.value.append(7))
    tfds_records.records.cache_clear()
    with pytest.raises(BadImage, match=r"train\[0\], feature 'image': the record holds a number, no image"):
        train.load(0)
    edit_records(shard_of(copied), lambda features: features["image"].Clear())
    tfds_records.records.cache_clear()
    with pytest.raises(BadImage, match=r"train\[0\], feature 'image': the record cannot be read"):
        train.load(0)


def test_other_files_than_array_record_are_refused_with_the_command_that_prepares_them(copied):
    told = copied / "tiny_pairs/1.0.0/dataset_info.json"
    told.write_text(told.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        UserError, match=r"are not array_record; .*tfds.builder\('tiny_pairs:1.0.0', .*'array_record'\)"
    ):
        read(copied)


def test_a_data_set_does_not_choose_what_is_imported(copied, monkeypatch):
    (copied / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(copied)
    told = copied / "tiny_pairs/1.0.0/features.json"
    sound = told.read_text()
    legacy = json.dumps({"type": "trap.Feature", "content": {}})
    name = "tensorflow_datasets.core.features.text_feature.Text"
    for text in (sound.replace(name, "trap.Text"), legacy):
        told.write_text(text)
        with pytest.raises(UserError, match=r"features.json: class 'trap\.\w+' is none of TFDS's own features"):
            read(copied)
    assert "trap" not in sys.modules


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_end_in_a_user_error_or_a_sound_stream(copied, data):
    folder = copied / "tiny_pairs" / "1.0.0"
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    sound = path.read_bytes()
    raw = bytearray(sound)
    busy = [index for index, byte in enumerate(raw) if byte]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.sampled_from(busy))
        raw[start : start + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=12))
    path.write_bytes(raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))])
    try:
        for mode in ("error", "skip"):
            tfds_records.opened.cache_clear()
            tfds_records.records.cache_clear()
            try:
                stream = read(copied, caption="one", on_bad_example=mode)
            except UserError as error:
                assert str(copied) in str(error) and "\n" not in str(error)
            else:
                for task in stream.tasks:
                    assert numbers(task.train) == shades(task.train) and numbers(task.val) == shades(task.val)
    finally:
        path.write_bytes(sound)
