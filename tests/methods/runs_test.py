"""Whole runs of the methods with one memory for all tasks: what they leave, killed, served, on several devices.

A new method of this kind is one more name in METHODS.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import lpi_jax
from lpi_jax import config as configs
from lpi_jax.data.captioned import spoken
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.methods import replay
from lpi_jax.problems.saved import read
from lpi_jax.run import continual, task
from lpi_jax.run.log import DIGITS
from lpi_jax.train import step
from lpi_jax.workdir.checkpoint import Checkpoints
from tests.support.pixels import pixels
from tests.support.together import PATIENCE, ROOT, Together, calling

METHODS = {
    "finetune": {"train.lr": 0.01},
    "lora": {"train.lr": 0.5},
    "ewc": {"train.lr": 0.01, "method.fisher_batches": 2},
    "l2p": {"method.pool": 4, "method.prompt_length": 2, "method.chosen": 2},
    "replay": {"method.buffer": 10, "method.replayed": 4, "train.lr": 0.01},
}
SPREAD = ("lora", "ewc", "l2p", "replay")  # over processes: fine-tuning is the second without its penalty
# Of a task; a state is saved every two. Of four rows that are replayed the second task has that many less of its own.
STEPS = {name: (6, 8 if name == "replay" else 6) for name in METHODS}
PAIRS = 48  # of a task's training split


class Whole(NamedTuple):
    """A run that nothing disturbed; how often its step and gradient were compiled, and the plans of its batches."""

    config: ConfigDict
    directory: Path
    results: dict[str, Any]
    programs: dict[str, int]
    plans: list[Any]


@pytest.fixture(scope="module")
def settings(small_settings):
    """By method the settings of a run of two tasks; captions, placeholders in front, fit one length: one program."""
    two = {**small_settings, "data.domains": ("comic", "fax"), "data.max_words": 4}
    return {name: {**two, "method.name": name, **own} for name, own in METHODS.items()}


@pytest.fixture(scope="module")
def finished(settings, make_config, tmp_path_factory):
    """(method) -> its run; made once."""
    made: dict[str, Whole] = {}

    def run(name):
        if name not in made:
            programs, plans, batches = {}, [], task.batches.training_batches

            def counted(make):
                def spied(*arguments):
                    programs[make.__name__] = made_now = make(*arguments)
                    return made_now

                return spied

            config, directory = make_config(settings[name]), tmp_path_factory.mktemp(name) / "run"
            with pytest.MonkeyPatch.context() as patch:
                for make in (step.make_step, step.make_gradient):
                    patch.setattr(step, make.__name__, counted(make))
                patch.setattr(
                    task.batches, "training_batches", lambda plan, *at: plans.append(plan) or batches(plan, *at)
                )
                results = continual.run(config, directory)
            compiled = {
                key: len(found.run.programs) if hasattr(found, "run") else found._cache_size()
                for key, found in programs.items()
            }
            made[name] = Whole(config, directory, results, compiled, plans)
        return made[name]

    return run


def recall(results, frozen=False):
    return {name: (metric["frozen"] if frozen else metric)["matrix"] for name, metric in results["metrics"].items()}


def logged(directory):
    """What every step logged, but for the clock."""
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in DIGITS} for line in lines]


def assert_alike(read_progress, found, expected):
    """Two directories hold the same run to the bit."""
    assert logged(found) == logged(expected)
    ours, theirs = read_progress(found), read_progress(expected)
    assert ours.names == theirs.names
    assert ours.stages == theirs.stages
    assert ours.flops == theirs.flops
    jax.tree.map(np.testing.assert_array_equal, ours.memory, theirs.memory)


# ---- what a run leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_one_program_trains_and_the_memory_is_as_large_after_two_tasks_as_after_one(name, finished, read_progress):
    _, directory, results, programs, _ = finished(name)
    assert set(programs.values()) == {1}
    memories = [Checkpoints(directory).load_task(count)[0] for count in (1, 2)]
    first, second = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), memory) for memory in memories)
    assert first == second
    memory = read_progress(directory).memory
    assert int(memory["stage"]) == 1
    numbers = sum(leaf.size for leaf in jax.tree.leaves(memory["trained"]))
    assert results["parameters"]["trained"] == results["parameters"]["per_task"] == numbers
    assert results["counts"]["steps"] == list(STEPS[name])
    flops = [count / steps for count, steps in zip(results["training_flops"], STEPS[name], strict=True)]
    assert flops[0] == flops[1] > 2 * results["parameters"]["backbone"]  # one program
    assert [line["step"] for line in logged(directory)] == list(range(1, sum(STEPS[name]) + 1))


@pytest.mark.parametrize("name", METHODS)
def test_the_backbone_itself_stays_as_it_is_and_what_is_seen_with_the_method_does_not(name, finished):
    results = finished(name).results
    assert recall(results, frozen=True) == recall(finished("finetune").results, frozen=True)
    assert recall(results) != recall(results, frozen=True)
    assert (results["routed"], results["routing"]) == ("none", {})


@pytest.mark.parametrize("name", METHODS)
def test_all_items_are_encoded_under_the_newest_stage_and_served_as_they_were_measured(name, finished):
    config, directory, *_ = finished(name)
    (path,) = (directory / "features").glob("task_*")
    own = read(path)
    model, stream = lpi_jax.load(directory), stream_of(config, 32)
    images = np.stack([pixels(task.val.load(i)) for task in stream.tasks for i in range(len(task.val))])
    captions = [caption for task in stream.tasks for caption in spoken(task.val)]
    for side, served in (("images", model.encode_image(images)), ("captions", model.encode_text(captions))):
        np.testing.assert_array_equal(own[f"stream.{side}.encoded"], 1)
        np.testing.assert_allclose(served, own[f"stream.{side}.features"], rtol=0, atol=1e-6)
        assert np.abs(served - own[f"stream.{side}.plain"]).max() > 1e-3


def test_elastic_weight_consolidation_remembers_what_every_weight_was_worth(finished, read_progress):
    memory = read_progress(finished("ewc").directory).memory
    assert jax.tree.map(np.shape, memory["fisher"]) == jax.tree.map(np.shape, memory["trained"])


def test_without_strength_elastic_weight_consolidation_is_fine_tuning_to_the_bit(
    finished, settings, make_config, read_progress, tmp_path
):
    found = continual.run(make_config({**settings["ewc"], "method.strength": 0.0}), tmp_path)
    trained = [read_progress(path).memory["trained"] for path in (tmp_path, finished("finetune").directory)]
    jax.tree.map(np.testing.assert_array_equal, *trained)
    assert recall(found) == recall(finished("finetune").results)


def test_a_pool_has_as_many_numbers_as_its_keys_and_prompts_and_its_key_loss_is_logged(finished):
    _, directory, results, _, plans = finished("l2p")
    assert results["parameters"]["trained"] == 4 * (2 * 32 + 16) + 4 * (2 * 24 + 16)
    assert all("keys" in line for line in logged(directory))
    assert [len(plan.buffer) for plan in plans] == [0, 0]


def test_what_is_replayed_is_a_function_of_the_seed_and_the_tasks(finished, read_progress):
    _, directory, _, _, plans = finished("replay")
    first = replay.shared_out(plans[0].buffer, 0, PAIRS, 10, seed=0)
    np.testing.assert_array_equal(plans[1].buffer, first)
    second = replay.shared_out(first, 1, PAIRS, 10, seed=0)
    np.testing.assert_array_equal(read_progress(directory).memory["buffer"], second)
    assert [plan.own for plan in plans] == [16, 12]


def test_a_pattern_that_is_found_nowhere_is_refused_before_anything_is_written(settings, make_config, tmp_path):
    config = make_config({**settings["lora"], "method.where": "queries"})
    with pytest.raises(UserError, match=r"^config.method.where is 'queries', which is found in no path"):
        continual.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- interrupted -----------------------------------------------------------------------------------------------------


def start(settings, directory):
    """What a process of its own does."""
    config = configs.intended()
    config.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    return continual.run(config, directory)


def killed(settings, directory):
    """Runs until SIGKILL, in the second task, two steps behind the state that was saved inside it."""
    save = Checkpoints.save_inside

    def kill_instead(self, number, step, state, flops):
        if (number, step) == (1, 4):
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, number, step, state, flops)

    Checkpoints.save_inside = kill_instead
    start(settings, directory)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_killed_inside_a_task_goes_on_to_the_same_bits(
    name, finished, settings, compiled, read_progress, decided, monkeypatch, tmp_path
):
    config, whole, results, *_ = finished(name)
    command = [sys.executable, *calling(killed, settings[name], tmp_path / "run")]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("task_*")] == ["task_001"]
    assert len(logged(tmp_path / "run")) == STEPS[name][0] + 4
    resumed, again = resumed_at(config, tmp_path / "run", monkeypatch)
    assert (resumed, decided(again)) == ([2], decided(results))
    assert_alike(read_progress, tmp_path / "run", whole)


@pytest.mark.parametrize("name", METHODS)
def test_from_a_boundary_a_run_goes_on_to_the_same_bits(name, finished, read_progress, decided, monkeypatch, tmp_path):
    config, whole, results, *_ = finished(name)
    directory = tmp_path / "run"
    shutil.copytree(whole, directory)
    (directory / "results.json").unlink()
    for behind in (
        directory / "checkpoints" / "task_002",
        directory / "checkpoints" / "inside",
        directory / "features",
    ):
        shutil.rmtree(behind)
    resumed, again = resumed_at(config, directory, monkeypatch)
    assert (resumed, decided(again)) == ([0], decided(results))
    assert_alike(read_progress, directory, whole)


def resumed_at(config, directory, monkeypatch):
    """At which steps of their tasks a run is taken up, and the results that it ends with."""
    resumed, fit = [], step.fit
    monkeypatch.setattr(step, "fit", lambda state, *rest: resumed.append(int(state.step)) or fit(state, *rest))
    return resumed, continual.run(config, directory)


# ---- on several devices and in several processes ---------------------------------------------------------------------


def all_of_them(settings, folder):
    """Every method's run, one after the other, by one of several processes."""
    for name, own in settings.items():
        start({**own, "distributed": True}, Path(folder) / name)
    assert (jax.process_count(), jax.device_count()) == (2, 4)


@pytest.fixture(scope="module")
def spread(settings, compiled, tmp_path_factory):
    """The folder of runs in two processes with two devices each; the second has a folder of its own."""
    folder = tmp_path_factory.mktemp("spread")
    some = {name: settings[name] for name in SPREAD}
    commands = [calling(all_of_them, some, folder / f"run{number}") for number in range(2)]
    with Together(folder, commands, devices=2, **compiled) as together:
        for process in together.ended():
            assert process.status == 0, process.err
    return folder / "run0"


@pytest.mark.slow
@pytest.mark.parametrize("name", SPREAD)
def test_two_processes_with_four_devices_give_the_recall_of_one_and_its_losses(name, spread, finished):
    _, directory, results, *_ = finished(name)
    found = json.loads((spread / name / "results.json").read_text())
    assert recall(found) == recall(results)
    assert found["counts"] == results["counts"]
    one, several = logged(directory), logged(spread / name)
    assert [line["step"] for line in one] == [line["step"] for line in several]
    for own, line in zip(several, one, strict=True):
        for term in line.keys() & {"loss", "retrieval", "keys", "ewc"}:
            assert own[term] == pytest.approx(line[term], rel=1e-5, abs=1e-5), (name, term, line["step"])
