"""results.json from what was measured after each task: of any problem, worked out by hand and by the reference."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lpi_jax.experiment.progress import Progress
from lpi_jax.methods.base import Options as MethodOptions
from lpi_jax.problems.base import Metric
from lpi_jax.run import results
from lpi_jax.train.optimizer import Options
from tests.reference import continual

IMAGES, TEXTS = "image_to_text", "text_to_image"
METRICS = (
    Metric("image_to_text/R@1", "R@1", "image to text", "I→T", "%", True, "image"),
    Metric("image_to_text/R@2", "R@2", "image to text", "I→T", "%", True, "image"),
    Metric("text_to_image/R@1", "R@1", "text to image", "T→I", "%", True, "text"),
    Metric("perplexity", "nats", "captions", "C", "nats", False, "text"),
)

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


CONTROLS = {  # what is added to the frozen values, and whether the method answers
    "frozen": ("zero-shot", False, 0.0),
    "frozen_prior": ("zero-shot with the prior", False, 2.0),
    "frozen_filtered": ("zero-shot, in the routed items", False, 1.0),
    "own_frozen": ("zero-shot, in the true items", False, 9.0),
    "own": ("in the true items", True, None),
}
OWN = [[70.0], [71.0, 82.0], [68.0, 82.0, 93.0]]  # forgets (-3 + 0) / 2
OWN_FROZEN = [[9.0], [9.0, 20.0], [9.0, 20.0, 30.0]]  # nothing: neither it nor what it searches ever changes


def stages(chance=True, controls=("frozen",)):
    """Three stages; each metric only raises what was learnt by its number, so that none can be taken for another."""

    def row(values, raised):
        return {metric.name: [value + raised * n for value in values] for n, metric in enumerate(METRICS)}

    def control(name, s):
        label, measures_method, added = CONTROLS[name]
        fixed = {"own": OWN, "own_frozen": OWN_FROZEN}.get(name)
        values = fixed[s] if fixed else [value + added for value in FROZEN[s]]
        return {"name": name, "label": label, "measures_method": measures_method, "values": row(values, 0)}

    return [
        {
            # Only the last entry of an arrival row is about the new task.
            "arrival": row([-1.0] * s + [BEFORE[s]], 0),
            "values": row(LEARNT[s], 1),
            "controls": {name: control(name, s) for name in controls},
            "intervals": {},
            "chance": {name: FROZEN[s] for name in ("image_to_text/R@1", "text_to_image/R@1") if chance},
            "routing": {
                "image": {"accuracy": [100.0 - 10 * s] * (s + 1), "confusion": {"matrix": [[s]]}},
                "text": {"accuracy": [float(t) for t in range(s + 1)], "confusion": {"matrix": [[-s]]}},
            },
        }
        for s in range(3)
    ]


def experiment(routed="inferred", trains=True, tasks=4):
    """What an experiment tells its results: a problem of four metrics on tasks of 7, 8, 9, ... examples."""
    split = [SimpleNamespace(size=7 + task) for task in range(tasks)]
    options = type("Options", (MethodOptions,), {"trains": trains, "routes": True, "keeps_tasks": True})()
    return SimpleNamespace(
        config=SimpleNamespace(preset="intended", dtype="float32", matmul_precision="highest", backbone="small"),
        stream=SimpleNamespace(
            name="toys",
            fingerprint="5eed",
            notes={"kept": 1},
            skipped={"missing": 2},
            tasks=[SimpleNamespace(name=f"task {n}", train=one, val=one) for n, one in enumerate(split)],
        ),
        method=SimpleNamespace(
            name="lpi" if trains else "zero_shot",
            options=options,
            facts=lambda memory, names: {"of_the_method": [len(memory), *names]},
            replayed=2,
        ),
        problem=SimpleNamespace(
            name="retrieval",
            metrics=METRICS,
            sides={"image": "images", "text": "captions"},
            items=lambda split: {"image": split.size, "text": 10 * split.size},
            examples=lambda split: split.size,
            protocol="measured {}".format,
        ),
        backbone=SimpleNamespace(params={"a": np.zeros((2, 3))}, hashes={"backbone": "beef"}, assumed=""),
        training=Options(batch=4),
        routed=routed,
    )


def summary(made=None, measured=None, **changes):
    measured = stages() if measured is None else measured
    memory = {"trained": {"x": np.zeros((len(measured), 5))}, "descriptions": np.zeros((len(measured), 2))}
    progress = Progress(tuple(f"task {n}" for n in range(len(measured))), memory, [], [{"training": 1.0}], 11)
    for stage in measured:
        progress.measured(stage)
    return results.summarise(made or experiment(**changes), [3, 3, 3, 0], progress)


@pytest.mark.parametrize(
    ("name", "raised"), [("image_to_text/R@1", 0), ("image_to_text/R@2", 1), ("text_to_image/R@1", 2)]
)
def test_a_metric_has_its_matrix_and_every_average_worked_out_by_hand(name, raised):
    found = summary()["metrics"][name]
    assert found["matrix"] == [[value + raised for value in row] for row in LEARNT]
    assert found["before_learning"] == BEFORE
    moved = {average: value + raised * average.endswith("_average") for average, value in AVERAGES.items()}
    assert {average: found[average] for average in AVERAGES} == pytest.approx(moved)
    (metric,) = (metric for metric in METRICS if metric.name == name)
    described = {key: value for key, value in metric._asdict().items() if key != "name"}
    assert {key: found[key] for key in described} == described
    assert set(found) <= {*described, *AVERAGES, "matrix", "before_learning", "frozen", "controls", "chance"}
    assert found["controls"] == {}


def test_every_average_of_every_metric_is_the_references():
    slow = {
        "incremental_average": continual.incremental_average,
        "final_average": continual.final_average,
        "forgetting": continual.forgetting,
        "chaudhry_forgetting": continual.forgetting_chaudhry,
        "backward_transfer": continual.backward_transfer,
    }
    for metric in METRICS:
        found = summary()["metrics"][metric.name]
        for numbers in (found, found["frozen"]):
            matrix = numbers["matrix"]
            sign = 1 if metric.higher_is_better else -1
            signed = [[sign * value for value in row] for row in matrix]
            for average, reference in slow.items():
                expected = sign * reference(signed)
                assert numbers[average] == pytest.approx(expected), (metric.name, average)


def test_of_a_metric_of_which_less_is_better_losing_is_positive_and_gaining_negative():
    found = summary()["metrics"]["perplexity"]
    raised = [[value + 3 for value in row] for row in LEARNT]  # the last stage has less than any before: a gain
    assert found["matrix"] == raised
    assert found["forgetting"] == pytest.approx(((43 - 63) + (73 - 83)) / 2)
    assert found["backward_transfer"] == pytest.approx(((43 - 63) + (73 - 83)) / 2)
    assert found["forward_transfer"] == pytest.approx(AVERAGES["forward_transfer"])
    assert found["higher_is_better"] is False


def test_a_metric_has_the_frozen_backbone_on_the_same_galleries():
    found = summary()["metrics"]["text_to_image/R@1"]["frozen"]
    assert found["matrix"] == FROZEN
    assert {name: found[name] for name in FROZEN_AVERAGES} == pytest.approx(FROZEN_AVERAGES)


def test_a_metric_has_the_guess_of_every_stage_where_a_guess_means_something():
    found = summary()["metrics"]
    assert found["image_to_text/R@1"]["chance"] == {
        "matrix": FROZEN,
        "incremental_average": pytest.approx((6 + 12.5 + 24) / 3),
        "final_average": pytest.approx(44 / 3),
        "forgetting": pytest.approx(1.0),
    }
    assert "chance" not in found["image_to_text/R@2"]
    assert not any("chance" in metric for metric in summary(measured=stages(chance=False))["metrics"].values())


# ---- controls and intervals ------------------------------------------------------------------------------------------


def test_a_metric_has_every_control_by_name_beside_the_frozen_backbone():
    found = summary(measured=stages(controls=CONTROLS))["metrics"]["image_to_text/R@1"]
    assert list(found["controls"]) == ["frozen_prior", "frozen_filtered", "own_frozen", "own"]
    prior, own = found["controls"]["frozen_prior"], found["controls"]["own"]
    assert (prior["label"], prior["measures_method"]) == ("zero-shot with the prior", False)
    assert prior["matrix"] == [[value + 2 for value in row] for row in FROZEN]
    assert prior["final_average"] == pytest.approx(44 / 3 + 2)
    assert (own["label"], own["measures_method"], own["matrix"]) == ("in the true items", True, OWN)
    assert own["forgetting"] == pytest.approx(-1.5)
    assert (found["frozen"]["label"], found["frozen"]["matrix"]) == ("zero-shot", FROZEN)


def test_forgetting_is_split_by_what_is_forgotten_among_items_that_stay_the_same():
    found = summary(measured=stages(controls=CONTROLS))["metrics"]["image_to_text/R@1"]
    assert found["forgetting"] == pytest.approx(-17.5)
    assert (found["forgetting_fixed_gallery"], found["gallery_growth"]) == pytest.approx((-1.5, -16.0))
    frozen = found["frozen"]
    assert (frozen["forgetting_fixed_gallery"], frozen["gallery_growth"]) == pytest.approx((0.0, 1.0))
    own = found["controls"]["own"]
    assert (own["forgetting_fixed_gallery"], own["gallery_growth"]) == pytest.approx((-1.5, 0.0))
    assert "gallery_growth" not in found["controls"]["frozen_prior"]
    without = summary(measured=stages())["metrics"]["image_to_text/R@1"]
    assert "gallery_growth" not in without
    assert "gallery_growth" not in without["frozen"]


def test_the_newest_intervals_are_kept_where_they_are_known():
    measured = stages()
    for s, stage in enumerate(measured):
        stage["intervals"] = {"image_to_text/R@1": {"interval": [s, s + 1.0], "over": {"frozen": [1.0, 0.0, 2.0]}}}
    found = summary(measured=measured)["metrics"]
    assert found["image_to_text/R@1"]["bootstrap"] == {"interval": [2, 3.0], "over": {"frozen": [1.0, 0.0, 2.0]}}
    assert "bootstrap" not in found["image_to_text/R@2"]


def test_what_cannot_be_retained_is_null():
    for name in ("image_to_text/R@1", "perplexity"):
        assert summary(measured=stages()[:1])["metrics"][name]["zero_shot_retention"] is None
    assert summary()["metrics"]["perplexity"]["zero_shot_retention"] is None  # of which less is better


# ---- tasks not learnt yet, and items of no task ----------------------------------------------------------------------

FULL = [[90.0, 30.0, 20.0, 10.0], [80.0, 70.0, 24.0, 12.0], [60.0, 65.0, 95.0, 14.0]]
UNTOUCHED = [50.0, 35.0, 25.0, 15.0]


def test_mtils_averages_are_written_where_every_stage_measured_all_tasks():
    measured = stages()
    for stage, row in zip(measured, FULL, strict=True):
        stage |= {"future": {"image_to_text/R@1": row}, "future_frozen": {"image_to_text/R@1": UNTOUCHED}}
    found = summary(measured=measured)["metrics"]
    assert found["image_to_text/R@1"]["future"] == {
        "matrix": FULL,
        "transfer": pytest.approx((30 + 22 + 12) / 3),
        "average": pytest.approx((230 / 3 + 55 + 139 / 3 + 12) / 4),
        "last": pytest.approx(234 / 4),
        "frozen": UNTOUCHED,
    }
    assert "future" not in found["image_to_text/R@2"]
    del measured[0]["future"]
    assert "future" not in summary(measured=measured)["metrics"]["image_to_text/R@1"]


def test_a_stream_of_one_task_transfers_nothing_and_is_json():
    (stage,) = stages()[:1]
    stage |= {"future": {"perplexity": [3.0]}, "future_frozen": {"perplexity": [4.0]}}
    found = summary(measured=[stage])
    assert found["metrics"]["perplexity"]["future"]["transfer"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_probes_have_their_values_after_every_stage():
    measured = stages()
    for s, stage in enumerate(measured):
        stage["probes"] = {"flags": {"values": {"perplexity": 5.0 + s}, "frozen": {"perplexity": 4.0}}}
    assert summary(measured=measured)["probes"] == {"flags": {"perplexity": {"values": [5.0, 6.0, 7.0], "frozen": 4.0}}}
    assert "probes" not in summary()


# ---- all the rest ----------------------------------------------------------------------------------------------------


def test_routing_has_its_accuracy_after_every_stage_and_the_last_confusion():
    assert summary()["routing"] == {
        "image": {
            "label": "images",
            "matrix": [[100.0], [90.0, 90.0], [80.0, 80.0, 80.0]],
            "final_average": 80.0,
            "confusion": {"matrix": [[2]]},
        },
        "text": {
            "label": "captions",
            "matrix": [[0.0], [0.0, 1.0], [0.0, 1.0, 2.0]],
            "final_average": 1.0,
            "confusion": {"matrix": [[-2]]},
        },
    }
    for stage in (measured := stages()):
        stage["routing"] = {}
    assert summary(measured=measured)["routing"] == {}


def test_only_the_newest_stage_keeps_its_confusion():
    progress = Progress()
    for number in range(3):
        progress.measured({"routing": {"image": {"accuracy": [number], "confusion": [number]}}})
    assert [stage["routing"]["image"] for stage in progress.stages] == [
        {"accuracy": [0]},
        {"accuracy": [1]},
        {"accuracy": [2], "confusion": [2]},
    ]


def test_the_rest_says_what_was_measured_on_what_and_with_how_many_numbers():
    found = summary()
    assert (found["schema"], found["problem"], found["method"], found["label"]) == (
        2,
        "retrieval",
        "lpi",
        "LPI intended",
    )
    assert (found["trains"], found["routed"], found["protocol"]) == (True, "inferred", "measured inferred")
    assert found["precision"] == {"backbone": "float32", "products": "highest"}
    assert found["stream"] == {"name": "toys", "sha256": "5eed", "notes": {"kept": 1}}
    assert (found["tasks"], found["tasks_to_come"]) == (["task 0", "task 1", "task 2"], ["task 3"])
    assert found["items"] == {
        "image": {"label": "images", "train": [7, 8, 9, 10], "val": [7, 8, 9, 10]},
        "text": {"label": "captions", "train": [70, 80, 90, 100], "val": [70, 80, 90, 100]},
    }
    assert found["of_the_method"] == [2, "task 0", "task 1", "task 2"]
    assert found["parameters"] == {
        "per_task": 5,
        "trained": 15,
        "backbone": 6,
        "backbone_source": "small",
        "backbone_sha256": "beef",
        "backbone_assumed": "",
    }
    # From the second task on two of four rows are replayed; the fourth has no steps.
    assert found["counts"] == {
        "steps": [3, 3, 3, 0],
        "examples_left_out_per_epoch": [7 % 4, 8 % 2, 9 % 2, 0],
        "texts_cut": 11,
        "skipped": {"missing": 2},
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("routed", "trains", "label", "routing"),
    [
        ("inferred", True, "LPI intended", "; routed right: images 80.0 %, captions 1.0 %"),
        ("given", True, "LPI intended", "; tasks given"),
        ("newest", True, "LPI intended", ""),
        ("none", False, "zero-shot", ""),
    ],
)
def test_the_line_after_a_task_speaks_of_routing_only_where_it_decides_anything(routed, trains, label, routing):
    made = experiment(routed, trains)
    made.problem.metrics = METRICS[:3]
    found = summary(made)
    assert found["label"] == label
    assert results.line(found) == (
        "after task 2: R@1 image to text 66.7 % (zero-shot 14.7), text to image 68.7 % (zero-shot 14.7)" + routing
    )


def test_the_line_names_the_best_that_the_frozen_backbone_reaches_with_the_methods_knowledge():
    """Not what it finds among the items of the true task, which is an easier question."""
    measured = stages(controls=CONTROLS)
    rows = [stage["controls"]["frozen_prior"]["values"] for stage in measured]
    for row in rows:
        row["text_to_image/R@1"] = [value - 5 for value in row["text_to_image/R@1"]]  # below `frozen_filtered`
    assert results.line(summary(measured=measured)).split("; ")[0] == (
        "after task 2: R@1/nats image to text 66.7 % (zero-shot 14.7, with the prior 16.7),"
        " text to image 68.7 % (zero-shot 14.7, in the routed items 15.7),"
        " captions 69.7 nats (zero-shot 14.7, in the routed items 15.7)"  # of a loss the least
    )


def test_curves_are_of_every_metrics_final_average():
    found = summary()
    assert results.scalars(found) == {f"eval/{n}": metric["final_average"] for n, metric in found["metrics"].items()}
    assert [metric["label"] for metric in results.headlines(found)] == ["R@1", "R@1", "nats"]


def test_one_task_forgets_nothing_and_is_json():
    found = summary(measured=stages()[:1])
    assert found["metrics"]["image_to_text/R@1"]["forgetting"] == 0.0
    assert found["metrics"]["image_to_text/R@1"]["forward_transfer"] == 0.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found
