"""From features to recall rows and averages, on cases small enough to work out by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lpi_jax.problems.retrieval import evaluate
from lpi_jax.problems.retrieval.gallery import Side
from lpi_jax.run import results
from lpi_jax.run.results import Progress

# Task 0: pictures 0 and 1; captions 0 and 1 describe picture 0, caption 2 picture 1. Task 1: picture 2, caption 3.
PICTURES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
CAPTIONS = np.array([[0.8, 0.6, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0.96, 0.28]], np.float32)
IMAGES, TEXTS = "image_to_text", "text_to_image"


def side(tasks, owners, plain, features):
    made = Side.new(0, np.asarray(owners), np.asarray(plain, np.float32), np.asarray(plain, np.float32))
    made.task[:] = tasks
    made.features = np.asarray(features, np.float32)
    return made


@pytest.fixture
def gallery():
    """Routed features as above; plain features in which every picture is exactly its captions."""
    return SimpleNamespace(
        images=side([0, 0, 1], [0, 1, 2], np.eye(3), PICTURES),
        captions=side([0, 0, 0, 1], [0, 0, 1, 2], np.eye(3)[[0, 0, 1, 2]], CAPTIONS),
    )


@pytest.fixture(autouse=True)
def _first_and_second_place(monkeypatch):
    monkeypatch.setattr(evaluate, "KS", (1, 2))


def test_the_union_gallery_searches_all_tasks_and_counts_ties_against_the_method(gallery):
    # Ranks of the pictures' captions: 0, 2 (behind captions 1 and 3), 0. Ranks of the captions' pictures: 0, 2 (behind
    # picture 1 and, with an equal score, picture 2), 0, 1.
    row = evaluate.recall_row(gallery, 2, "union")
    assert row[IMAGES] == {"1": [50.0, 100.0], "2": [50.0, 100.0]}
    assert row[TEXTS] == {"1": [pytest.approx(200 / 3), 0.0], "2": [pytest.approx(200 / 3), 100.0]}


def test_the_task_gallery_searches_only_the_querys_own_task(gallery):
    # Now the ranks are 0, 1, 0 and 0, 1, 0, 0.
    row = evaluate.recall_row(gallery, 2, "task")
    assert row[IMAGES] == {"1": [50.0, 100.0], "2": [100.0, 100.0]}
    assert row[TEXTS] == {"1": [pytest.approx(200 / 3), 100.0], "2": [100.0, 100.0]}


def test_zero_shot_recall_is_of_the_plain_features(gallery):
    row = evaluate.recall_row(gallery, 2, "union", "plain")
    assert row == {direction: {"1": [100.0, 100.0], "2": [100.0, 100.0]} for direction in (IMAGES, TEXTS)}


@pytest.mark.parametrize("galleries", ["union", "task"])
def test_later_tasks_alone_have_the_recall_they_have_among_all(gallery, galleries):
    row = evaluate.recall_row(gallery, 2, galleries)
    last = {direction: {k: found[1:] for k, found in own.items()} for direction, own in row.items()}
    assert evaluate.recall_row(gallery, 2, galleries, first=1) == last


def test_the_row_of_a_guess_is_worked_out_by_hand(gallery):
    """Picture 0 has two right captions of four (of three in its task), each other query one right answer."""
    union = evaluate.chance_row(gallery, 2, "union")
    assert union[IMAGES]["1"] == pytest.approx([100 * (2 / 4 + 1 / 4) / 2, 100 / 4])
    assert union[IMAGES]["2"] == pytest.approx([100 * (5 / 6 + 2 / 4) / 2, 100 * 2 / 4])
    assert union[TEXTS] == {"1": pytest.approx([100 / 3] * 2), "2": pytest.approx([200 / 3] * 2)}
    own = evaluate.chance_row(gallery, 2, "task")
    assert own[IMAGES] == {"1": pytest.approx([100 * (2 / 3 + 1 / 3) / 2, 100]), "2": pytest.approx([250 / 3, 100])}
    assert own[TEXTS] == {"1": pytest.approx([50, 100]), "2": pytest.approx([100, 100])}


def test_confusion_counts_items_by_true_and_routed_task():
    items = side([0, 0, 0, 0, 1, 1], range(6), np.zeros((6, 2)), np.zeros((6, 2)))
    items.routed[:] = [0, 1, 0, 0, 0, 1]
    assert evaluate.confusion(items, 2) == {"matrix": [[3, 1], [1, 1]]}
    items.routed[:] = [0, 1, 0, 0, -1, 1]
    found = evaluate.confusion(items, 2)
    assert found == {"matrix": [[3, 1], [0, 1]], "none": [0, 1]}
    assert json.loads(json.dumps(found)) == found


def test_routing_accuracy_is_per_task_and_an_item_routed_nowhere_is_wrong():
    items = side([0, 0, 0, 0, 1, 1], range(6), np.zeros((6, 2)), np.zeros((6, 2)))
    items.routed[:] = [0, 1, 0, 0, -1, 1]
    assert evaluate.routing_accuracy(items, 2) == [75.0, 50.0]


def test_a_stage_is_recall_zero_shot_recall_and_routing_of_both_kinds(gallery):
    gallery.images.routed[:] = [0, 0, 1]
    gallery.captions.routed[:] = [0, 1, 0, 0]
    found = evaluate.stage(gallery, 2, "task")
    assert found["recall"] == evaluate.recall_row(gallery, 2, "task")
    assert found["zero_shot"] == evaluate.recall_row(gallery, 2, "task", "plain")
    assert found["routing"] == {"image": [100.0, 100.0], "text": [pytest.approx(200 / 3), 0.0]}
    assert found["chance"] == evaluate.chance_row(gallery, 2, "task")
    assert found["confusion"] == {
        "image": {"matrix": [[2, 0], [0, 1]]},
        "text": {"matrix": [[2, 1], [1, 0]]},
    }
    assert json.loads(json.dumps(found)) == found


# R[s][t] of three stages. By hand: column means 55, 75, 90; the best before the last stage 65 and 80.
LEARNT = [[60.0], [65.0, 80.0], [40.0, 70.0, 90.0]]
FROZEN = [[5.0], [6.0, 12.0], [7.0, 13.0, 24.0]]
BEFORE = [10.0, 20.0, 30.0]
AVERAGES = {
    "incremental_average": (55 + 75 + 90) / 3,
    "final_average": 200 / 3,
    "forgetting": (-25 - 10) / 2,
    "chaudhry_forgetting": (25 + 10) / 2,
    "backward_transfer": (-20 - 10) / 2,
    "forward_transfer": (8 + 6) / 2,
    "zero_shot_retention": 100 * 50 / 36,
}
FROZEN_AVERAGES = {"incremental_average": (6 + 12.5 + 24) / 3, "final_average": 44 / 3, "forgetting": (1 + 1) / 2}


def stages():
    """Three stages; direction and k only raise what was learnt, so that none can be taken for another."""

    def row(values, raised):
        return {
            direction: {str(k): [value + raised * (2 * d + n) for value in values] for n, k in enumerate((1, 2))}
            for d, direction in enumerate((IMAGES, TEXTS))
        }

    return [
        {
            # Only the last entry of an arrival row is about the new task.
            "arrival": row([-1.0] * s + [BEFORE[s]], 0),
            "recall": row(LEARNT[s], 1),
            "zero_shot": row(FROZEN[s], 0),
            "routing": {"image": [100.0 - 10 * s] * (s + 1), "text": [float(t) for t in range(s + 1)]},
        }
        for s in range(3)
    ]


@pytest.mark.parametrize(("direction", "k", "raised"), [(IMAGES, "1", 0), (IMAGES, "2", 1), (TEXTS, "1", 2)])
def test_the_report_has_the_matrix_and_every_average_worked_out_by_hand(direction, k, raised):
    found = evaluate.report(stages())["recall"][direction][k]
    assert found.pop("matrix") == [[value + raised for value in row] for row in LEARNT]
    assert found.pop("before_learning") == BEFORE
    moved = {name: value + raised * name.endswith("_average") for name, value in AVERAGES.items()}
    assert found == pytest.approx(moved)


def test_the_report_has_the_frozen_backbone_on_the_same_galleries():
    found = evaluate.report(stages())["zero_shot"][TEXTS]["2"]
    assert found["matrix"] == FROZEN
    assert {name: found[name] for name in FROZEN_AVERAGES} == pytest.approx(FROZEN_AVERAGES)


def test_the_report_has_routing_accuracy_after_every_stage():
    found = evaluate.report(stages())["routing_accuracy"]
    assert found["image"] == {"matrix": [[100.0], [90.0, 90.0], [80.0, 80.0, 80.0]], "final_average": 80.0}
    assert found["text"] == {"matrix": [[0.0], [0.0, 1.0], [0.0, 1.0, 2.0]], "final_average": 1.0}


def test_the_report_has_the_guess_of_every_stage_and_the_last_confusion():
    """Stages of runs that began before these were measured have neither, and neither has the report."""
    assert not {"chance", "routing_confusion"} & evaluate.report(stages()).keys()
    measured = stages()
    for s, stage in enumerate(measured):
        stage["chance"] = {d: {"1": FROZEN[s], "2": [2 * v for v in FROZEN[s]]} for d in (IMAGES, TEXTS)}
        stage["confusion"] = {"image": {"matrix": [[s]]}, "text": {"matrix": [[-s]]}}
    found = evaluate.report(measured)
    guess = found["chance"][IMAGES]["1"]
    assert guess.pop("matrix") == FROZEN
    assert guess == pytest.approx({"incremental_average": (6 + 12.5 + 24) / 3, "final_average": 44 / 3})
    assert found["chance"][TEXTS]["2"]["final_average"] == pytest.approx(88 / 3)
    assert found["routing_confusion"] == {"image": {"matrix": [[2]]}, "text": {"matrix": [[-2]]}}


def test_only_the_newest_stage_keeps_its_confusion():
    progress = Progress(memory=None)
    for number in range(3):
        progress.measured({"number": number, "confusion": [number]})
    assert progress.stages == [{"number": 0}, {"number": 1}, {"number": 2, "confusion": [2]}]


@pytest.mark.parametrize(
    ("method", "task_id", "routing"),
    [
        ("lpi", "inferred", "; routed right: images 80.0 %, captions 1.0 %"),
        ("lpi", "oracle", "; tasks given"),
        ("zero_shot", "inferred", ""),
    ],
)
def test_the_line_after_a_task_speaks_of_routing_only_where_it_decides_anything(method, task_id, routing):
    found = {"method": method, "task_id": task_id, "tasks": ["fax"], **evaluate.report(stages())}
    assert results.line(found) == (
        "after fax: R@1 image to text 66.7 % (zero-shot 14.7), text to image 68.7 % (zero-shot 14.7)" + routing
    )


def test_the_report_of_one_task_forgets_nothing_and_is_json():
    found = evaluate.report(stages()[:1])
    assert found["recall"][IMAGES]["1"]["forgetting"] == found["recall"][IMAGES]["1"]["forward_transfer"] == 0.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_protocol_says_in_words_what_was_measured():
    usual = evaluate.protocol("union", False, "centre", False)
    for words in ("all tasks seen so far", "nearest k-means centre", "as they are", "centre-cropped"):
        assert words in usual
    other = evaluate.protocol("task", True, "random", True)
    for words in ("its own task is searched", "its true task", "randomly cropped"):
        assert words in other
    assert "placeholders in front" in evaluate.protocol("union", False, "centre", True)
