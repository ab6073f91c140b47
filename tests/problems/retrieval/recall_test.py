"""From features to recall rows, on cases small enough to work out by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lpi_jax.problems.retrieval import recall
from lpi_jax.problems.retrieval.evaluator import RetrievalEvaluator
from lpi_jax.problems.retrieval.gallery import Side

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
    monkeypatch.setattr(recall, "KS", (1, 2))


def test_the_union_gallery_searches_all_tasks_and_counts_ties_against_the_method(gallery):
    # Ranks of the pictures' captions: 0, 2 (behind captions 1 and 3), 0. Ranks of the captions' pictures: 0, 2 (behind
    # picture 1 and, with an equal score, picture 2), 0, 1.
    row = recall.recall_row(gallery, 2, "union")
    assert row == {
        f"{IMAGES}/R@1": [50.0, 100.0],
        f"{IMAGES}/R@2": [50.0, 100.0],
        f"{TEXTS}/R@1": [pytest.approx(200 / 3), 0.0],
        f"{TEXTS}/R@2": [pytest.approx(200 / 3), 100.0],
    }


def test_the_task_gallery_searches_only_the_querys_own_task(gallery):
    # Now the ranks are 0, 1, 0 and 0, 1, 0, 0.
    row = recall.recall_row(gallery, 2, "task")
    assert row == {
        f"{IMAGES}/R@1": [50.0, 100.0],
        f"{IMAGES}/R@2": [100.0, 100.0],
        f"{TEXTS}/R@1": [pytest.approx(200 / 3), 100.0],
        f"{TEXTS}/R@2": [100.0, 100.0],
    }


def test_zero_shot_recall_is_of_the_plain_features(gallery):
    row = recall.recall_row(gallery, 2, "union", "plain")
    assert row == {f"{direction}/R@{k}": [100.0, 100.0] for direction in (IMAGES, TEXTS) for k in (1, 2)}


@pytest.mark.parametrize("galleries", ["union", "task"])
def test_later_tasks_alone_have_the_recall_they_have_among_all(gallery, galleries):
    row = recall.recall_row(gallery, 2, galleries)
    last = {metric: found[1:] for metric, found in row.items()}
    assert recall.recall_row(gallery, 2, galleries, first=1) == last


def test_the_row_of_a_guess_is_worked_out_by_hand(gallery):
    """Picture 0 has two right captions of four (of three in its task), each other query one right answer."""
    union = recall.chance_row(gallery, 2, "union")
    assert union == {
        f"{IMAGES}/R@1": pytest.approx([100 * (2 / 4 + 1 / 4) / 2, 100 / 4]),
        f"{IMAGES}/R@2": pytest.approx([100 * (5 / 6 + 2 / 4) / 2, 100 * 2 / 4]),
        f"{TEXTS}/R@1": pytest.approx([100 / 3] * 2),
        f"{TEXTS}/R@2": pytest.approx([200 / 3] * 2),
    }
    assert recall.chance_row(gallery, 2, "task") == {
        f"{IMAGES}/R@1": pytest.approx([100 * (2 / 3 + 1 / 3) / 2, 100]),
        f"{IMAGES}/R@2": pytest.approx([250 / 3, 100]),
        f"{TEXTS}/R@1": pytest.approx([50, 100]),
        f"{TEXTS}/R@2": pytest.approx([100, 100]),
    }


def test_confusion_counts_items_by_true_and_routed_task():
    items = side([0, 0, 0, 0, 1, 1], range(6), np.zeros((6, 2)), np.zeros((6, 2)))
    items.routed[:] = [0, 1, 0, 0, 0, 1]
    assert recall.confusion(items, 2) == {"matrix": [[3, 1], [1, 1]]}
    items.routed[:] = [0, 1, 0, 0, -1, 1]
    found = recall.confusion(items, 2)
    assert found == {"matrix": [[3, 1], [0, 1]], "none": [0, 1]}
    assert json.loads(json.dumps(found)) == found


def test_routing_accuracy_is_per_task_and_an_item_routed_nowhere_is_wrong():
    items = side([0, 0, 0, 0, 1, 1], range(6), np.zeros((6, 2)), np.zeros((6, 2)))
    items.routed[:] = [0, 1, 0, 0, -1, 1]
    assert recall.routing_accuracy(items, 2) == [75.0, 50.0]


def test_the_evaluator_measures_recall_zero_shot_recall_a_guess_and_routing_of_both_kinds(gallery):
    gallery.images.routed[:] = [0, 0, 1]
    gallery.captions.routed[:] = [0, 1, 0, 0]
    evaluator = object.__new__(RetrievalEvaluator)
    vars(evaluator).update(gallery=gallery, _tasks=2, _galleries="task")
    evaluator._method = SimpleNamespace(options=SimpleNamespace(routes=True))
    assert evaluator.measure() == recall.recall_row(gallery, 2, "task")
    assert evaluator.measure(first=1) == recall.recall_row(gallery, 2, "task", first=1)
    assert evaluator.measure(frozen=True) == recall.recall_row(gallery, 2, "task", "plain")
    assert evaluator.chance() == recall.chance_row(gallery, 2, "task")
    routing = evaluator.routing(2)
    assert routing == {
        "image": {"accuracy": [100.0, 100.0], "confusion": {"matrix": [[2, 0], [0, 1]]}},
        "text": {"accuracy": [pytest.approx(200 / 3), 0.0], "confusion": {"matrix": [[2, 1], [1, 0]]}},
    }
    for found in (evaluator.measure(), evaluator.chance(), routing):
        assert json.loads(json.dumps(found)) == found
    evaluator._method = SimpleNamespace(options=SimpleNamespace(routes=False))
    assert evaluator.routing(2) == {}


def test_the_metrics_are_those_of_the_rows_and_each_directions_first_is_recall_at_one(monkeypatch):
    monkeypatch.undo()
    assert [metric.name for metric in recall.METRICS] == [
        f"{direction}/R@{k}" for direction in (IMAGES, TEXTS) for k in (1, 5, 10)
    ]
    groups = {metric.group: (metric.label, metric.side) for metric in reversed(recall.METRICS)}
    assert groups == {"image to text": ("R@1", "image"), "text to image": ("R@1", "text")}
    assert {(metric.unit, metric.higher_is_better) for metric in recall.METRICS} == {("%", True)}


def test_the_protocol_says_in_words_what_was_measured():
    usual = recall.protocol("union", "centre", "inferred", False)
    for words in ("all tasks seen so far", "nearest k-means centre", "as they are", "centre-cropped"):
        assert words in usual
    other = recall.protocol("task", "random", "given", True)
    for words in ("its own task is searched", "its true task", "randomly cropped"):
        assert words in other
    assert "placeholders in front" in recall.protocol("union", "centre", "inferred", True)
    assert "by the backbone as it is after the newest task" in recall.protocol("union", "centre", "newest", False)
    assert "by the frozen backbone" in recall.protocol("union", "centre", "none", False)
