"""Whole runs of instruction following: what they leave, killed, served, and what is refused before them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import lpi_jax
from lpi_jax import config as configs
from lpi_jax import report
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.problems.saved import read
from lpi_jax.run import continual
from lpi_jax.run.log import DIGITS
from lpi_jax.workdir.checkpoint import Checkpoints
from tests.support.together import PATIENCE, ROOT, Together, calling

STEPS = 4  # of a task; a state is saved after two
TASKS = ["count", "larger", "presence"]


def logged(directory):
    """What every step logged, but for the clock."""
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in DIGITS} for line in lines]


# ---- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_learns_every_task_and_its_results_are_whole(answered_run):
    results = answered_run.results
    assert json.loads((answered_run.directory / "results.json").read_text()) == results
    assert (results["problem"], results["method"], results["tasks"]) == ("instruction", "modalprompt", TASKS)
    assert results["tasks_to_come"] == []
    assert list(results["metrics"]) == ["accuracy", "released_accuracy"]
    for metric in results["metrics"].values():
        assert [len(row) for row in metric["matrix"]] == [1, 2, 3]
        assert [len(row) for row in metric["frozen"]["matrix"]] == [1, 2, 3]
        low, high = metric["bootstrap"]["interval"]
        assert low <= metric["final_average"] <= high
        assert list(metric["bootstrap"]["over"]) == ["frozen"]
        assert [len(row) for row in metric["chance"]["matrix"]] == [1, 2, 3]
        assert all(0 < value <= 100 for value in metric["chance"]["matrix"][-1])
    sent = results["routing"]["sample"]
    assert [len(row) for row in sent["matrix"]] == [1, 2, 3]
    assert np.sum(sent["confusion"]["matrix"]) == 3 * 6
    assert len(sent["among"]) == 3
    assert all(one >= best for one, best in zip(sent["among"], sent["matrix"][-1], strict=True))
    assert results["items"] == {"sample": {"label": "samples", "train": [16] * 3, "val": [6] * 3}}
    assert results["prompt_sets"]["tokens"] == 2 * 3
    assert results["parameters"]["trained"] == 3 * results["parameters"]["per_task"]
    assert results["counts"]["steps"] == [STEPS] * 3
    assert "answered with what the method chooses" in results["protocol"]
    losses = logged(answered_run.directory)
    assert [line["step"] for line in losses] == list(range(1, 3 * STEPS + 1))
    assert all({"next_token", "align_image", "align_text"} <= line.keys() for line in losses)
    for task in TASKS:
        first, *_, last = [line["loss"] for line in losses if line["task_name"] == task]
        assert last < first


def test_the_report_shows_the_run_in_its_own_words(answered_run):
    table = report.table([answered_run.directory])
    assert "answers, n = 18" in table
    assert "| MODALPROMPT intended | 1 | final |" in table
    assert not any(word in table for word in ("image to text", "R@1", "captions"))


def test_a_run_on_the_command_line_says_how_it_stands_in_words_of_answers(asked_settings, compiled, tmp_path):
    config = tmp_path / "asked.py"
    config.write_text(
        "from lpi_jax import config\n\n\ndef get_config():\n    return config.preset('intended', 'modalprompt')\n"
    )
    settings = {**asked_settings, "data.tasks": ("count",)}
    flags = [
        f"--config.{key}={','.join(value) if isinstance(value, tuple) else value}" for key, value in settings.items()
    ]
    command = [sys.executable, "-m", "lpi_jax.main", f"--config={config}", f"--workdir={tmp_path / 'run'}", *flags]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "after count: accuracy answers" in done.stderr + done.stdout
    assert "routed right: samples 100.0 %" in done.stderr + done.stdout


# ---- served ----------------------------------------------------------------------------------------------------------


def test_a_run_answers_as_it_was_measured_and_tells_whose_prompts_it_used(answered_run, asked_experiment):
    model = lpi_jax.load(answered_run.directory)
    assert model.tasks == tuple(TASKS)
    (path,) = (answered_run.directory / "features").glob("task_*")
    own = read(path)
    known = {tuple(key): tokens for key, tokens in zip(own["stream.known"].tolist(), own["stream.tokens"], strict=True)}
    number = 0
    for task in stream_of(answered_run.config, 32).tasks:
        for index in range(0, 6, 3):
            record = task.val.records[index]
            answer = model.answer(task.val.load(index) if record.has_image else None, record.turns[0][0])
            tokens = known[number + index, int(own["stream.ids"][number + index])]
            assert str(answer) == answer.text == asked_experiment.problem.texts.said(tokens[None])[0]
            chosen = [TASKS.index(name) for name in answer.tasks]
            assert chosen == own["stream.chosen"][number + index].tolist()
            ranked = sorted(answer.scores, key=answer.scores.get)
            assert ranked[-2:] == list(answer.tasks)
        number += 6


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        (None, "", "the question is '', expected text"),
        (None, 3, "the question is 3, expected text"),
        (None, "What is <image> this?", "expected text, and <image> at most once and for an image"),
        (np.zeros((4, 4, 3), np.uint8), "<image> <image>", "expected text, and <image> at most once and for an image"),
        (None, "a \ud800 b", "half of a surrogate pair, expected whole characters"),
        ([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], "What?", "an image is a list of rows that differ"),
        (np.zeros((2, 2)), "What?", "an image is float64 (2, 2), expected uint8 (height, width, 3)"),
        ("nosuch.png", "What?", "nosuch.png"),
    ],
)
def test_what_cannot_be_answered_is_refused(answered_run, image, question, message):
    model = lpi_jax.load(answered_run.directory)
    with pytest.raises(UserError) as refused:
        model.answer(image, question)
    assert message in str(refused.value)


def test_the_mark_of_the_image_may_stand_in_a_question_as_in_training_files(answered_run):
    model, picture = lpi_jax.load(answered_run.directory), np.full((40, 30, 3), 90, np.uint8)
    assert model.answer(picture, "<image>\nIs there a box?") == model.answer(picture, "Is there a box?")


# ---- in several processes --------------------------------------------------------------------------------------------


def in_one_of_two(settings, directory):
    config = configs.preset("intended", "modalprompt")
    config.update_from_flattened_dict({**settings, "distributed": True})
    continual.run(config, Path(directory))
    assert (jax.process_count(), jax.device_count()) == (2, 4)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 4])
def test_two_processes_with_four_devices_choose_and_answer_as_one(
    fsdp, answered_run, asked_settings, compiled, tmp_path
):
    settings = {**asked_settings, "fsdp": fsdp}
    commands = [calling(in_one_of_two, settings, tmp_path / f"run{number}") for number in range(2)]
    with Together(tmp_path, commands, devices=2, **compiled) as together:
        for process in together.ended():
            assert process.status == 0, process.err
    found = json.loads((tmp_path / "run0" / "results.json").read_text())
    assert found["routing"] == answered_run.results["routing"]
    for metric in ("accuracy", "released_accuracy"):
        assert found["metrics"][metric]["matrix"] == answered_run.results["metrics"][metric]["matrix"]
    asked = []
    for directory in (answered_run.directory, tmp_path / "run0"):
        rows = json.loads((directory / "answers.json").read_text())["samples"]
        asked.append([[row[key] for key in ("task", "sample", "question", "picture")] for row in rows])
    assert asked[0] == asked[1]
    assert not (tmp_path / "run1" / "answers.json").exists()
    one, several = logged(answered_run.directory), logged(tmp_path / "run0")
    assert [line["step"] for line in one] == [line["step"] for line in several]
    for own, line in zip(several, one, strict=True):
        assert own["loss"] == pytest.approx(line["loss"], rel=1e-4, abs=1e-5), line["step"]


# ---- interrupted -----------------------------------------------------------------------------------------------------


def killed(settings, directory):
    """Runs until SIGKILL, in the second task, two steps behind the state that was saved inside it."""
    save = Checkpoints.save_inside

    def kill_instead(self, number, step, state, flops):
        if (number, step) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, number, step, state, flops)

    Checkpoints.save_inside = kill_instead
    config = configs.preset("intended", "modalprompt")
    config.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    continual.run(config, directory)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    answered_run, asked_settings, compiled, read_progress, decided, tmp_path
):
    command = [sys.executable, *calling(killed, asked_settings, tmp_path / "run")]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "run" / "checkpoints").glob("task_*"))) == 2
    assert_alike(answered_run, tmp_path / "run", read_progress, decided)


@pytest.mark.parametrize("lost", [("task_003", "inside"), ("task_002", "task_003", "inside", "features")])
def test_from_a_boundary_a_run_goes_on_to_the_same_bits(lost, answered_run, read_progress, decided, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(answered_run.directory, directory)
    for name in ("results.json", "answers.json"):
        (directory / name).unlink()
    for name in lost:
        shutil.rmtree(directory / ("" if name == "features" else "checkpoints") / name, ignore_errors=True)
    for path in (directory / "features").glob("task_*"):
        path.unlink()
    assert_alike(answered_run, directory, read_progress, decided)


def assert_alike(run, directory, read_progress, decided):
    """Taken up again, the run in `directory` ends as the other did."""
    assert decided(continual.run(run.config, directory)) == decided(run.results)
    assert logged(directory) == logged(run.directory)
    assert (directory / "answers.json").read_bytes() == (run.directory / "answers.json").read_bytes()
    ours, theirs = read_progress(directory), read_progress(run.directory)
    assert ours.stages == theirs.stages
    jax.tree.map(np.testing.assert_array_equal, ours.memory, theirs.memory)


def test_a_damaged_file_of_answers_is_named(answered_run, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(answered_run.directory, directory)
    (directory / "results.json").unlink()
    shutil.rmtree(directory / "checkpoints" / "task_003")
    (path,) = (directory / "features").glob("task_*")
    path.rename(damaged := path.with_name("task_002.json"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match=r"task_002\.json cannot be read .*; delete the folder .* to have it computed"):
        continual.run(answered_run.config, directory)


# ---- other methods, other ways ---------------------------------------------------------------------------------------


def test_the_frozen_model_answers_without_being_asked_twice(make_asked, answered_run, tmp_path):
    config = make_asked({"method.name": "zero_shot", "routing.centres": 2})
    results = continual.run(config, tmp_path / "run")
    for name, metric in results["metrics"].items():
        assert metric["matrix"] == metric["frozen"]["matrix"]
        assert metric["matrix"] == answered_run.results["metrics"][name]["frozen"]["matrix"]
    assert results["routed"] == "none"
    assert np.sum(results["routing"]["sample"]["confusion"]["matrix"]) == 18
    answer = lpi_jax.load(tmp_path / "run").answer(None, "2 + 2?")
    assert len(answer.tasks) == 1
    assert answer.scores == {}


@pytest.mark.parametrize("name", ["finetune", "lora", "o_lora", "moe_lora", "replay"])
def test_methods_that_change_the_model_itself_run_too(name, make_asked, tmp_path):
    changes = {"method.name": name, "data.tasks": ("count", "larger"), "train.lr": 1e-3}
    changes |= {"method.buffer": 6, "method.replayed": 4} if name == "replay" else {}
    results = continual.run(make_asked(changes), tmp_path / "run")
    assert results["routing"] == {}
    assert [len(row) for row in results["metrics"]["accuracy"]["matrix"]] == [1, 2]
    assert lpi_jax.load(tmp_path / "run").answer(None, "2 + 2?").tasks == ("larger",)


def test_what_is_measured_ahead_and_beside_the_stream_is_in_the_results(make_asked, tmp_path):
    probe = {"name": "questions", "tasks": ("place",)}
    changes = {"eval.future": True, "eval.probes": (probe,), "task_id": "oracle", "data.tasks": ("count", "larger")}
    results = continual.run(make_asked(changes), tmp_path / "run")
    accuracy = results["metrics"]["accuracy"]
    assert [len(row) for row in accuracy["future"]["matrix"]] == [2, 2]
    assert accuracy["future"]["matrix"][-1] == accuracy["matrix"][-1]
    assert results["probes"]["questions"]["accuracy"]["frozen"] >= 0
    assert len(results["probes"]["questions"]["accuracy"]["values"]) == 2
    assert results["routed"] == "given"


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method.name": "lpi"},
            "config.method.name is 'lpi', which prompts vision and text, but config.problem.name",
        ),
        (
            {"method.name": "l2p"},
            "config.method.name is 'l2p', which prompts vision and text, but config.problem.name",
        ),
        ({"data.name": "scenes"}, "config.data: the source 'scenes' has captions, but config.problem.name=instruction"),
        (
            {"eval.probes": ({"name": "scenes"},)},
            "config.eval.probes[0]: the source 'scenes' has captions, but config.problem.name=instruction asks for",
        ),
        ({"method.prompts": 200}, "config.method.sets is 2 and config.method.prompts 200, but the language model has"),
        ({"train.held_out": 0.5}, "config.train.held_out is 0.5, but modalprompt as configured cannot leave a task"),
        ({"problem.clip": "nosuch/clip/here"}, "nosuch/clip/here"),
        ({"eval.batch": 0}, "config.eval.batch is 0, expected"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changes, message, make_asked, tmp_path):
    with pytest.raises(UserError) as refused:
        continual.run(make_asked(changes), tmp_path / "run")
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_instructions_cannot_be_asked_of_retrieval(make_config, tmp_path):
    with pytest.raises(
        UserError, match=r"^config\.data: the source 'questions' has instructions, but config\.problem\.n"
    ):
        continual.run(make_config({"data.name": "questions", "data.domains": ()}), tmp_path / "run")


def test_modalprompt_needs_a_language_model(make_config, tmp_path):
    with pytest.raises(
        UserError, match=r"^config\.method\.name is 'modalprompt', which prompts language, but config\.p"
    ):
        continual.run(make_config({"method.name": "modalprompt"}), tmp_path / "run")
