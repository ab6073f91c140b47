"""COCO in twelve tasks: every rule and split, bad examples, wrong arguments, and the command line."""

import csv
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpi_jax import config as configs
from lpi_jax.config import command_line
from lpi_jax.data.sources.coco import RELEASE_WEIGHTS, main
from lpi_jax.data.sources.coco_tasks import RULES, TASKS, CocoObject, task_of
from lpi_jax.errors import UserError
from lpi_jax.methods import similarity
from tests.support.coco_trees import (
    FOUR,
    NAMES,
    PHOTOS,
    SUPERCATEGORY,
    edit,
    manifest,
    numbers,
    write_coco,
    write_tfds,
)
from tests.support.pixels import pixels
from tests.support.sources import coco
from tests.support.splits import captions_of

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "mscoco")


@pytest.fixture(scope="module")
def built(tmp_path_factory, published) -> Path:
    return write_tfds(tmp_path_factory.mktemp("tensorflow_datasets"), published)


@pytest.fixture
def copy(tmp_path, published) -> Path:
    """A folder in the published layout to break."""
    return Path(shutil.copytree(published, tmp_path / "mscoco"))


# ---- tasks -----------------------------------------------------------------------------------------------------------


def test_the_tasks_are_those_of_the_bundled_table_and_hold_the_80_categories():
    with open(ROOT / "lpi_jax" / "assets" / "coco12_similarity.csv", newline="") as file:
        assert next(csv.reader(file)) == ["task", *TASKS]
    assert sorted(NAMES) == sorted(SUPERCATEGORY) and len(SUPERCATEGORY) == 80
    assert RELEASE_WEIGHTS["appliance"] == 73 and RELEASE_WEIGHTS["kitchen"] == 474


EXPECTED = {
    "largest_area": {"vehicle": ([1, 4], [12, 15]), "animal": ([2, 3], [11, 14, 16]), "person": ([5], [13, 17])},
    "most_objects": {"vehicle": ([1, 4], [12, 15]), "animal": ([2], [11, 14, 16]), "person": ([3, 5], [13, 17])},
    "single_only": {"vehicle": ([4], [12, 15]), "animal": ([2], [11, 14, 16]), "person": ([5], [13, 17])},
}


@pytest.mark.parametrize("rule", EXPECTED)
def test_each_rule_gives_an_image_its_one_task(published, rule):
    stream = coco(published, rule=rule)
    assert numbers(stream) == EXPECTED[rule]
    assert [task.name for task in stream.tasks] == ["vehicle", "animal", "person"]
    several = {"objects of several tasks": 2} if rule == "single_only" else {}
    assert stream.notes["left_out"] == {"no objects": 1, **several}
    assert stream.notes["rule"] == rule and stream.notes["split"] == "published"
    assert stream.notes["chosen"]["animal"] == {"train": len(EXPECTED[rule]["animal"][0]), "val": 3}
    assert stream.name == "coco" and stream.notes["path"] == str(published)


def thing(task: str, area: int = 1, crowd: bool = False) -> CocoObject:
    return CocoObject(1, task, task, (0.0, 0.0, 1.0, 1.0), area, crowd)


def test_of_equal_tasks_the_first_in_the_order_is_taken():
    for rule in ("largest_area", "most_objects"):
        assert task_of([thing("person"), thing("food"), thing("animal")], rule) == "food"
        assert task_of([thing("person"), thing("appliance")], rule) == "appliance"


def test_areas_and_objects_add_up_per_task_and_crowds_count_like_others():
    objects = [thing("person", 30), thing("person", 30), thing("animal", 50), thing("food", 59)]
    assert task_of(objects, "largest_area") == "person"
    assert task_of([*objects, thing("animal", 11, crowd=True)], "largest_area") == "animal"
    assert task_of([thing("food"), thing("food"), thing("person", crowd=True)], "most_objects") == "food"
    crowds = [thing("food"), thing("person", crowd=True), thing("person", crowd=True)]
    assert task_of(crowds, "most_objects") == "person"
    assert task_of([thing("food"), thing("person", crowd=True)], "single_only") is None
    assert task_of([thing("person", crowd=True)], "single_only") == "person"
    assert task_of([thing("person", 0)], "largest_area") == "person"
    assert task_of([], "largest_area") is None


def test_karpathys_splits_leave_one_evaluation_split_out(published):
    stream = coco(published, split="karpathy")
    assert numbers(stream) == {"vehicle": ([1, 4], [12]), "animal": ([2, 3, 14], [11]), "person": ([5], [13])}
    assert stream.notes["left_out"] == {"Karpathy's val, not evaluated": 3, "no objects": 1}
    assert stream.notes["split"] == "Karpathy's, measured on test"
    stream = coco(published, split="karpathy", evaluate="val")
    assert numbers(stream) == {"vehicle": ([1, 4], [15]), "animal": ([2, 3, 14], [16]), "person": ([5], [17])}
    assert stream.notes["left_out"] == {"Karpathy's test, not evaluated": 3, "no objects": 1}


def test_karpathys_file_may_lie_with_the_annotations_and_need_not_name_every_image(copy):
    edit(copy / "dataset_coco.json", lambda record: record.update(images=record["images"][:-1]))  # without image 11
    (copy / "dataset_coco.json").rename(copy / "annotations" / "dataset_coco.json")
    stream = coco(copy, split="karpathy", evaluate="val")
    assert stream.notes["left_out"]["not in Karpathy's file"] == 1


def test_captions_images_descriptions_and_annotations(published):
    vehicle, animal, person = coco(published).tasks
    assert vehicle.description == "vehicle: bicycle, car, motorcycle, airplane, bus, train, truck, boat"
    assert person.description == "person" and animal.description.startswith("animal: bird, cat,")
    assert captions_of(animal.val)[0] == ("A cat sits.",)
    assert captions_of(animal.train)[0] == ("A thing.", "Something else here.")
    grey = pixels(animal.train.load(0))
    assert grey.shape == (10, 10, 3) and np.all(np.abs(grey.astype(int) - 14) < 3)
    assert pixels(vehicle.train.load(1)).shape == (10, 12, 3)  # CMYK
    two, crowd = animal.train.records[1].annotation[0], animal.train.records[1].annotation[2]
    assert two == CocoObject(3000, "person", "person", (0.5 / 11, 0.1, 6 / 11, 0.525), 50, False)
    assert crowd.crowd and crowd.category == "dog" and crowd.area == 400


def test_loaders_cross_process_borders(published, built):
    for path in (published, built):
        split = coco(path).tasks[0].train
        again = pickle.loads(pickle.dumps(split))
        assert np.array_equal(pixels(again.load(1)), pixels(split.load(1))) and again.records == split.records


def test_task_order(published):
    order = ["person", "vehicle", "animal"]
    assert [task.name for task in coco(published, task_order=order).tasks] == order
    with pytest.raises(UserError, match="task_order leaves out 'animal'"):
        coco(published, task_order=["person", "vehicle"])


# ---- arguments and folders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "smallest"}, "rule is 'smallest'; expected one of largest_area, most_objects, single_only, manifest"),
        ({"split": "random"}, "split is 'random'; expected one of published, karpathy"),
        ({"evaluate": "restval"}, "evaluate is 'restval'; expected 'test' or 'val'"),
        ({"rule": "manifest"}, "rule is 'manifest' and manifest is ''; expected a table"),
        ({"manifest": "a.csv"}, "rule is 'largest_area' and manifest is 'a.csv'; expected a table"),
        ({"rule": "manifest", "manifest": "a.csv", "split": "karpathy"}, "split is 'karpathy' with rule 'manifest'"),
        ({"on_bad_example": "ignore"}, "on_bad_example is 'ignore'"),
    ],
)
def test_a_wrong_argument_is_named(published, arguments, message):
    with pytest.raises(UserError, match=message):
        coco(published, **arguments)


def test_a_folder_without_coco_says_what_was_expected(tmp_path):
    for path in (tmp_path, tmp_path / "no"):
        with pytest.raises(UserError, match=r"here is neither annotations/ .*train2014/.* nor coco_captions/ .*TFDS"):
            coco(path)


@pytest.mark.parametrize("name", ["instances_train", "captions_train", "instances_val", "captions_val"])
def test_a_missing_annotation_file_is_named(copy, name):
    file = copy / "annotations" / f"{name}2014.json"
    file.unlink()
    with pytest.raises(UserError, match=f"{file}: there is no such file; expected COCO 2014's layout"):
        coco(copy)


def test_a_task_without_val_images_is_an_error(published, tmp_path):
    with pytest.raises(UserError, match="task 'animal' has no val images"):
        coco(published, rule="manifest", manifest=manifest(tmp_path, *FOUR[:3]))


# ---- bad examples ----------------------------------------------------------------------------------------------------


def unreadable(copy):
    (copy / "train2014" / PHOTOS[0].name).write_text("no image")


def captioned(**change):
    return lambda copy: edit(
        copy / "annotations" / "captions_train2014.json", lambda record: record["annotations"][-1].update(change)
    )


def uncaptioned(copy):
    edit(
        copy / "annotations" / "captions_train2014.json",
        lambda record: record.update(annotations=[a for a in record["annotations"] if a["image_id"] != 1]),
    )


BAD = [
    ("no captions", uncaptioned, r"instances_train2014.json, image 1: image 'COCO_.*jpg' has no captions"),
    (
        "caption without image",
        captioned(image_id=11),
        r"captions_train2014.json, annotations\[11\]: image_id is 11, whi",
    ),
    ("missing file", lambda copy: (copy / "train2014" / PHOTOS[0].name).unlink(), "image 1: .*there is no such file"),
    ("unreadable image", unreadable, "image 1: .*not an image in a known format"),
]


@pytest.mark.parametrize(("kind", "change", "message"), BAD, ids=[kind for kind, *_ in BAD])
def test_a_bad_example_is_one_sentence_or_is_counted(copy, kind, change, message):
    change(copy)
    with pytest.raises(UserError, match=message) as caught:
        coco(copy)
    assert "\n" not in str(caught.value)
    stream = coco(copy, on_bad_example="skip")
    assert stream.skipped == {kind: 1}
    assert numbers(stream)["vehicle"][0] == ([1, 4] if kind == "caption without image" else [4])
    assert stream.notes["chosen"]["vehicle"]["train"] == 2  # by the rule, before bad ones are taken out


def test_an_empty_caption_is_one_sentence_or_is_left_out_and_counted(copy):
    whole = coco(copy).tasks
    captioned(caption=" ... ")(copy)
    with pytest.raises(UserError, match=r"image 1: caption '...' is empty"):
        coco(copy)
    stream = coco(copy, on_bad_example="skip")
    assert stream.skipped == {"empty caption": 1} and numbers(stream)["vehicle"][0] == [1, 4]
    captions = [sum(map(len, captions_of(task.train))) for task in stream.tasks]
    assert sum(captions) == sum(len(own) for task in whole for own in captions_of(task.train)) - 1


def test_objects_without_image_are_counted_and_images_left_out_may_lack_captions(copy):
    edit(copy / "annotations" / "instances_val2014.json", lambda r: r["annotations"][0].update(image_id=5))
    edit(copy / "annotations" / "captions_train2014.json", lambda r: r.update(annotations=r["annotations"][2:]))
    with pytest.raises(
        UserError, match=r"instances_val2014.json, annotations\[0\]: image_id is 5, which is no image of i"
    ):
        coco(copy)
    stream = coco(copy, on_bad_example="skip")
    assert stream.skipped == {"object without image": 1} and stream.notes["left_out"] == {"no objects": 2}


def test_the_fingerprint_follows_captions_choice_and_images(copy, published):
    first = coco(published).fingerprint
    assert coco(copy).fingerprint == first
    captioned(caption="Another.")(copy)
    second = coco(copy).fingerprint
    Image.new("RGB", (600, 400)).save(copy / "val2014" / PHOTOS[-1].name)
    assert len({first, second, coco(copy).fingerprint, coco(published, rule="single_only").fingerprint}) == 4


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_prints_a_table_beside_the_releases_weights(published, tmp_path, capsys):
    out = tmp_path / "choice.csv"
    assert main(["manifest", "--path", str(published), "--out", str(out), "--rule=single_only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "train", "val", "release"]
    assert [line.split() for line in lines[1:4]] == [
        ["vehicle", "1", "2", "500"],
        ["animal", "1", "3", "500"],
        ["person", "1", "2", "500"],
    ]
    assert lines[4] == "release: weights in the release's post-processing, probably its evaluation counts"
    assert lines[5:7] == ["left out: 1 (no objects)", "left out: 2 (objects of several tasks)"]
    assert lines[7] == f"{hashlib.sha256(out.read_bytes()).hexdigest()}  {out}"
    assert [entry.name for entry in tmp_path.iterdir()] == ["choice.csv"]


def test_the_command_line_tells_of_bad_annotations_and_copies_a_manifest(copy, tmp_path, capsys):
    captioned(image_id=11)(copy)
    out, given_table = tmp_path / "out.csv", manifest(tmp_path, *FOUR)
    assert main(["manifest", f"--path={copy}", f"--out={out}", "--rule=manifest", f"--manifest={given_table}"]) == 0
    printed = capsys.readouterr().out
    assert "bad: 1 (caption without image)" in printed and "\ntoys " in printed
    assert out.read_text() == "image_id,task,split\n1,animal,train\n6,toys,train\n11,toys,val\n12,animal,val\n"


def test_a_task_name_in_a_manifest_cannot_steer_the_terminal(published, tmp_path, capsys):
    table = Path(manifest(tmp_path, *FOUR))
    table.write_text(table.read_text().replace("toys", "to\x1b[2Jys"))
    arguments = [f"--path={published}", f"--out={tmp_path / 'out.csv'}", "--rule=manifest", f"--manifest={table}"]
    assert main(["manifest", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["to?[2Jys", "1", "1"] and len(lines[1]) == len(lines[0])
    assert "to\x1b[2Jys" in (tmp_path / "out.csv").read_text()  # the table itself keeps the name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: manifest; --help explains"),
        (["list"], "invalid choice: 'list'"),
        (["manifest", "--out=x.csv"], "the following arguments are required: --path"),
        (["manifest", "--path=P", "--out=x.csv", "--rule=none"], "rule is 'none'; expected one of"),
        (["manifest", "--path=P", "--out=x.csv", "--karpathy=dev"], "evaluate is 'dev'; expected 'test' or 'val'"),
        (["manifest", "--path=P", "--out=x.csv", "--seed=1"], "unrecognized arguments: --seed=1"),
        (["manifest", "--path=/nowhere", "--out=x.csv"], "/nowhere: here is neither annotations/"),
        (
            ["manifest", "--path=P", "--out=no/x.csv"],
            "'no/x.csv': the file cannot be written (No such file or directory)",
        ),
        (["manifest", "--path=P", "--out="], "'': the file cannot be written"),
        (["manifest", "--path=P", "--out=."], "'.': the file cannot be written"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_status_2(
    published, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main([argument.replace("=P", f"={published}") for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err and printed.err.count("\n") == 1
    assert printed.out == "" and list(tmp_path.iterdir()) == []


def test_ctrl_c_writes_nothing(published, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lpi_jax.data.sources.coco_annotations.read", interrupt)
    assert main(["manifest", "--path", str(published), "--out", str(tmp_path / "choice.csv")]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n" and list(tmp_path.iterdir()) == []


def test_the_command_runs_as_a_module(published, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "lpi_jax.data.coco", "manifest", "--path", published]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "timeout": 120}
    done = subprocess.run([*command, "--out", "choice.csv"], **run)
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / "choice.csv").exists()


# ---- configurations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "preset"), [("coco_lpi", "anchored"), ("coco_lpi_released", "released")])
def test_the_config_files(name, preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = command_line.load(str(ROOT / "configs" / f"{name}.py"))
    configs.check(config)
    assert config.preset == preset and config.data.name == "coco" and not config.data.path
    assert (config.train.batch, config.train.epochs) == (64, 10)
    if preset == "released":
        table = similarity.from_table(config.method.similarity, TASKS)
        assert table.shape == (12, 12) and (table > 0.4).sum() == 12 + 2 * 15
    else:
        assert config.method.similarity == "text"


def test_every_rule_is_known_to_the_command_line():
    assert set(EXPECTED) | {"manifest"} == set(RULES)
