"""Runs in several processes: stopped by a signal to one of them, gone on with by more or fewer, the same in the end."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lpi_jax.run import continual
from lpi_jax.workdir import ownership
from tests.support.together import Ended, Together, command_line

SETTINGS = {"data.domains": ("comic", "fax"), "train.epochs": 6, "train.checkpoint_every": 100}
STEPS = 18  # of a task
TERMINATED = 128 + signal.SIGTERM

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(small_settings, tmp_path_factory) -> list[str]:
    """The run on the command line, but for its --workdir."""
    return command_line(tmp_path_factory.mktemp("config"), {**small_settings, **SETTINGS})


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory) -> Path:
    """The directory of a run in one process that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    continual.run(make_config(SETTINGS), directory)
    return directory


@pytest.fixture(scope="module")
def stopped(command, tmp_path_factory) -> tuple[list[Ended], Path]:
    """How two processes ended when the second of them got SIGTERM early in the first task, and their folder.

    Each process has a --workdir of its own, `run0` and `run1`.
    """
    folder = tmp_path_factory.mktemp("stopped")
    with Together(folder, [[*command, f"--workdir={folder / f'run{number}'}"] for number in range(2)]) as together:
        together.wait_for(lambda: len(lines(folder / "run0")) >= 2)
        together.processes[1].send_signal(signal.SIGTERM)
        return together.ended(), folder


@pytest.fixture(scope="module")
def four(stopped, command, tmp_path_factory) -> tuple[list[Ended], Path]:
    """How four processes ended that went on from there, and their folder with `run0` to `run3`."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(stopped[1] / "run0", folder / "run0")
    with Together(folder, [[*command, f"--workdir={folder / f'run{number}'}"] for number in range(4)]) as together:
        return together.ended(), folder


@pytest.fixture(scope="module")
def alike(stopped, four, make_config, tmp_path_factory) -> dict[str, Path]:
    """The directories of the run that two processes began, by who went on with it."""
    directory = tmp_path_factory.mktemp("single") / "run"
    shutil.copytree(stopped[1] / "run0", directory)
    continual.run(make_config(SETTINGS), directory)
    return {"one": directory, "four": four[1] / "run0"}


def lines(directory: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = directory / "metrics.jsonl"
    found = path.read_bytes().splitlines(True) if path.exists() else []
    return [json.loads(line) for line in found if line.endswith(b"\n")]


def test_sigterm_to_one_process_saves_the_run_and_ends_all(stopped):
    ended, folder = stopped
    assert [process.status for process in ended] == [TERMINATED] * 2
    step = len(lines(folder / "run0"))
    assert 2 <= step < STEPS
    assert f"terminated inside task comic; the same command goes on from step {step}\n" in ended[0].err
    assert not (folder / "run0" / "results.json").exists()


def test_only_the_first_process_writes_and_speaks(stopped, four):
    ended, folder = four
    assert [process.status for process in ended] == [0] * 4
    assert "| LPI intended | 1 | final |" in ended[0].out
    assert ended[0].out.endswith(f"Results: {folder / 'run0'}/results.json\n")
    for ended, folder in (stopped, four):
        assert [path.name for path in folder.glob("run*")] == ["run0"]
        assert "task 1/2 comic" in ended[0].err
        for process in ended[1:]:
            assert process.err == ""
            assert all(line.startswith("[Gloo]") for line in process.out.splitlines())


@pytest.mark.parametrize("processes", ["one", "four"])
def test_a_run_of_changing_processes_has_the_results_of_one_that_was_not_disturbed(alike, whole, processes):
    found, expected = (json.loads((path / "results.json").read_text()) for path in (alike[processes], whole))
    for key in ("metrics", "routing", "items", "tasks", "counts", "parameters", "stream"):
        assert found[key] == expected[key]
    np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-6)


@pytest.mark.parametrize("processes", ["one", "four"])
def test_a_run_of_changing_processes_has_every_step_once_with_the_losses_of_one(alike, whole, processes):
    found, expected = lines(alike[processes]), lines(whole)
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(1, 2 * STEPS + 1))
    for own, line in zip(found, expected, strict=True):
        assert (own["task_name"], own["epoch"]) == (line["task_name"], line["epoch"])
        for term in ("loss", "retrieval", "align", "task"):
            assert own[term] == pytest.approx(line[term], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("processes", ["one", "four"])
def test_a_run_of_changing_processes_remembers_what_one_does(alike, whole, read_progress, processes):
    found, expected = (read_progress(path) for path in (alike[processes], whole))
    assert found.names == expected.names == SETTINGS["data.domains"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found.memory, expected.memory)


def test_the_record_tells_how_many_processes_began(alike, whole):
    for directory, processes in ((alike["four"], 2), (alike["one"], 2), (whole, 1)):
        assert ownership.read(directory)["environment"]["processes"] == processes


def test_a_folder_that_is_removed_while_two_processes_run_ends_both_in_the_same_sentence(command, tmp_path):
    directories = [tmp_path / f"run{number}" for number in range(2)]
    with Together(tmp_path, [[*command, f"--workdir={directory}"] for directory in directories]) as together:
        together.wait_for(lambda: len(lines(directories[0])) >= 1)
        shutil.rmtree(directories[0])
        ended = together.ended()
    assert [process.status for process in ended] == [2, 2]
    for process in ended:
        assert f"error: {directories[0]} was removed or moved during the run; the same command" in process.err
        assert "Traceback" not in process.err
    assert not any(directory.exists() for directory in directories)
