"""COCO from TFDS: the same stream as from the published files, and what is said of a data set that is no such one."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lpi_jax.data.images import BadImage
from lpi_jax.data.sources import tfds_records
from lpi_jax.data.sources.coco import main
from lpi_jax.errors import UserError
from tests.support.coco_trees import NAMES, edit_records, numbers, write_coco, write_tfds
from tests.support.pixels import pixels
from tests.support.sources import coco
from tests.support.splits import captions_of


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


def forget() -> None:
    """As in a new process, nothing is open."""
    tfds_records.opened.cache_clear()
    tfds_records.records.cache_clear()


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
            assert mine.keys == its.keys and captions_of(mine) == captions_of(its)
            for i in range(len(mine)):
                assert np.array_equal(pixels(mine.load(i)), pixels(its.load(i)))
                for a, b in zip(mine.records[i].annotation, its.records[i].annotation, strict=True):
                    assert (a.id, a.category, a.task, a.area, a.crowd) == (b.id, b.category, b.task, b.area, b.crowd)
                    assert b.box == pytest.approx(a.box, abs=1e-6)


def test_tfds_is_read_without_tensorflow(built, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import of it fails
    forget()
    assert pixels(coco(built).tasks[0].train.load(0)).shape == (10, 9, 3)


def test_the_newest_built_version_is_read_and_unfinished_ones_are_not(built_copy):
    versions = built_copy / "coco_captions" / "2014"
    shutil.copytree(versions / "1.1.0", versions / "1.10.0")
    (versions / "2.0.0").mkdir()
    (versions / "incomplete.XY_3.0.0").mkdir()
    assert coco(built_copy).notes["source"] == "TFDS coco_captions/2014/1.10.0"


def test_a_folder_without_a_built_data_set_names_the_command_that_builds_it(tmp_path):
    (tmp_path / "coco_captions").mkdir()
    command = rf"python -c .*tfds.builder\('coco_captions/2014', data_dir='{tmp_path}', file_format='array_record'\)"
    with pytest.raises(UserError, match=f"coco_captions/2014: no data set is prepared here; .* by {command}"):
        coco(tmp_path)


def test_a_folder_may_be_given_from_where_one_is(built, monkeypatch):
    monkeypatch.chdir(built)
    stream = coco("")
    assert stream.notes["path"] == str(built) and pixels(stream.tasks[0].train.load(0)).shape == (10, 9, 3)


def test_a_data_set_that_is_not_what_tfds_builds_is_an_error(built_copy):
    folder = built_copy / "coco_captions" / "2014" / "1.1.0"
    good = {file.name: file.read_text() for file in (folder / "dataset_info.json", folder / "features.json")}

    def says(name: str, old: str, new: str, message: str) -> None:
        assert old in good[name]
        (folder / name).write_text(good[name].replace(old, new))
        forget()
        with pytest.raises(UserError, match=message) as caught:
            coco(built_copy)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
        (folder / name).write_text(good[name])

    says(
        "dataset_info.json",
        '"array_record"',
        '"tfrecord"',
        "its files are not array_record; .* file_format='array_record'",
    )
    says(
        "dataset_info.json",
        '"restval"',
        '"rest"',
        "split 'restval' cannot be read .*; its splits are 'train', 'val', 'test'",
    )
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
    assert stream.skipped == {"unreadable record": 3} and stream.notes["images"] == 9


def test_a_manifest_may_name_an_image_whose_record_is_damaged(built_copy, published, tmp_path):
    table = tmp_path / "choice.csv"
    assert main(["manifest", "--path", str(published), "--out", str(table)]) == 0
    given = {"rule": "manifest", "manifest": str(table)}
    whole = coco(built_copy, **given)
    shard = next((built_copy / "coco_captions" / "2014" / "1.1.0").glob("*-val.array_record*"))
    shard.write_bytes(b"no records" * 1000)
    with pytest.raises(UserError, match=r"split val, record 0: the record cannot be read"):
        coco(built_copy, **given)
    stream = coco(built_copy, **given, on_bad_example="skip")
    assert stream.skipped == {"unreadable record": 3}
    assert stream.notes["images"] == whole.notes["images"] - 3


def test_a_record_that_is_lost_later_is_a_bad_image(built_copy):
    stream = coco(built_copy)
    shutil.rmtree(built_copy)
    forget()
    with pytest.raises(BadImage, match=r"split train, record (\d): train\[\1\], feature 'image': the record cannot"):
        stream.tasks[0].train.load(0)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda features: features.pop("objects/label"), "it has no feature 'objects/label'"),
        (
            lambda features: features["objects/label"].int64_list.value.__setitem__(0, -1),
            "label -1 stands for no category",
        ),
        (lambda features: features["objects/label"].int64_list.value.__setitem__(0, 80), "label 80 stands for no"),
        (lambda features: features["objects/id"].Clear(), "zip"),
        (lambda features: features["objects/bbox"].float_list.value.pop(), "unpack"),
        (lambda features: features["objects/area"].float_list.value.append(0.5), "integer"),
        (lambda features: features["captions/id"].int64_list.value.append(1), "zip"),
        (lambda features: features["captions/text"].int64_list.value.extend([1, 2]), "decode"),
        (lambda features: features["image/id"].bytes_list.value.append(b"1"), "integer"),
        (lambda features: features["image/filename"].bytes_list.value.append(b"b.jpg"), "unpack"),
        (lambda features: features["image/filename"].int64_list.value.append(1), "decode"),
    ],
)
def test_a_record_of_another_kind_is_described_as_bad(built_copy, change, message):
    edit_records(next((built_copy / "coco_captions" / "2014" / "1.1.0").glob("*-restval.array_record*")), change)
    with pytest.raises(UserError, match=f"split restval, record 0: the record cannot be read .*({message})") as caught:
        coco(built_copy)
    assert "\n" not in str(caught.value)
    assert coco(built_copy, on_bad_example="skip").skipped == {"unreadable record": 1}
