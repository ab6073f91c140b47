"""The table that says which image is in which task and split: written, read again, and broken."""

import hashlib
from pathlib import Path

import pytest

from lpi_jax.data.sources.coco import main
from lpi_jax.data.sources.manifest import read
from lpi_jax.errors import UserError
from tests.support.coco_trees import FOUR, manifest, numbers, write_coco, write_tfds
from tests.support.sources import coco


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "mscoco")


@pytest.fixture(scope="module")
def built(tmp_path_factory, published) -> Path:
    return write_tfds(tmp_path_factory.mktemp("tensorflow_datasets"), published)


@pytest.mark.parametrize("split", [[], ["--karpathy"], ["--karpathy", "val"]])
@pytest.mark.parametrize("rule", ["largest_area", "most_objects", "single_only"])
def test_a_written_manifest_makes_the_same_stream_from_both_sources(published, built, tmp_path, capsys, rule, split):
    out = tmp_path / "choice.csv"
    assert main(["manifest", "--path", str(published), "--out", str(out), "--rule", rule, *split]) == 0
    how = {"split": "karpathy" if split else "published", "evaluate": split[1] if len(split) > 1 else "test"}
    chosen = coco(published, rule=rule, **how)
    sha256 = hashlib.sha256(out.read_bytes()).hexdigest()
    assert f"{sha256}  {out}" in capsys.readouterr().out
    for path in (published, built):
        again = coco(path, rule="manifest", manifest=str(out))
        assert again.notes["manifest_sha256"] == chosen.notes["manifest_sha256"] == sha256
        assert again.fingerprint == chosen.fingerprint and again.notes["chosen"] == chosen.notes["chosen"]
        assert numbers(again) == numbers(chosen)
        assert [task.description for task in again.tasks] == [task.description for task in chosen.tasks]
        assert again.notes["split"] == "manifest"
        assert again.notes["left_out"] == {"not in the manifest": sum(chosen.notes["left_out"].values())}


def test_the_canonical_manifest_is_sorted_by_number(published, tmp_path):
    out = tmp_path / "choice.csv"
    assert main(["manifest", "--path", str(published), "--out", str(out), "--rule", "single_only"]) == 0
    rows = out.read_bytes().decode().split("\n")
    assert rows[:4] == ["image_id,task,split", "2,animal,train", "4,vehicle,train", "5,person,train"]
    assert rows[4:6] == ["11,animal,val", "12,vehicle,val"] and rows[-1] == ""


def test_a_manifest_may_name_other_tasks_which_come_after_the_twelve(published, tmp_path):
    stream = coco(published, rule="manifest", manifest=manifest(tmp_path, *FOUR))
    assert numbers(stream) == {"animal": ([1], [12]), "toys": ([6], [11])}
    assert stream.tasks[1].description == "toys" and stream.tasks[0].description.startswith("animal: bird")
    assert stream.tasks[1].train.records[0].annotation == ()


def test_columns_in_any_order_more_columns_blank_lines_and_a_byte_order_mark(published, tmp_path):
    rows = [f" {split} ,x,{number},{task}" for number, task, split in (row.split(",") for row in FOUR)]
    path = manifest(tmp_path, rows[0], "", " , ,,", *rows[1:], header="\ufeffsplit,weight, image_id,task")
    stream = coco(published, rule="manifest", manifest=path)
    assert stream.fingerprint == coco(published, rule="manifest", manifest=manifest(tmp_path, *FOUR)).fingerprint


@pytest.mark.parametrize("sign", [";", "\t"])
def test_columns_may_be_separated_by_semicolons_or_tabs(published, tmp_path, sign):
    path = manifest(tmp_path, *(row.replace(",", sign) for row in FOUR), header=f"image_id{sign}task{sign}split")
    stream = coco(published, rule="manifest", manifest=path)
    assert stream.fingerprint == coco(published, rule="manifest", manifest=manifest(tmp_path, *FOUR)).fingerprint


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("77,animal,train", "line 6: image_id is '77', which is no image of .*mscoco$"),
        ("01,animal,train", "line 6: image_id is '01', which is no image of"),
        ("x" * 200, "line 6: the row has 1 cells; expected 3"),
        ("x" * 200 + ",a,val", "line 6: image_id is 'xxx.*[.]{3}', which is no image"),
        ("1,animal,train", "line 6: image_id '1' stands already in line 4$"),
        ("5,ani\0mal,train", "line 6: the row holds a NUL character"),
        ("2,animal,test", "line 6: split is 'test'; expected 'train' or 'val'$"),
        ("2, ,train", "line 6: task is empty"),
        ("2,animal,train,5", "line 6: the row has 4 cells; expected 3, as many as the header$"),
        ('2,"animal,train\n3,animal,val', "line 6: from here on this is not CSV .a quote in this row is never closed"),
        ('2,"animal,train\n3,animal",val', "line 6: a value goes over the end of its row; expected quotes in pairs$"),
        ('2,animal,train,"\r"', "line 6: the row has 4 cells"),
        ('2,"animal\r3",train', "line 6: a value goes over the end of its row"),
        ("2," + "x" * 200_000 + ",val", "line 6: from here on this is not CSV .field larger"),
    ],
)
def test_a_bad_row_of_a_manifest_is_one_sentence_with_its_line(published, tmp_path, row, message):
    path = manifest(tmp_path, *FOUR, row)
    with pytest.raises(UserError, match=message) as caught:
        coco(published, rule="manifest", manifest=path)
    assert str(caught.value).startswith(f"{path}, line 6: ") and "\n" not in str(caught.value)


def test_a_manifest_that_is_no_table(published, tmp_path, monkeypatch):
    def says(path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            coco(published, rule="manifest", manifest=str(path))

    says(tmp_path / "no.csv", "no.csv: there is no such file; expected a CSV table")
    says(tmp_path, f"{tmp_path}: this is a folder; expected a CSV table")
    says(manifest(tmp_path, header="image_id,task"), "line 1: column 'split' is missing; expected the header image_id,")
    says(manifest(tmp_path, header="image_id,task,split,task"), "line 1: column 'task' stands 2 times")
    says(manifest(tmp_path, header=""), "line 1: column 'image_id' is missing")
    says(manifest(tmp_path, header="image_id|task|split"), "line 1: column 'image_id' is missing; expected the header")
    says(manifest(tmp_path), "the table names no image")
    (tmp_path / "latin.csv").write_bytes(b"image_id,task,split\n1,caf\xe9,train\n")
    says(tmp_path / "latin.csv", "latin.csv: the file is not UTF-8")
    monkeypatch.setattr("lpi_jax.data.sources.manifest.MAX_BYTES", 5)
    says(tmp_path / "latin.csv", "33 bytes, more than the 5 allowed")


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_task_whose_rows_are_all_of_one_split_is_told_with_the_table(published, tmp_path, missing):
    rows = [row for row in FOUR if not row.startswith(("1,", "12,")) or not row.endswith(missing)]
    path = manifest(tmp_path, *rows)
    with pytest.raises(UserError) as caught:
        coco(published, rule="manifest", manifest=path)
    assert str(caught.value) == (
        f"{path}: task 'animal' has no {missing} images; expected at least one row with split {missing}"
    )


def test_as_many_unknown_names_are_passed_over_as_images_could_not_be_read(tmp_path):
    path = manifest(tmp_path, "8,animal,train", "1,animal,val", "9,animal,train")
    assert read(path, "image_id", {"1": 1}, "there", unread=2) == {1: ("animal", "val")}
    with pytest.raises(UserError, match=r"line 4: image_id is '9', which is no image of there$"):
        read(path, "image_id", {"1": 1}, "there", unread=1)
