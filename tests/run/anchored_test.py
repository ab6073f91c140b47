"""The preset `anchored`: begins at the frozen model, falls back to it, measures what is not learnt, and resumes."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lpi_jax import config as configs
from lpi_jax import load
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import assemble
from lpi_jax.methods import base
from lpi_jax.run import continual, guard, start

HEADLINES = ("image_to_text/R@1", "text_to_image/R@1")
PROBES = ({"name": "scenes", "domains": ("garden",)},)


@pytest.fixture(scope="module")
def make_anchored(small_settings, compiled):
    """(changes by key) -> the configuration of a small anchored run: three domains, six steps each."""

    def make(changes=None):
        config = configs.anchored()
        known = {key: value for key, value in small_settings.items() if key != "routing.centres"}
        small = {"train.min_steps": 0, "train.held_out": 0.2, "train.batch": 8, "eval.future": True}
        config.update_from_flattened_dict({**known, **small, "eval.probes": PROBES, **(changes or {})})
        return config

    return make


@pytest.fixture(scope="module")
def anchored_run(make_anchored, tmp_path_factory):
    """A finished run's directory and results."""
    directory = tmp_path_factory.mktemp("anchored") / "run"
    return SimpleNamespace(directory=directory, results=continual.run(make_anchored(), directory))


def same(one, other):
    """Everything in the results that is a function of the configuration."""
    clock = ("seconds", "peak_memory_mb")
    return {k: v for k, v in one.items() if k not in clock} == {k: v for k, v in other.items() if k not in clock}


def test_without_a_step_every_result_is_the_frozen_models_to_the_last_digit(make_anchored, tmp_path):
    changes = {"train.lr": 0.0, "train.held_out": 0.0, "eval.score": "prompted", "train.epochs": 1}
    results = continual.run(make_anchored(changes), tmp_path / "run")
    for name, metric in results["metrics"].items():
        assert metric["matrix"] == metric["frozen"]["matrix"], name
        assert metric["future"]["matrix"][-1] == metric["future"]["frozen"], name
    for probe in results["probes"].values():
        assert all(value == metric["frozen"] for metric in probe.values() for value in metric["values"])


def test_results_hold_every_control_and_what_is_known_of_the_differences(anchored_run):
    results = anchored_run.results
    assert results["preset"] == "anchored"
    for name in HEADLINES:
        metric = results["metrics"][name]
        controls = {"frozen_filtered", "frozen_prior", "own_frozen", "own"}
        assert set(metric["controls"]) == controls
        assert set(metric["bootstrap"]["over"]) == controls | {"frozen"}
        low, high = metric["bootstrap"]["interval"]
        assert low <= metric["final_average"] <= high
        for control, (difference, least, most) in metric["bootstrap"]["over"].items():
            theirs = metric["frozen"] if control == "frozen" else metric["controls"][control]
            assert difference == pytest.approx(metric["final_average"] - theirs["final_average"])
            assert least <= difference + 1e-9
            assert difference - 1e-9 <= most


def test_a_task_to_come_is_measured_from_the_first_stage_on(anchored_run):
    for name in HEADLINES:
        future = anchored_run.results["metrics"][name]["future"]
        assert np.shape(future["matrix"]) == (3, 3)
        # After the last task nothing is to come: the gallery is the one that all others are measured in.
        assert future["matrix"][-1] == anchored_run.results["metrics"][name]["matrix"][-1]


def test_a_probe_is_measured_after_every_task_and_never_learnt(anchored_run):
    assert list(anchored_run.results["probes"]) == ["scenes"]
    assert "garden" not in anchored_run.results["tasks"]
    assert all(len(metric["values"]) == 3 for metric in anchored_run.results["probes"]["scenes"].values())


def test_held_out_images_train_nothing_and_are_counted(anchored_run):
    assert anchored_run.results["items"]["image"]["train"] == [13, 13, 13]


def test_a_run_stopped_at_a_boundary_goes_on_with_the_same_bits(anchored_run, make_anchored, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(anchored_run.directory, directory)
    (directory / "results.json").unlink()
    shutil.rmtree(directory / "checkpoints" / "task_003")
    (directory / "features" / "task_003.json").unlink()
    # The features of the boundary before were cleaned away: they are computed again.
    assert same(continual.run(make_anchored(), directory), anchored_run.results)


def test_a_run_killed_behind_its_second_boundary_takes_up_all_galleries(make_anchored, monkeypatch, tmp_path):
    whole = continual.run(make_anchored(), tmp_path / "whole")
    finish, count = continual.finish, []

    def dies(*arguments):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        finish(*arguments)

    monkeypatch.setattr(continual, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        continual.run(make_anchored(), tmp_path / "run")
    monkeypatch.setattr(continual, "finish", finish)
    assert same(continual.run(make_anchored(), tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        (([1.0, 1.5], [2.0, 2.5]), True),
        (([2.0, 2.0], [1.0, 1.0]), False),
        (([1.0, 1.0], [1.0, 1.0]), False),
        (([1.0], [1.5]), True),
        (([0.0, 2.0], [3.0, 1.0]), True),  # gains of 3 and -1: 1 on the average
        (([0.0, 3.0], [2.0, 1.0]), False),
    ],
)
def test_a_task_whose_prompts_do_not_beat_the_frozen_model_is_left_to_it(make_anchored, losses, kept):
    experiment = assemble(make_anchored())
    evaluator = SimpleNamespace(compare=lambda split, adapter: tuple(map(np.array, losses)))
    task = SimpleNamespace(number=1, names=("a", "b"))
    said = []
    trained, _ = experiment.method.begin(jax.random.key(0), {}, experiment.backbone.params, context(experiment))
    trained["gates"] = jax.tree.map(lambda gates: np.ones_like(gates), trained["gates"])
    chosen = guard.better(experiment, evaluator, task, trained, SimpleNamespace(prints=said.append))
    assert all(np.all(gates == kept) for gates in chosen["gates"].values())
    assert len(said) == (not kept)
    if said:
        assert said[0].startswith(
            f"task b keeps the frozen backbone: on {len(losses[0])} held-out images its prompts miss "
        )


def context(experiment):
    """Of a first task."""
    return base.TaskContext(
        number=0,
        names=("a",),
        meaning=np.ones(16, np.float32) / 4,
        examples=8,
        seed=0,
        features=dict,
        batches=lambda count: iter(()),
        gradient=lambda *_: {},
    )


def test_tasks_left_to_the_frozen_model_are_counted_by_name_and_served_so(make_anchored, monkeypatch, tmp_path):
    worse = np.array([2.0]), np.array([1.0])
    monkeypatch.setattr(
        "lpi_jax.problems.retrieval.evaluator.RetrievalEvaluator.compare", lambda self, split, adapter: worse
    )
    results = continual.run(make_anchored({"eval.score": "prompted"}), tmp_path / "run")
    assert results["plain_tasks"] == {"count": 3, "names": results["tasks"]}
    metric = results["metrics"][HEADLINES[0]]
    assert metric["matrix"] == metric["frozen"]["matrix"]
    model = load(tmp_path / "run")
    text = model.index_texts(["a red circle"], "prompted+plain").features
    np.testing.assert_array_equal(*np.split(text, 2, axis=1))


def test_a_method_that_cannot_do_without_its_prompts_refuses_held_out_images(make_config, tmp_path):
    with pytest.raises(UserError, match=r"train.held_out is 0.1, but lpi as configured cannot leave a task"):
        continual.run(make_config({"train.held_out": 0.1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_small_task_gets_as_many_epochs_as_its_least_steps_need(make_anchored, tmp_path):
    changes = {"train.min_steps": 9, "train.epochs": 1, "data.domains": ("comic",), "eval.probes": ()}
    results = continual.run(make_anchored(changes), tmp_path / "run")
    assert results["counts"]["steps"] == [12]  # 39 pairs, four batches of eight an epoch: three epochs
    epochs = [json.loads(line).get("epoch") for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(epoch for epoch in epochs if epoch) == 3


def test_an_unfinished_run_of_an_earlier_version_is_refused_in_one_sentence(tmp_path):
    progress = SimpleNamespace(stages=[{"values": {}, "frozen": {}}])
    with pytest.raises(UserError, match="holds an unfinished run of an earlier version, which measured less"):
        start.refuse_older(progress, tmp_path)
