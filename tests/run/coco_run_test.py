"""The whole main job on COCO as it is published: command line, manifest, training, evaluation, results."""

import json
from pathlib import Path

import pytest

from lpi_jax import main
from lpi_jax.data.sources import coco
from tests.support.coco_trees import Photo, write_coco

ROOT = Path(__file__).parents[2]
TASKS = {"vehicle": "bus", "food": "pizza", "person": "person"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three tasks with four training and two validation images each, and one image without objects."""
    photos, number = [Photo(1, "train", "train", ())], 2
    for category in TASKS.values():
        for half, count in (("train", 4), ("val", 2)):
            for _ in range(count):
                captions = (f"A {category}, number {number}.", f"Picture {number}\nof a {category}")
                mode = ("RGB", "L", "CMYK")[number % 3]
                photos.append(Photo(number, half, "train", ((category, 50.0, 0),), captions, mode))
                number += 1
    return write_coco(tmp_path_factory.mktemp("coco"), tuple(photos))


@pytest.mark.parametrize("name", ["coco_lpi", "coco_lpi_released"])
def test_the_main_job_runs_on_coco(folder, tiny_clip, tmp_path, capfd, name):
    table = tmp_path / "manifest.csv"
    assert coco.main(["manifest", "--path", str(folder), "--out", str(table)]) == 0
    printed = capfd.readouterr().out
    small = {
        "data.path": folder,
        "backbone": tiny_clip,
        "train.batch": 4,
        "train.epochs": 1,
        "eval.batch": 8,
        "method.length": 2,
        "method.layers": 2,
        "method.depth": 1,
        "train.held_out": 0.0,
        "train.min_steps": 0,
        "data.task_order": "('food','vehicle','person')",
    }
    flags = [f"--config.{key}={value}" for key, value in small.items()]
    run = ["main", f"--config={ROOT / 'configs' / name}.py", f"--workdir={tmp_path / 'run'}", *flags]
    assert main.main(run) == 0, capfd.readouterr().err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["tasks"] == ["food", "vehicle", "person"]
    assert results["preset"] == ("released" if name.endswith("released") else "anchored")
    notes = results["stream"]["notes"]
    assert notes["left_out"] == {"no objects": 1} and notes["rule"] == "largest_area"
    assert f"{notes['manifest_sha256']}  {table}" in printed
    assert results["items"]["text"]["train"] == [8, 8, 8] and results["counts"]["steps"] == [2, 2, 2]
    assert len(results["metrics"]["image_to_text/R@1"]["matrix"]) == 3
