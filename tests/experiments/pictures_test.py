"""Questions about real pictures: what is asked, that choices are fair, and that the source reads the file."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from lpi_jax.data.sources import instructions
from lpi_jax.errors import UserError
from tests.support.pixels import shades

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import pictures
from PIL import Image

KINDS = ("animals", "food", "flags", "tools", "toys")


@pytest.fixture
def prepared(tmp_path):
    """Two prepared folders of twenty pictures, every fifth of which validates."""
    for name in ("clipart", "stamps"):
        images, rows = tmp_path / name / "images", []
        images.mkdir(parents=True)
        for number in range(20):
            file = images / f"{number}.png"
            Image.new("RGB", (20, 16), (12 * number, 0, 0)).save(file)
            row = {"image": f"images/{file.name}", "captions": [f"thing {number}", "more"], "task": KINDS[number % 5]}
            rows.append(json.dumps(row | {"split": "val" if number >= 15 else "train"}) + "\n")
        (tmp_path / name / "stream.jsonl").write_text("".join(rows))
    return tmp_path


def written(folder, monkeypatch):
    out = folder / "questions" / "pictures.jsonl"
    where = ["--clipart", str(folder / "clipart"), "--stamps", str(folder / "stamps"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["pictures.py", *where])
    pictures.main()
    return out


def test_the_source_reads_six_tasks(prepared, monkeypatch, capsys):
    out = written(prepared, monkeypatch)
    assert capsys.readouterr().out.splitlines()[0] == "drawing name: 15 to learn from, 5 to measure on"
    stream = instructions.instructions(instructions.Options(path=str(out)))
    names = [f"{collection} {task}" for collection in ("drawing", "stamp") for task in ("name", "kind", "choice")]
    assert [task.name for task in stream.tasks] == names
    assert all((len(task.train), len(task.val)) == (15, 5) for task in stream.tasks)
    name, kind, choice = (task.val.records[0] for task in stream.tasks[:3])
    assert name.turns == (("What is this?", "thing 15"),)
    assert kind.turns == (("Which kind of thing is it: animals, flags, food, tools, toys?", "animals"),)
    assert choice.scoring == "choice"
    assert shades(stream.tasks[0].val) == shades(stream.tasks[5].val) == [180, 192, 204, 216, 228]


def test_a_choice_shows_the_right_kind_once_and_no_letter_is_right_more_often():
    letters = Counter()
    for number in range(2000):
        row = {"image": f"{number}.png", "task": KINDS[number % 5]}
        (question, answer, _), *_ = pictures.chosen(row, KINDS)
        shown = dict(line.split(". ") for line in question.splitlines()[1:5])
        assert shown[answer] == row["task"] and len(set(shown.values())) == 4
        letters[answer] += 1
    assert all(abs(count - 500) < 100 for count in letters.values())  # five deviations


def test_what_is_not_prepared_is_said(tmp_path):
    with pytest.raises(UserError, match=r"clipart/stream.jsonl is not there; run experiments/clipart/prepare.py"):
        pictures.pictures(tmp_path / "clipart")
