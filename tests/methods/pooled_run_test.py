"""Whole runs of l2p and replay: killed and gone on with, on several devices and processes, and served."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import lpi_jax
from lpi_jax import config as configs
from lpi_jax.data.captioned import spoken
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.methods import replay
from lpi_jax.run import boundary, continual, task
from lpi_jax.workdir.checkpoint import Checkpoints
from tests.support.together import PATIENCE, ROOT, Together, calling

METHODS = {
    "l2p": {"method.pool": 4, "method.prompt_length": 2, "method.chosen": 2},
    "replay": {"method.buffer": 10, "method.replayed": 4, "train.lr": 0.01},
}
POINTS = ("inside", "boundary")
PAIRS = 48  # of a task's training split
STEPS = {"l2p": [6, 6], "replay": [6, 8]}  # twelve rows of the second task's own


@pytest.fixture(scope="module")
def settings(small_settings) -> dict[str, dict[str, Any]]:
    """By method the configuration's changes: two tasks, two epochs."""
    two = {**small_settings, "data.domains": ("comic", "fax")}
    return {name: {**two, "method.name": name, **own} for name, own in METHODS.items()}


@pytest.fixture(scope="module", params=list(METHODS))
def whole(request, settings, make_config, tmp_path_factory):
    """A method's name, configuration, folder and results of a run that nothing disturbed, and the plans of its data."""
    directory, plans, make = tmp_path_factory.mktemp(request.param) / "run", [], task.batches.training_batches
    config = make_config(settings[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.batches, "training_batches", lambda plan, *place: plans.append(plan) or make(plan, *place))
        results = continual.run(config, directory)
    return request.param, config, directory, results, plans


def metrics(directory: Path) -> list[dict[str, Any]]:
    """What every step logged, but for the clock."""
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("pairs_per_second", "data_wait")} for line in lines]


def changed(settings: dict[str, Any]) -> Any:
    """The configuration in another process."""
    config = configs.intended()
    config.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    return config


# ---- killed ----------------------------------------------------------------------------------------------------------


def killed(settings: dict[str, Any], directory: str, point: str) -> None:
    """Runs until SIGKILL: two steps behind the state saved inside the second task, or before a boundary's results."""

    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    save = Checkpoints.save_inside
    if point == "inside":
        Checkpoints.save_inside = lambda self, number, step, state: (
            kill() if (number, step) == (1, 4) else save(self, number, step, state)
        )
    else:
        boundary.publish = kill
    continual.run(changed(settings), directory)


@pytest.fixture(scope="module")
def remains(settings, compiled, tmp_path_factory):
    """(method) -> by point the folder of a run that was killed there; both at once, with the programs that are kept."""

    def run(name: str) -> dict[str, Path]:
        folder = tmp_path_factory.mktemp("killed")
        begun = {}
        for point in POINTS:
            command = [sys.executable, *calling(killed, settings[name], folder / point, point)]
            environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
            with open(folder / f"{point}.err", "wb") as errors:
                begun[point] = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors)
        statuses = {point: process.wait(PATIENCE) for point, process in begun.items()}
        assert statuses == dict.fromkeys(POINTS, -signal.SIGKILL), (folder / "inside.err").read_text()
        return {point: folder / point for point in POINTS}

    return run


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(whole, remains, decided, read_progress):
    name, config, directory, results, _ = whole
    expected = read_progress(directory)
    for point, there in remains(name).items():
        finished = [path.name for path in (there / "checkpoints").glob("task_*")]
        assert (finished, (there / "results.json").exists()) == (["task_001"], point == "inside")
        assert len(metrics(there)) == {"inside": STEPS[name][0] + 4, "boundary": STEPS[name][0]}[point]
        assert decided(continual.run(config, there)) == decided(results)
        assert metrics(there) == metrics(directory)
        found = read_progress(there)
        assert found.names == expected.names
        jax.tree.map(np.testing.assert_array_equal, found.memory, expected.memory)


# ---- on several devices and in several processes ---------------------------------------------------------------------


def in_one_of_several(settings: dict[str, dict[str, Any]], folder: str) -> None:
    """A run of every method, as one of several processes."""
    for name, changes in settings.items():
        continual.run(changed({**changes, "distributed": True}), Path(folder) / name)


@pytest.fixture(scope="module")
def spread(settings, compiled, tmp_path_factory) -> Path:
    """The folder of runs in two processes with four devices each."""
    folder = tmp_path_factory.mktemp("spread")
    commands = [calling(in_one_of_several, settings, folder)] * 2
    with Together(folder, commands, devices=4, **compiled) as together:
        ended = together.ended()
    assert [process.status for process in ended] == [0, 0], ended
    return folder


@pytest.mark.slow
def test_eight_devices_of_two_processes_give_the_recall_of_one(whole, spread):
    name, _, directory, results, _ = whole
    found = json.loads((spread / name / "results.json").read_text())
    assert {k: metric["matrix"] for k, metric in found["metrics"].items()} == {
        k: metric["matrix"] for k, metric in results["metrics"].items()
    }
    assert found["counts"] == results["counts"]
    for own, line in zip(metrics(spread / name), metrics(directory), strict=True):
        for term in line.keys() & {"loss", "retrieval", "keys"}:
            assert own[term] == pytest.approx(line[term], rel=1e-5, abs=1e-5)


# ---- what a run holds ------------------------------------------------------------------------------------------------


def test_steps_memory_and_results_are_the_methods_own(whole, read_progress):
    name, _, directory, results, plans = whole
    memory = read_progress(directory).memory
    assert results["counts"]["steps"] == STEPS[name]
    assert memory["stage"] == 1
    assert results["parameters"]["trained"] == sum(leaf.size for leaf in jax.tree.leaves(memory["trained"]))
    assert (results["routed"], results["routing"]) == ("none", {})
    assert [plan.number for plan in plans] == [0, 1]
    if name == "l2p":
        assert results["parameters"]["trained"] == 4 * (2 * 32 + 16) + 4 * (2 * 24 + 16)
        assert all("keys" in line for line in metrics(directory))
        assert [len(plan.buffer) for plan in plans] == [0, 0]
    else:
        first = replay.shared_out(plans[0].buffer, 0, PAIRS, 10, seed=0)
        np.testing.assert_array_equal(plans[1].buffer, first)
        np.testing.assert_array_equal(memory["buffer"], replay.shared_out(first, 1, PAIRS, 10, seed=0))
        assert [plan.own for plan in plans] == [16, 12]


def test_a_run_is_served_as_it_was_evaluated(whole):
    _, config, directory, _, _ = whole
    model = lpi_jax.load(directory)
    splits = [one.val for one in stream_of(config, 32).tasks]
    images = model.encode_image(split.load(i) for split in splits for i in range(len(split)))
    captions = model.encode_text(words for split in splits for words in spoken(split))
    with np.load(directory / "features" / "task_002.npz") as kept:
        for found, side in ((images, "images"), (captions, "captions")):
            np.testing.assert_allclose(found, kept[f"{side}.features"], atol=1e-6)
            assert np.abs(found - kept[f"{side}.plain"]).max() > 1e-3
            assert len(model.tasks) == 2
