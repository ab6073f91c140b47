"""What is chosen and compared on has no image in common with what is reported."""

import json
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import development


@pytest.fixture
def prepared(tmp_path):
    """Two folders of a hundred drawings each; every fifth is reported, every third was pretrained on."""
    rows = [
        {"image": f"{task}{k}.png", "task": task, "split": "val" if k % 5 == 0 else "train"}
        for task in ("animals", "tools")
        for k in range(100)
    ]
    seen = [row for k, row in enumerate(rows) if k % 3 == 0]
    for name, lines in (("kinds", rows), ("background", seen)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return tmp_path


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("folders", [(), ("animals",)])
def test_reported_drawings_are_left_out_and_what_is_measured_is_new_to_the_backbone(prepared, folders):
    config = ConfigDict({"data": {"path": "kinds.jsonl"}})
    development.clipart(config, prepared, folders)
    rows, reported = read(config.data.path), {r["image"] for r in read(prepared / "kinds.jsonl") if r["split"] == "val"}
    assert {row["task"] for row in rows} == set(folders or ("animals", "tools"))
    assert len(rows) == 80 * (len(folders) or 2)
    assert not reported & {row["image"] for row in rows}
    measured = {row["image"] for row in rows if row["split"] == "val"}
    assert measured and not measured & {row["image"] for row in read(prepared / "background.jsonl")}
