"""COCO from TFDS: the same stream as from the published files, and what is said of a data set that is no such one."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lpi_jax.data import coco_tfds
from lpi_jax.data.coco import coco
from lpi_jax.data.pictures import BadImage
from lpi_jax.errors import UserError
from tests.coco_trees import NAMES, numbers, write_coco, write_tfds


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "mscoco")


@pytest.fixture(scope="module")
def built(tmp_path_factory, published) -> Path:
    return write_tfds(tmp_path_factory.mktemp("tensorflow_datasets"), published)


@pytest.fixture
def built_copy(tmp_path, built) -> Path:
    """A data_dir of TFDS to break."""
    return Path(shutil.copytree(built, tmp_path / "tfds"))


@pytest.mark.parametrize("split", ["published", "karpathy"])
@pytest.mark.parametrize("rule", ["largest_area", "most_objects", "single_only"])
def test_both_sources_make_the_same_stream(published, built, rule, split):
    ours, theirs = (coco(path, rule=rule, split=split) for path in (published, built))
    assert numbers(ours) == numbers(theirs)
    assert ours.fingerprint == theirs.fingerprint
    for key in ("chosen", "left_out", "manifest_sha256"):
        assert ours.notes[key] == theirs.notes[key]
    assert ours.notes["source"] == "COCO 2014 annotations" and theirs.notes["source"] == "TFDS coco_captions/2014/1.1.0"
    for one, other in zip(ours.tasks, theirs.tasks, strict=True):
        assert one.description == other.description
        for mine, its in ((one.train, other.train), (one.val, other.val)):
            assert mine.keys == its.keys and mine.captions == its.captions
            for i in range(len(mine)):
                assert np.array_equal(mine.load(i), its.load(i))
                for a, b in zip(mine.annotate(i), its.annotate(i), strict=True):
                    assert (a.id, a.category, a.task, a.area, a.crowd) == (b.id, b.category, b.task, b.area, b.crowd)
                    assert b.box == pytest.approx(a.box, abs=1e-6)


def test_tfds_is_read_without_tensorflow(built, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import of it fails
    coco_tfds._records.cache_clear()
    coco_tfds._builder.cache_clear()
    assert coco(built).tasks[0].train.load(0).shape == (10, 9, 3)


def test_the_newest_built_version_is_read_and_unfinished_ones_are_not(built_copy):
    versions = built_copy / "coco_captions" / "2014"
    shutil.copytree(versions / "1.1.0", versions / "1.10.0")
    (versions / "2.0.0").mkdir()
    (versions / "incomplete.XY_3.0.0").mkdir()
    assert coco(built_copy).notes["source"] == "TFDS coco_captions/2014/1.10.0"


def test_a_folder_without_a_built_data_set_names_the_one_expected(tmp_path):
    (tmp_path / "coco_captions").mkdir()
    expected = tmp_path / "coco_captions" / "2014" / "1.1.0"
    with pytest.raises(
        UserError, match=f"no version of this data set is built here; expected .* as {expected}, made by"
    ):
        coco(tmp_path)


def test_a_data_set_that_is_not_what_tfds_builds_is_an_error(built_copy):
    folder = built_copy / "coco_captions" / "2014" / "1.1.0"
    good = {file.name: file.read_text() for file in (folder / "dataset_info.json", folder / "features.json")}

    def says(name: str, old: str, new: str, message: str) -> None:
        assert old in good[name]
        (folder / name).write_text(good[name].replace(old, new))
        coco_tfds._builder.cache_clear()
        coco_tfds._records.cache_clear()
        with pytest.raises(UserError, match=message) as caught:
            coco(built_copy)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
        (folder / name).write_text(good[name])

    says("dataset_info.json", '"array_record"', '"tfrecord"', "split 'train' cannot be read .*array_record format$")
    says("dataset_info.json", '"restval"', '"rest"', "no split 'restval'; expected train, restval, val, test")
    says("dataset_info.json", "{", "{{", "TFDS cannot open this data set")
    own = "tensorflow_datasets.core.features.image_feature.Image"
    says("features.json", own, "antigravity.Image", "class 'antigravity.Image' is none of TFDS's own")
    says("features.json", own, "tensorflow_datasets.core.features.Nothing", "TFDS cannot open this data set")
    says("features.json", '"objects"', '"things"', "its features have no objects with labels")
    says("features.json", '"featuresDict"', "featuresDict", "features.json, line .* this is not JSON")
    assert len(coco(built_copy).tasks) == 3


def test_a_label_that_coco_does_not_have_is_an_error(tmp_path, published):
    path = write_tfds(tmp_path, published, names=["human", *NAMES[1:]])
    with pytest.raises(UserError, match="label 'human' is none of COCO's 80 categories"):
        coco(path)


def test_a_damaged_record_is_an_error_or_is_counted(built_copy):
    shard = next((built_copy / "coco_captions" / "2014" / "1.1.0").glob("*-val.array_record*"))
    shard.write_bytes(b"no records" * 1000)
    with pytest.raises(UserError, match=r"split val, record 0: the record cannot be read"):
        coco(built_copy)
    stream = coco(built_copy, on_bad_example="skip")
    assert stream.skipped == {"unreadable record": 3} and stream.notes["pictures"] == 9


def test_a_record_that_is_lost_later_is_a_bad_picture(built_copy):
    stream = coco(built_copy)
    shutil.rmtree(built_copy)
    coco_tfds._builder.cache_clear()
    coco_tfds._records.cache_clear()
    with pytest.raises(BadImage, match=r"split train, record \d.*COCO_train2014_.*the record cannot be read"):
        stream.tasks[0].train.load(0)


def test_a_record_without_objects_is_described_as_bad(built_copy, monkeypatch):
    record = {"image/filename": b"a.jpg", "image/id": 1, "captions": {"id": [], "text": []}}
    objects = {"id": [1], "area": [1], "bbox": [[0, 0, 1, 1]], "is_crowd": [False], "label": [-1]}
    for broken, message in (
        (record, "'objects'"),
        (record | {"objects": objects}, "label -1 stands for no category"),
        (record | {"objects": objects | {"id": []}}, "zip"),
        (record | {"image/filename": "text"}, "decode"),
    ):
        monkeypatch.setattr(coco_tfds, "_records", lambda *_, broken=broken: [broken])
        with pytest.raises(UserError, match=f"split train, record 0: the record cannot be read .*{message}"):
            coco(built_copy)
    picture = coco_tfds.RecordPicture(str(built_copy), "train", 0, "a.jpg")
    monkeypatch.setattr(coco_tfds, "_records", lambda *_: [{"image": 10**12}])
    with pytest.raises(BadImage, match=r"a\.jpg: the record holds no encoded picture"):
        picture.check(100)
    monkeypatch.setattr(coco_tfds, "_records", lambda *_: [{"image": b"four"}])
    monkeypatch.setattr(coco_tfds, "MAX_BYTES", 3)
    with pytest.raises(BadImage, match=r"a\.jpg: 4 bytes are more than the 3 allowed"):
        picture.check(100)
