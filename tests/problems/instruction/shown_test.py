"""A few samples of every task are kept with their answers: which, what of them, and that they are those measured."""

import base64
import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data.contact_sheet import SIDE as LONGER
from lpi_jax.data.instructed import Instructed
from lpi_jax.errors import UserError
from lpi_jax.methods.base import PLAIN
from lpi_jax.problems.instruction import shown
from lpi_jax.problems.instruction.scoring import scores

PLACES = [0, 1, 3, 4]  # of six samples


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(6, 4, PLACES), (4, 4, [0, 1, 2, 3]), (2, 4, [0, 1]), (100, 4, [0, 25, 50, 75]), (5, 1, [0]), (5, 0, [])],
)
def test_samples_are_evenly_spaced(count, most, expected):
    assert shown.places(count, most) == expected


def test_a_run_leaves_samples_of_every_task_as_they_were_measured(answered_run, asked_experiment):
    content = json.loads((answered_run.directory / "answers.json").read_text(encoding="utf-8"))
    splits = [task.val for task in asked_experiment.stream.tasks]
    (path,) = (answered_run.directory / "features").glob("task_*")
    evaluator = asked_experiment.evaluator()
    evaluator.restore(path, splits)
    assert content["tasks"] == 3
    rows = iter(content["samples"])
    images = 0
    for task, split in enumerate(splits):
        after, before = evaluator.answers.said(task), evaluator.answers.said(task, plain=True)
        right, was = scores(after, split.records, "official"), scores(before, split.records, "official")
        for place in PLACES:
            row, record = next(rows), split.records[place]
            assert (row["task"], row["sample"]) == (task, record.key)
            assert row["question"] == record.turns[0][0]
            assert row["references"] == list(record.answers)
            assert row["after"] == {"text": after[place], "points": round(100 * right[place], 2)}
            assert row["before"] == {"text": before[place], "points": round(100 * was[place], 2)}
            chosen = evaluator.answers.assigned.chosen[6 * task + place]
            assert [one["task"] for one in row["chosen"]] == chosen[::-1].tolist()
            best, second = (one["score"] for one in row["chosen"])
            assert 1 >= best >= second >= -1
            assert (row["picture"] is None) == (not record.has_image)
            if row["picture"]:
                images += 1
                with Image.open(io.BytesIO(base64.b64decode(row["picture"]))) as image:
                    assert (image.format, image.mode, max(image.size)) == ("PNG", "RGB", LONGER)
    assert next(rows, None) is None
    assert images


@pytest.mark.parametrize("most", [0, 2])
def test_how_many_are_kept_is_told(most, asked_experiment, tmp_path):
    problem = asked_experiment.problem
    problem = dataclasses.replace(problem, measured=problem.measured._replace(shown=most))
    evaluator = problem.evaluator(asked_experiment.method, asked_experiment.backbone.params, asked_experiment.mesh)
    evaluator.add(asked_experiment.stream.tasks[0].val)
    evaluator.follow({}, 0)
    evaluator.save(tmp_path / "features" / "task_001.json")
    if not most:
        assert [path.name for path in tmp_path.iterdir()] == ["features"]
        return
    content = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert [len(content["samples"]), content["tasks"]] == [2, 1]
    for row in content["samples"]:
        assert row["before"] == row["after"]
        assert row["chosen"] == []  # nothing is learnt


# ---- made by hand ----------------------------------------------------------------------------------------------------


def answers_of(records, chosen=None, scored=None):
    """What is asked of `Answers`, for one task that every sample belongs to."""
    own = np.zeros((len(records), 1), np.int32) if chosen is None else np.array(chosen, np.int32)
    return SimpleNamespace(
        records=records,
        task=np.zeros(len(records), np.int32),
        said=lambda task, plain=False: ["was" if plain else "is" for _ in records],
        chosen=own,
        assigned=SimpleNamespace(chosen=None if chosen is None else own, scores=scored),
        load=lambda number: Image.new("RGB", (40, 20), (200, 30, 30)),
    )


def kept(records, routes=True, **assigned):
    points = [np.full(len(records), 100 / 3)]
    return shown.samples(answers_of(records, **assigned), points, points, routes, most=8)


def test_all_rounds_of_a_conversation_are_the_question_but_not_its_last_answer():
    record = Instructed("k", (("<script>a</script>", "b"), ("c", "d")), ("d",), has_image=False)
    (row,) = kept([record])
    assert row["question"] == "<script>a</script>\nb\nc"
    assert row["picture"] is None
    assert row["after"] == {"text": "is", "points": 33.33}


def test_what_is_long_is_cut_and_what_cannot_be_written_is_replaced(tmp_path):
    record = Instructed("k", (("\ud800 half", ""),), ("x" * 9000, *"abcdefghijkl"))
    (row,) = found = kept([record])
    assert row["question"] == "? half"
    assert [len(row["references"]), len(row["references"][0])] == [10, shown.LONGEST]
    shown.write(tmp_path, 1, found)
    assert json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))["samples"] == found
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]


def test_the_best_task_is_first_and_scores_are_told_where_they_decided():
    records = [Instructed(str(number), (("q", "a"),), ("a",)) for number in range(3)]
    scored = np.array([[0.1, 0.25, np.nan]] * 3, np.float32)
    rows = kept(records, chosen=[[0, 1], [1, 2], [PLAIN, PLAIN]], scored=scored)
    assert [row["chosen"] for row in rows] == [
        [{"task": 1, "score": 0.25}, {"task": 0, "score": 0.1}],
        [{"task": 2, "score": None}, {"task": 1, "score": 0.25}],
        [],
    ]
    assert kept(records[:1], scored=scored)[0]["chosen"] == [{"task": 0, "score": None}]  # it was told
    assert kept(records[:1], routes=False)[0]["chosen"] == []


def test_where_they_cannot_be_written_one_sentence_says_so(tmp_path):
    with pytest.raises(UserError, match=r"^.*gone cannot be written .* goes on from the last checkpoint$"):
        shown.write(tmp_path / "gone", 1, [])
