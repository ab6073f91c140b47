"""From features to the rows of metrics, on cases small enough to work out by hand."""

import json

import numpy as np
import pytest

from lpi_jax.problems.retrieval import recall
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.problems.retrieval.protocol import protocol
from lpi_jax.problems.retrieval.recall import FILTERED, FROZEN, OWN, OWN_FROZEN, PRIOR, Way
from tests.support.galleries import MISLED, gallery_of, side

# Task 0: pictures 0 and 1; captions 0 and 1 describe picture 0, caption 2 picture 1. Task 1: picture 2, caption 3.
PICTURES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
CAPTIONS = np.array([[0.8, 0.6, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0.96, 0.28]], np.float32)
IMAGES, TEXTS = "image_to_text", "text_to_image"
MEASURED = Measured(batch=8, seed=0)


@pytest.fixture
def gallery():
    """Routed features as above; plain features in which every picture is exactly its captions."""
    return gallery_of(
        side([0, 0, 1], [0, 1, 2], np.eye(3), PICTURES),
        side([0, 0, 0, 1], [0, 0, 1, 2], np.eye(3)[[0, 0, 1, 2]], CAPTIONS),
    )


@pytest.fixture
def misled():
    """Pictures 0 and 1 of task 0, 2 of task 1, a caption each; caption 1 was routed to task 1, which it is not of."""
    return gallery_of(*MISLED)


@pytest.fixture(autouse=True)
def _first_and_second_place(monkeypatch):
    monkeypatch.setattr(recall, "KS", (1, 2))


def measured(gallery, galleries, score="prompted", first=0, tasks=2, filtered=False):
    """The metrics on the tasks from `first` on, all `tasks` being searched."""
    asked = range(first, tasks)
    way = Way(score, galleries, filtered)
    return recall.row(recall.ranked(gallery, way, asked, range(tasks), apart=True, logit_scale=1.0), asked)


def test_the_union_gallery_searches_all_tasks_and_counts_ties_against_the_method(gallery):
    # Ranks of the pictures' captions: 0, 2 (behind captions 1 and 3), 0. Ranks of the captions' pictures: 0, 2 (behind
    # picture 1 and, with an equal score, picture 2), 0, 1.
    assert measured(gallery, "union") == {
        f"{IMAGES}/R@1": [50.0, 100.0],
        f"{IMAGES}/R@2": [50.0, 100.0],
        f"{IMAGES}/MRR": [pytest.approx(100 * (1 + 1 / 3) / 2), 100.0],
        f"{IMAGES}/median rank": [2.0, 1.0],
        f"{TEXTS}/R@1": [pytest.approx(200 / 3), 0.0],
        f"{TEXTS}/R@2": [pytest.approx(200 / 3), 100.0],
        f"{TEXTS}/MRR": [pytest.approx(100 * (1 + 1 / 3 + 1) / 3), 50.0],
        f"{TEXTS}/median rank": [1.0, 2.0],
    }


def test_the_task_gallery_searches_only_the_querys_own_task(gallery):
    # Now the ranks are 0, 1, 0 and 0, 1, 0, 0.
    assert measured(gallery, "task") == {
        f"{IMAGES}/R@1": [50.0, 100.0],
        f"{IMAGES}/R@2": [100.0, 100.0],
        f"{IMAGES}/MRR": [75.0, 100.0],
        f"{IMAGES}/median rank": [1.5, 1.0],
        f"{TEXTS}/R@1": [pytest.approx(200 / 3), 100.0],
        f"{TEXTS}/R@2": [100.0, 100.0],
        f"{TEXTS}/MRR": [pytest.approx(250 / 3), 100.0],
        f"{TEXTS}/median rank": [1.0, 1.0],
    }


def test_zero_shot_metrics_are_of_the_plain_features(gallery):
    row = measured(gallery, "union", "plain")
    assert row == {
        f"{direction}/{name}": [best, best]
        for direction in (IMAGES, TEXTS)
        for name, best in (("R@1", 100.0), ("R@2", 100.0), ("MRR", 100.0), ("median rank", 1.0))
    }


@pytest.mark.parametrize("galleries", ["union", "task"])
def test_later_tasks_alone_have_the_metrics_they_have_among_all(gallery, galleries):
    last = {metric: found[1:] for metric, found in measured(gallery, galleries).items()}
    assert measured(gallery, galleries, first=1) == last


def test_ranks_come_with_the_task_and_the_image_of_their_queries(gallery):
    for galleries in ("union", "task"):
        found = recall.ranked(gallery, Way("prompted", galleries), [0, 1], [0, 1], apart=True, logit_scale=1.0)
        assert list(found) == [IMAGES, TEXTS]
        np.testing.assert_array_equal(found[IMAGES].task, [0, 0, 1])
        np.testing.assert_array_equal(found[IMAGES].image, [0, 1, 2])
        np.testing.assert_array_equal(found[TEXTS].task, [0, 0, 0, 1])
        np.testing.assert_array_equal(found[TEXTS].image, [0, 0, 1, 2])


def test_equal_captions_count_against_the_method_apart_and_answer_each_other_as_one(gallery):
    """Captions 2 and 3, of pictures of two tasks, become the same."""
    gallery.captions.item[3] = 2
    gallery.captions.features[3] = gallery.captions.features[2]
    ranks = {
        apart: recall.ranked(gallery, Way("prompted", "union"), [0, 1], [0, 1], apart=apart, logit_scale=1.0)
        for apart in (True, False)
    }
    # Scores of the pictures, by caption: 0.8 0 0.6 0.6; 0.6 1 0.8 0.8; 0 0 0 0.
    np.testing.assert_array_equal(ranks[True][IMAGES].ranks, [0, 2, 3])
    np.testing.assert_array_equal(ranks[False][IMAGES].ranks, [0, 1, 2])
    np.testing.assert_array_equal(ranks[True][TEXTS].ranks, [0, 2, 0, 2])
    np.testing.assert_array_equal(ranks[False][TEXTS].ranks, [0, 2, 0, 0])
    for galleries, apart in (("union", True), ("task", True), ("task", False)):
        guess = recall.chance_row(gallery, 2, galleries, apart)
        assert guess[f"{TEXTS}/R@1"] == pytest.approx([100 / 3] * 2 if galleries == "union" else [50, 100])
    # As one there are three captions; caption 2 and 3 have two right pictures of three each.
    guess = recall.chance_row(gallery, 2, "union", apart=False)
    assert guess[f"{IMAGES}/R@1"] == pytest.approx([100 * (2 / 3 + 1 / 3) / 2, 100 / 3])
    assert guess[f"{TEXTS}/R@1"] == pytest.approx([100 * (1 / 3 + 1 / 3 + 2 / 3) / 3, 200 / 3])


def test_the_row_of_a_guess_is_worked_out_by_hand(gallery):
    """Picture 0 has two right captions of four (of three in its task), each other query one right answer."""
    # Among four items the one right answer is at each place as often: MRR (1 + 1/2 + 1/3 + 1/4) / 4. Of two right ones
    # the first stands at places 1, 2, 3 in 3, 2, 1 of 6 cases.
    union = recall.chance_row(gallery, 2, "union")
    one_of_four, two_of_four = 100 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, 100 * (3 + 2 / 2 + 1 / 3) / 6
    one_of_three, two_of_three = 100 * (1 + 1 / 2 + 1 / 3) / 3, 100 * (2 + 1 / 2) / 3
    assert union == {
        f"{IMAGES}/R@1": pytest.approx([100 * (2 / 4 + 1 / 4) / 2, 100 / 4]),
        f"{IMAGES}/R@2": pytest.approx([100 * (5 / 6 + 2 / 4) / 2, 100 * 2 / 4]),
        f"{IMAGES}/MRR": pytest.approx([(two_of_four + one_of_four) / 2, one_of_four]),
        f"{TEXTS}/R@1": pytest.approx([100 / 3] * 2),
        f"{TEXTS}/R@2": pytest.approx([200 / 3] * 2),
        f"{TEXTS}/MRR": pytest.approx([one_of_three] * 2),
    }
    assert recall.chance_row(gallery, 2, "task") == {
        f"{IMAGES}/R@1": pytest.approx([100 * (2 / 3 + 1 / 3) / 2, 100]),
        f"{IMAGES}/R@2": pytest.approx([250 / 3, 100]),
        f"{IMAGES}/MRR": pytest.approx([(two_of_three + one_of_three) / 2, 100]),
        f"{TEXTS}/R@1": pytest.approx([50, 100]),
        f"{TEXTS}/R@2": pytest.approx([100, 100]),
        f"{TEXTS}/MRR": pytest.approx([75, 100]),
    }


# ------------------------------------------------------------------------------------------------------------ controls


def test_the_controls_are_the_frozen_backbone_with_what_a_method_knows_and_galleries_that_never_grow():
    assert recall.ways("prompted+prior", "union", routes=True) == {
        FROZEN: Way("plain", "union"),
        FILTERED: Way("plain", "union", filtered=True),
        PRIOR: Way("plain+prior", "union"),
        OWN_FROZEN: Way("plain", "task"),
        OWN: Way("prompted+prior", "task"),
    }
    assert list(recall.ways("prompted", "union", routes=False)) == [FROZEN, OWN_FROZEN, OWN]
    assert next(iter(recall.ways("prompted", "task", routes=True))).name == "frozen"


CASES = {
    "method": (Way("prompted", "union"), [2, 1, 2], [2, 1, 1]),
    "frozen": (Way("plain", "union"), [0, 0, 2], [1, 1, 0]),
    # Picture 1 was routed to task 0 and its caption to task 1: neither finds the other.
    "frozen_filtered": (Way("plain", "union", filtered=True), [0, 2, 1], [0, 2, 0]),
    # An item of another task is behind by log(1 / smoothing) or so, which is more than any product here.
    "frozen_prior": (Way("plain+prior", "union"), [0, 1, 1], [0, 1, 0]),
    "own_frozen": (Way("plain", "task"), [0, 0, 0], [0, 0, 0]),
    "own": (Way("prompted", "task"), [1, 1, 0], [1, 0, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_ranks_of_every_control_are_worked_out_by_hand(misled, name):
    way, images, texts = CASES[name]
    found = recall.ranked(misled, way, [0, 1], [0, 1], apart=True, logit_scale=1.0)
    np.testing.assert_array_equal(found[IMAGES].ranks, images)
    np.testing.assert_array_equal(found[TEXTS].ranks, texts)


def test_among_the_items_of_its_routed_task_an_item_of_no_task_finds_only_those_of_none(misled):
    misled.images.routed[:] = [-1, 0, 1]
    misled.captions.routed[:] = [-1, 0, 1]
    found = recall.ranked(misled, Way("plain", "union", True), [0, 1], [0, 1], apart=True, logit_scale=1.0)
    np.testing.assert_array_equal(found[IMAGES].ranks, [0, 0, 0])
    np.testing.assert_array_equal(found[TEXTS].ranks, [0, 0, 0])


# ------------------------------------------------------------------------------------------------ routing, and in words


def test_confusion_counts_items_by_true_and_routed_task():
    items = side([0, 0, 0, 0, 1, 1], range(6), np.zeros((6, 2)))
    items.routed[:] = [0, 1, 0, 0, 0, 1]
    assert recall.confusion(items, 2) == {"matrix": [[3, 1], [1, 1]]}
    items.routed[:] = [0, 1, 0, 0, -1, 1]
    found = recall.confusion(items, 2)
    assert found == {"matrix": [[3, 1], [0, 1]], "none": [0, 1]}
    assert json.loads(json.dumps(found)) == found


def test_routing_accuracy_is_per_task_and_an_item_routed_nowhere_is_wrong():
    items = side([0, 0, 0, 0, 1, 1], range(6), np.zeros((6, 2)))
    items.routed[:] = [0, 1, 0, 0, -1, 1]
    assert recall.routing_accuracy(items, 2) == [75.0, 50.0]


def test_the_metrics_are_those_of_the_rows_and_each_directions_first_is_recall_at_one(gallery, monkeypatch):
    monkeypatch.undo()
    assert [metric.name for metric in recall.METRICS] == [
        f"{direction}/{name}" for direction in (IMAGES, TEXTS) for name in ("R@1", "R@5", "R@10", "MRR", "median rank")
    ]
    assert [metric.name for metric in recall.METRICS] == list(measured(gallery, "union"))
    groups = {metric.group: (metric.label, metric.side) for metric in reversed(recall.METRICS)}
    assert groups == {"image to text": ("R@1", "image"), "text to image": ("R@1", "text")}
    better = {metric.label: (metric.unit, metric.higher_is_better) for metric in recall.METRICS}
    assert better.pop("median rank") == ("", False)
    assert set(better.values()) == {("%", True)}


def test_the_protocol_says_in_words_what_was_measured():
    usual = protocol(MEASURED, "centre", "inferred")
    for words in ("all tasks seen so far", "nearest k-means centre", "as they are", "centre-cropped"):
        assert words in usual
    other = protocol(MEASURED._replace(galleries="task"), "random", "given")
    for words in ("its own task is searched", "its true task", "randomly cropped"):
        assert words in other
    asks = MEASURED._replace(asks_with_placeholders=True)
    assert "placeholders in front" in protocol(asks, "centre", "inferred")
    assert "by the backbone as it is after the newest task" in protocol(MEASURED, "centre", "newest")
    assert "by the frozen backbone" in protocol(MEASURED, "centre", "none")
    best = MEASURED._replace(rule="lda", score="prompted+prior", apart=False)
    for words in ("most likely task", "score the cosine under the prompts + log sum_t", "same tokens are one item"):
        assert words in protocol(best, "centre", "inferred")
        assert words not in usual
