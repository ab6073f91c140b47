"""Runs of the methods with one memory for all tasks: what they leave, interrupted, served, on several devices.

A new method of this kind is one more name in METHODS.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import lpi_jax
from lpi_jax import config as configs
from lpi_jax.data.captioned import spoken
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.run import continual
from lpi_jax.train import step
from lpi_jax.workdir.checkpoint import Checkpoints
from tests.support.pixels import pixels
from tests.support.together import ROOT, Together, calling

METHODS = ("finetune", "lora", "ewc")
CHANGES = {
    "finetune": {"train.lr": 0.01},
    "lora": {"train.lr": 0.5},
    "ewc": {"train.lr": 0.01, "method.fisher_batches": 2},
}
STEPS = 6  # of a task; a state is saved every two
PATIENCE = 240  # seconds
SPREAD = ("lora", "ewc")  # over processes: fine-tuning is the second without its penalty


def settings_of(name):
    """By key what distinguishes the run from other small ones; captions all take as many tokens: one program."""
    return {"method.name": name, "data.domains": ("comic", "fax"), "data.max_words": 6, **CHANGES[name]}


@pytest.fixture(scope="module")
def finished(make_config, tmp_path_factory):
    """(method) -> config, directory, results and number of programs of a run that nothing disturbs; made once."""
    made = {}

    def run(name):
        if name not in made:
            programs = {}

            def counted(make):
                def spied(*arguments):
                    programs[make.__name__] = made_now = make(*arguments)
                    return made_now

                return spied

            config, directory = make_config(settings_of(name)), tmp_path_factory.mktemp(name) / "run"
            with pytest.MonkeyPatch.context() as patch:
                for make in (step.make_step, step.make_gradient):
                    patch.setattr(step, make.__name__, counted(make))
                results = continual.run(config, directory)
            compiled = {key: getattr(found, "run", found)._cache_size() for key, found in programs.items()}
            made[name] = config, directory, results, compiled
        return made[name]

    return run


def recall(results, kind="matrix"):
    if kind == "matrix":
        return {name: metric["matrix"] for name, metric in results["metrics"].items()}
    return {name: metric[kind]["matrix"] for name, metric in results["metrics"].items()}


def logged(directory):
    """Every step's loss terms; lines that are not whole are left out."""
    path = directory / "metrics.jsonl"
    whole = path.read_bytes().splitlines(True) if path.exists() else []
    timeless = ("pairs_per_second", "data_wait")
    return [
        {key: value for key, value in json.loads(line).items() if key not in timeless}
        for line in whole
        if line.endswith(b"\n")
    ]


def assert_alike(read_progress, found, expected):
    """Two directories hold the same run to the bit."""
    assert logged(found) == logged(expected)
    ours, theirs = read_progress(found), read_progress(expected)
    assert ours.names == theirs.names
    assert ours.stages == theirs.stages
    jax.tree.map(np.testing.assert_array_equal, ours.memory, theirs.memory)


# ------------------------------------------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("name", METHODS)
def test_one_program_trains_and_the_memory_is_as_large_after_two_tasks_as_after_one(name, finished, read_progress):
    _, directory, results, programs = finished(name)
    assert set(programs.values()) == {1}
    memories = [Checkpoints(directory).load_task(count)[0] for count in (1, 2)]
    first, second = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), memory) for memory in memories)
    assert first == second
    memory = read_progress(directory).memory
    assert int(memory["stage"]) == 1
    numbers = sum(leaf.size for leaf in jax.tree.leaves(memory["trained"]))
    assert results["parameters"]["trained"] == results["parameters"]["per_task"] == numbers
    if name == "ewc":
        assert jax.tree.map(np.shape, memory["fisher"]) == jax.tree.map(np.shape, memory["trained"])
    assert [line["step"] for line in logged(directory)] == list(range(1, 2 * STEPS + 1))


@pytest.mark.parametrize("name", METHODS)
def test_the_backbone_itself_stays_as_it_is_and_what_is_seen_with_the_method_does_not(name, finished):
    _, _, results, _ = finished(name)
    assert recall(results, "frozen") == recall(finished(METHODS[0])[2], "frozen")
    assert recall(results) != recall(results, "frozen")
    assert results["routed"] == "none"
    assert results["routing"] == {}


@pytest.mark.parametrize("name", METHODS)
def test_all_items_are_encoded_under_the_newest_stage_and_served_as_they_were_measured(name, finished):
    config, directory, _, _ = finished(name)
    (path,) = (directory / "features").glob("*.npz")
    with np.load(path, allow_pickle=False) as arrays:
        own = dict(arrays)
    model, stream = lpi_jax.load(directory), stream_of(config, 32)
    pictures = np.stack([pixels(task.val.load(i)) for task in stream.tasks for i in range(len(task.val))])
    captions = [caption for task in stream.tasks for caption in spoken(task.val)]
    for side, served in (("images", model.encode_image(pictures)), ("captions", model.encode_text(captions))):
        np.testing.assert_array_equal(own[f"{side}.encoded"], 1)
        np.testing.assert_allclose(served, own[f"{side}.features"], rtol=0, atol=1e-6)
        assert np.abs(served - own[f"{side}.plain"]).max() > 1e-3


def test_without_strength_elastic_weight_consolidation_is_fine_tuning_to_the_bit(
    finished, make_config, read_progress, tmp_path
):
    _, directory, results, _ = finished("finetune")
    found = continual.run(make_config({**settings_of("ewc"), "method.strength": 0.0}), tmp_path)
    jax.tree.map(
        np.testing.assert_array_equal,
        read_progress(tmp_path).memory["trained"],
        read_progress(directory).memory["trained"],
    )
    assert recall(found) == recall(results)


def test_a_pattern_that_is_found_nowhere_is_refused_before_anything_is_written(make_config, tmp_path):
    config = make_config({**settings_of("lora"), "method.where": "queries"})
    with pytest.raises(UserError, match=r"^config.method.where is 'queries', which is found in no path"):
        continual.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------- interruptions


def start(settings, directory):
    """What a process of its own does."""
    config = configs.intended()
    config.update_from_flattened_dict(settings)
    return continual.run(config, directory)


def killed(settings, directory, environment, reached):
    """Starts the run in a process of its own and kills it as soon as `reached()`."""
    process = subprocess.Popen(
        [sys.executable, *calling(start, settings, directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    began = time.monotonic()
    try:
        while not reached():
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_killed_inside_a_task_and_at_a_boundary_the_same_command_ends_bit_for_bit_alike(
    name, finished, small_settings, compiled, read_progress, tmp_path
):
    config, whole, _, _ = finished(name)
    settings, directory = {**small_settings, **settings_of(name)}, tmp_path / "run"
    boundary = directory / "checkpoints" / "task_001"
    killed(settings, directory, compiled, lambda: len(logged(directory)) >= 3 or boundary.exists())
    killed(settings, directory, compiled, boundary.exists)
    continual.run(config, directory)
    assert_alike(read_progress, directory, whole)


@pytest.mark.parametrize("name", METHODS)
def test_from_a_state_inside_the_second_task_a_run_goes_on_to_the_same_end(
    name, finished, make_config, read_progress, monkeypatch, tmp_path
):
    config, whole, _, _ = finished(name)
    directory = tmp_path / "run"
    shutil.copytree(whole, directory)
    shutil.rmtree(directory / "checkpoints" / "task_002")  # the state four steps into it is still there
    resumed = []
    start_of = step.fit
    monkeypatch.setattr(step, "fit", lambda state, *rest: resumed.append(int(state.step)) or start_of(state, *rest))
    continual.run(config, directory)
    assert resumed == [4]
    assert_alike(read_progress, directory, whole)


# ------------------------------------------------------------------------------------------------------------- devices


def all_of_them(settings, folder):
    """Every method's run, one after the other, by one of several processes."""
    for name, own in settings.items():
        start({**own, "distributed": True}, Path(folder) / name)
    assert (jax.process_count(), jax.device_count()) == (2, 8)


@pytest.mark.slow
def test_two_processes_with_eight_devices_give_the_recall_of_one_and_its_losses(finished, small_settings, tmp_path):
    settings = {name: {**small_settings, **settings_of(name)} for name in SPREAD}
    folders = [tmp_path / f"run{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    with Together(tmp_path, [calling(all_of_them, settings, folder) for folder in folders], devices=4) as together:
        for process in together.ended():
            assert process.status == 0, process.err
    for name in SPREAD:
        _, directory, results, _ = finished(name)
        found = json.loads((folders[0] / name / "results.json").read_text())
        assert recall(found) == recall(results)
        one, eight = logged(directory), logged(folders[0] / name)
        assert [line["step"] for line in one] == [line["step"] for line in eight]
        for own, line in zip(eight, one, strict=True):
            assert own["loss"] == pytest.approx(line["loss"], rel=1e-4, abs=1e-5)
