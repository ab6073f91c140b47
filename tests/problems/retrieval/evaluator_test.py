"""What the evaluator tells of a gallery at hand: the method, its controls, intervals, a guess and routing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lpi_jax.problems.retrieval import recall
from lpi_jax.problems.retrieval.encoder import Told
from lpi_jax.problems.retrieval.evaluator import RetrievalEvaluator
from lpi_jax.problems.retrieval.options import Measured
from tests.support.galleries import MISLED, gallery_of

IMAGES, TEXTS = "image_to_text", "text_to_image"
MEASURED = Measured(batch=8, seed=0)


NOTHING = Told(*[np.zeros((0, 2), np.float32)] * 2)


def evaluator_of(gallery, tasks=2, routes=True, **measured):
    """An evaluator of a gallery, as if its items had been encoded."""
    made = RetrievalEvaluator(
        SimpleNamespace(logit_scale=1.0, plain_images=lambda *_: NOTHING, plain_texts=lambda *_: NOTHING),
        SimpleNamespace(reserve={}, options=SimpleNamespace(routes=routes)),
        None,
        None,
        MEASURED._replace(**measured),
    )
    gallery.follow = lambda memory, tasks: memory(gallery)
    made.gallery, made._tasks = gallery, tasks
    return made


@pytest.fixture
def misled():
    return gallery_of(*MISLED)


def recalls(ranks_of_images, ranks_of_texts):
    """What follows from all ranks, on both tasks, of which the first has two images and two captions."""
    rows = {}
    for direction, ranks in ((IMAGES, ranks_of_images), (TEXTS, ranks_of_texts)):
        first, second = ranks[:2], ranks[2:]
        rows[f"{direction}/R@1"] = [100 * sum(rank == 0 for rank in first) / 2, 100.0 * (second[0] == 0)]
        rows[f"{direction}/MRR"] = [50 * sum(1 / (1 + rank) for rank in first), 100 / (1 + second[0])]
        rows[f"{direction}/median rank"] = [1 + sum(first) / 2, 1.0 + second[0]]
    return rows


def assert_follows(row, ranks):
    """A row's metrics are those that follow from these ranks of images and of texts."""
    for name, values in recalls(*ranks).items():
        assert row[name] == pytest.approx(values)


# As worked out in recall_test.py.
RANKS = {
    "method": ([2, 1, 2], [2, 1, 1]),
    "frozen": ([0, 0, 2], [1, 1, 0]),
    "frozen_filtered": ([0, 2, 1], [0, 2, 0]),
    "frozen_prior": ([0, 1, 1], [0, 1, 0]),
    "own_frozen": ([0, 0, 0], [0, 0, 0]),
    "own": ([1, 1, 0], [1, 0, 0]),
}


def test_the_method_and_every_control_have_the_numbers_worked_out_by_hand(misled):
    evaluator = evaluator_of(misled)
    assert_follows(evaluator.measure(), RANKS["method"])
    controls = evaluator.controls()
    assert [control.name for control in controls] == list(RANKS)[1:]
    for control, row in controls.items():
        assert_follows(row, RANKS[control.name])
    assert {control.name for control in controls if control.measures_method} == {"own"}


def test_later_tasks_alone_are_measured_as_among_all(misled):
    evaluator = evaluator_of(misled)
    assert evaluator.measure(first=1) == {name: row[1:] for name, row in evaluator.measure().items()}


def test_where_nothing_is_routed_no_control_knows_of_tasks(misled):
    controls = evaluator_of(misled, routes=False).controls()
    assert [control.name for control in controls] == ["frozen", "own_frozen", "own"]
    for control, row in controls.items():
        assert_follows(row, RANKS[control.name])


def test_a_method_that_is_measured_by_its_own_task_is_its_own_control(misled):
    evaluator = evaluator_of(misled, galleries="task")
    controls = {control.name: row for control, row in evaluator.controls().items()}
    assert evaluator.measure() == controls["own"]
    assert controls["frozen"] == controls["own_frozen"]


def test_intervals_stand_around_the_final_averages_and_the_differences_to_every_control(misled):
    found = evaluator_of(misled).intervals()
    assert list(found) == [
        f"{direction}/{name}" for direction in (IMAGES, TEXTS) for name in ("R@1", "R@5", "R@10", "MRR")
    ]
    for name in ("R@1", "MRR"):
        for direction in (IMAGES, TEXTS):
            own = np.mean(recalls(*RANKS["method"])[f"{direction}/{name}"])
            low, high = found[f"{direction}/{name}"]["interval"]
            assert low <= own + 1e-9 and own - 1e-9 <= high
            over = found[f"{direction}/{name}"]["over"]
            assert list(over) == list(RANKS)[1:]
            for control, (difference, least, most) in over.items():
                other = np.mean(recalls(*RANKS[control])[f"{direction}/{name}"])
                assert difference == pytest.approx(own - other)
                assert least <= difference + 1e-9 and difference - 1e-9 <= most


def test_a_method_that_is_the_frozen_backbone_is_above_it_by_exactly_nothing(misled):
    found = evaluator_of(misled, score="plain").intervals()
    for entry in found.values():
        assert entry["over"]["frozen"] == [0.0, 0.0, 0.0]


def test_what_was_ranked_is_forgotten_once_an_item_gets_another_adapter(misled):
    evaluator = evaluator_of(misled)
    before, controls = evaluator.measure(), evaluator.controls()

    def memory(gallery):
        gallery.images.features, gallery.captions.features = gallery.images.plain, gallery.captions.plain

    evaluator.follow(memory, 2)
    assert_follows(evaluator.measure(), RANKS["frozen"])
    assert evaluator.measure() != before
    assert evaluator.controls() != controls
    assert evaluator.intervals()[f"{IMAGES}/R@1"]["over"]["frozen"] == [0.0, 0.0, 0.0]


def test_a_guess_is_measured_among_the_same_items(misled):
    misled.captions.item[2] = 0
    for galleries in ("union", "task"):
        for apart in (True, False):
            evaluator = evaluator_of(misled, galleries=galleries, apart=apart)
            assert evaluator.chance() == recall.chance_row(misled, 2, galleries, apart)
    assert evaluator_of(misled).chance() != evaluator_of(misled, apart=False).chance()


def test_routing_is_told_of_both_sides_and_only_where_there_is_any(misled):
    assert evaluator_of(misled).routing(2) == {
        "image": {"accuracy": [100.0, 100.0], "confusion": {"matrix": [[2, 0], [0, 1]]}},
        "text": {"accuracy": [50.0, 100.0], "confusion": {"matrix": [[1, 1], [0, 1]]}},
    }
    assert evaluator_of(misled, routes=False).routing(2) == {}


def test_all_that_is_told_is_json(misled):
    evaluator = evaluator_of(misled)
    controls = {control.name: row for control, row in evaluator.controls().items()}
    for found in (evaluator.measure(), controls, evaluator.intervals(), evaluator.chance(), evaluator.routing(2)):
        assert json.loads(json.dumps(found)) == found


# -------------------------------------------------------------------------- tasks to come, and tasks that never come


def test_tasks_to_come_are_measured_among_all_items_whatever_has_been_learnt(misled):
    evaluator = evaluator_of(misled, tasks=1, future=True)
    assert evaluator_of(misled, tasks=1).future() == {}
    evaluator.expect([None, None])
    found = evaluator.future()
    assert list(found) == ["future", "future_frozen"]
    assert_follows(found["future"], RANKS["method"])
    assert_follows(found["future_frozen"], RANKS["frozen"])
    # What has been met alone is searched for the usual numbers.
    assert evaluator.measure()[f"{IMAGES}/R@1"] == [0.0]
    assert evaluator.measure()[f"{TEXTS}/median rank"] == [1.5]


def test_a_probe_is_averaged_over_its_tasks(misled):
    evaluator = evaluator_of(gallery_of(*MISLED))
    evaluator._probes, evaluator._probe_splits = {"other": misled}, {"other": [None, None]}
    (found,) = evaluator.probed().values()
    for kind, ranks in (("values", RANKS["method"]), ("frozen", RANKS["frozen"])):
        for name, row in recalls(*ranks).items():
            assert found[kind][name] == pytest.approx(np.mean(row))
