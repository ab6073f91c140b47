"""The loop: one compiled step, tasks that stay as they were learnt, and starts that go on where another ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lpi_jax.check import refusals
from lpi_jax.errors import UserError
from lpi_jax.experiment import experiment as parts
from lpi_jax.methods import lpi
from lpi_jax.methods import memory as memories
from lpi_jax.models import weights
from lpi_jax.problems.retrieval import assemble
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.run import continual
from lpi_jax.run import task as tasks
from lpi_jax.train import step as train
from lpi_jax.workdir import checkpoint

ROOT = Path(__file__).parents[2]
STEPS = 6  # of a task of the finished run
KINDS = ("image", "text")


def metrics(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def terms(lines):
    """The loss terms by step."""
    return {line["step"]: {name: line[name] for name in ("loss", "retrieval", "align", "task")} for line in lines}


def matrices(results, kind=None):
    """metric -> matrix; kind "frozen": of the backbone without the method, "chance": of a guess, where it is known."""
    found = {name: metric for name, metric in results["metrics"].items() if not kind or kind in metric}
    return {name: (metric[kind] if kind else metric)["matrix"] for name, metric in found.items()}


@pytest.fixture
def use_stream(monkeypatch):
    """(stream) -> None: every configuration builds this one."""
    return lambda stream: monkeypatch.setattr(parts, "stream_of", lambda config, size: stream)


@pytest.fixture
def steps_made(monkeypatch):
    """The steps that runs make from now on."""
    made, make = [], train.make_step
    monkeypatch.setattr(train, "make_step", lambda *arguments: made.append(make(*arguments)) or made[-1])
    return made


# ------------------------------------------------------------------------------------------------- what a run leaves


def test_a_run_leaves_its_record_every_step_once_and_a_matrix_per_direction_and_k(finished_run):
    _, directory, results = finished_run
    assert results == json.loads((directory / "results.json").read_text())
    assert results["tasks"] == ["comic", "fax", "aerial"]
    assert results["tasks_to_come"] == []
    for kind in (None, "frozen", "chance"):
        labels = ("R@1", "R@5", "R@10", "MRR", *(() if kind == "chance" else ("median rank",)))
        assert set(matrices(results, kind)) == {
            f"{direction}/{label}" for direction in ("image_to_text", "text_to_image") for label in labels
        }
        assert all([len(row) for row in matrix] == [1, 2, 3] for matrix in matrices(results, kind).values())
    assert [line["step"] for line in metrics(directory)] == list(range(1, 3 * STEPS + 1))
    assert [line["epoch"] for line in metrics(directory)] == [1, 1, 1, 2, 2, 2] * 3
    assert [line["task_name"] for line in metrics(directory)] == ["comic"] * 6 + ["fax"] * 6 + ["aerial"] * 6
    assert results["counts"]["steps"] == [STEPS] * 3
    assert results["items"]["text"]["train"] == [48] * 3
    assert sorted(path.name for path in (directory / "checkpoints").glob("task_*")) == [
        "task_001",
        "task_002",
        "task_003",
    ]
    assert len(list((directory / "checkpoints" / "inside").glob("step_*"))) == 1
    assert sorted(path.name for path in (directory / "features").iterdir()) == ["pieces", "task_003.json"]


def test_finished_tasks_in_memory_keep_their_bits(finished_run, read_progress):
    last = read_progress(finished_run.directory).memory
    checkpoints = checkpoint.Checkpoints(finished_run.directory)
    for count in (1, 2, 3):
        found, _ = checkpoints.load_task(count)
        jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(lambda leaf, n=count: leaf[:n], last))


def test_training_changes_every_prompt_and_no_weight_of_the_backbone(
    make_config, read_progress, toy_stream, use_stream, monkeypatch, tmp_path
):
    config = make_config({"train.checkpoint_every": 1})
    use_stream(toy_stream(2))
    experiment = parts.assemble(config)
    sizes, save = [], checkpoint.Checkpoints.save_inside

    def save_and_note(self, task, step, state, flops):
        sizes.append(sum(leaf.size for leaf in jax.tree.leaves(state)))
        save(self, task, step, state, flops)

    monkeypatch.setattr(continual, "assemble", lambda config: experiment)
    monkeypatch.setattr(checkpoint.Checkpoints, "save_inside", save_and_note)
    continual.run(config, tmp_path)
    assert weights.fingerprint(experiment.backbone.params) == experiment.backbone.hashes["backbone"]
    memory = read_progress(tmp_path).memory
    for number in range(2):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        begun = lpi.init(experiment.method.options, experiment.problem.sites, key)
        trained = memories.row(memory["trained"], number)
        jax.tree.map(lambda old, new: np.testing.assert_(not np.any(old == new)), begun, trained)
    # A state inside a task: the prompts' factors, the momentum of each, and the number of the step.
    prompts = sum(leaf.size for leaf in jax.tree.leaves(begun))
    assert sizes == [2 * prompts + 1] * 2
    assert memory.keys() == {"trained", "image_centres", "text_centres", "descriptions"}


# ---------------------------------------------------------------------------------------- any number of tasks, one step


def test_one_compilation_serves_a_stream_and_a_second_one_more_tasks_than_there_was_room_for(
    make_config, toy_stream, use_stream, steps_made, read_progress, monkeypatch, tmp_path
):
    compilations = []
    train_one = tasks.Trainer.train

    def spied(self, task, memory):
        trained = train_one(self, task, memory)
        compilations.append(len(steps_made[0].run.programs))
        return trained

    monkeypatch.setattr(tasks.Trainer, "train", spied)
    use_stream(toy_stream(20, val=2))
    config = make_config({"train.epochs": 1})
    results = continual.run(config, tmp_path)
    assert compilations == [1] * 16 + [2] * 4
    assert len(steps_made) == 1
    assert len(results["tasks"]) == 20
    assert len(matrices(results)["image_to_text/R@1"][-1]) == 20
    progress = read_progress(tmp_path)
    assert progress.count == 20
    assert all(len(np.unique(leaf, axis=0)) == 20 for leaf in jax.tree.leaves(progress.memory["trained"]))


def test_captions_of_other_lengths_are_the_only_other_reason_to_compile(
    make_config, toy_stream, use_stream, steps_made, tmp_path
):
    stream = toy_stream(2)
    longer = toy_stream(1, words="zigzag vortex picture with many more words in it {} {} {}").tasks[0]
    tasks = (*stream.tasks, *(longer.__class__(f"longer {n}", f"long {n}", longer.train, longer.val) for n in range(2)))
    use_stream(stream.__class__("mixed", tasks, "mixed"))
    continual.run(make_config({"data.max_words": 30}), tmp_path)
    assert len(steps_made[0].run.programs) == 2


# -------------------------------------------------------------------------------------------------- tasks and losses


def test_a_stream_without_negatives_trains_without_nan(make_config, toy_stream, use_stream, read_progress, tmp_path):
    use_stream(toy_stream(3, description="all the same".format))
    config = make_config()
    results = continual.run(config, tmp_path)
    assert np.array(results["similarity"]).min() > config.method.threshold
    lines = metrics(tmp_path)
    assert len(lines) == 3 * 2
    assert all(np.isfinite(list(found.values())).all() for found in terms(lines).values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(read_progress(tmp_path).memory["trained"]))


def test_a_loss_that_is_not_a_number_ends_the_run_in_one_sentence(make_config, toy_stream, use_stream, tmp_path):
    use_stream(toy_stream(2))
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in task 'toy 0' after .* config\.train\.lr of 1e\+30"):
        continual.run(make_config({"train.lr": 1e30}), tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_prompts_that_the_very_last_step_ruined_are_not_remembered(
    make_config, toy_stream, use_stream, monkeypatch, tmp_path
):
    use_stream(toy_stream(1))
    fit = train.fit

    def ruined(*arguments):
        state = fit(*arguments)
        return state._replace(trainable=jax.tree.map(lambda leaf: leaf * np.nan, state.trainable))

    monkeypatch.setattr(train, "fit", ruined)
    with pytest.raises(UserError, match=r"step \d+ of task 'toy 0' ended in numbers that are not finite"):
        continual.run(make_config(), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("task_*"))


# ------------------------------------------------------------------------------------------------------ ways to measure


def test_the_zero_shot_method_is_the_zero_shot_columns_of_an_lpi_run(finished_run, make_config, tmp_path):
    results = continual.run(make_config({"method.name": "zero_shot"}), tmp_path)
    assert matrices(results) == matrices(finished_run.results, "frozen")
    assert matrices(results, "frozen") == matrices(finished_run.results, "frozen")
    assert results["parameters"]["trained"] == results["parameters"]["per_task"] == 0
    assert results["counts"]["steps"] == [0, 0, 0]
    assert matrices(results) != matrices(finished_run.results)


def test_with_the_true_task_given_all_routing_is_right(finished_run, make_config, tmp_path):
    config = make_config({"task_id": "oracle", "reuse": str(finished_run.directory)})
    results = continual.run(config, tmp_path)
    for kind in KINDS:
        assert results["routing"][kind]["matrix"] == [[100.0], [100.0] * 2, [100.0] * 3]
        assert finished_run.results["routing"][kind]["final_average"] < 100
    assert matrices(results, "frozen") == matrices(finished_run.results, "frozen")


def test_a_gallery_of_the_own_task_is_never_harder_than_that_of_all(finished_run, make_config, tmp_path):
    config = make_config({"eval.gallery": "task", "reuse": str(finished_run.directory)})
    own, union = continual.run(config, tmp_path), finished_run.results
    for key, matrix in matrices(own).items():
        better = 1 if own["metrics"][key]["higher_is_better"] else -1
        for easier, harder in zip(matrix, matrices(union)[key], strict=True):
            assert np.all(better * np.array(easier) >= better * np.array(harder) - 1e-9)
        assert matrix[0] == matrices(union)[key][0]
    assert own["routing"] == union["routing"]
    assert matrices(own) != matrices(union)


# ------------------------------------------------------------------------------------------------------- another start


def test_a_finished_run_returns_its_results_without_training_or_encoding(copied_run, decided, monkeypatch):
    def never(*arguments):
        raise AssertionError("a finished run has nothing left to do")

    for owner, name in ((tasks.Trainer, "train"), (Encoder, "images"), (Encoder, "texts")):
        monkeypatch.setattr(owner, name, never)
    shutil.rmtree(copied_run.directory / "features")
    (copied_run.directory / "results.json").unlink()
    results = continual.run(copied_run.config, copied_run.directory)
    assert decided(results) == decided(copied_run.results)
    assert results["seconds"] == copied_run.results["seconds"]
    assert json.loads((copied_run.directory / "results.json").read_text()) == results
    assert len(metrics(copied_run.directory)) == 3 * STEPS


def test_another_configuration_in_the_same_directory_changes_nothing_there(copied_run, make_config):
    before = {path: path.read_bytes() for path in copied_run.directory.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"config\.train\.lr is 0\.05 there and 0\.1 here"):
        continual.run(make_config({"train.lr": 0.1}), copied_run.directory)
    assert {path: path.read_bytes() for path in copied_run.directory.rglob("*") if path.is_file()} == before


def test_a_damaged_last_boundary_is_named_and_without_it_the_run_goes_on_from_the_one_before(copied_run, decided):
    folder, learnt = copied_run.directory / "checkpoints" / "task_003", terms(metrics(copied_run.directory))
    largest = max((folder / "memory" / "d").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(
        UserError, match=f"checkpoint {folder} cannot be read .* delete it to go on from the one before"
    ):
        continual.run(copied_run.config, copied_run.directory)
    shutil.rmtree(folder)
    # The features of that boundary are gone since the next one was saved: they are computed again.
    assert [path.name for path in (copied_run.directory / "features").glob("task_*")] == ["task_003.json"]
    assert decided(continual.run(copied_run.config, copied_run.directory)) == decided(copied_run.results)
    assert terms(metrics(copied_run.directory)) == learnt


def test_damaged_features_are_named(copied_run):
    shutil.rmtree(copied_run.directory / "checkpoints" / "task_003")
    path = copied_run.directory / "features" / "task_002.json"
    path.write_bytes(b'{"stream.images.task": ')
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        continual.run(copied_run.config, copied_run.directory)


def test_captions_that_were_cut_are_counted_once_however_often_the_run_starts(
    make_config, toy_stream, use_stream, monkeypatch, tmp_path
):
    use_stream(toy_stream(2, words="{} {} {}" + " word" * 95))
    config = make_config({"data.max_words": 100, "method.name": "zero_shot"})
    whole = continual.run(config, tmp_path / "whole")
    assert whole["counts"]["texts_cut"] == sum(whole["items"]["text"]["train"] + whole["items"]["text"]["val"])
    train_one = tasks.Trainer.train

    def interrupted(self, task, memory):
        if task.number == 1:
            raise KeyboardInterrupt
        return train_one(self, task, memory)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.Trainer, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            continual.run(config, tmp_path / "parts")
    for _ in range(2):
        assert continual.run(config, tmp_path / "parts")["counts"] == whole["counts"]


def test_a_run_asked_to_end_between_two_tasks_ends_there(make_config, toy_stream, use_stream, monkeypatch, tmp_path):
    use_stream(toy_stream(2))
    config = make_config({"method.name": "zero_shot"})
    finish = continual.finish

    def asked(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(continual, "finish", asked)
        with pytest.raises(SystemExit) as ended:
            continual.run(config, tmp_path)
    assert ended.value.code == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "results.json").read_text())["tasks_to_come"] == ["toy 1"]
    assert continual.run(config, tmp_path)["tasks"] == ["toy 0", "toy 1"]


# ------------------------------------------------------------------------------------------------------------ devices


@pytest.mark.slow
def test_eight_devices_give_the_recall_of_one_and_its_losses_to_1e_5(finished_run, small_settings, tmp_path):
    # The first two tasks do not depend on the third.
    settings = {**small_settings, "data.domains": small_settings["data.domains"][:2]}
    program = (
        "import json, sys, jax\n"
        "from lpi_jax import config as configs\n"
        "from lpi_jax.run import continual\n"
        "assert len(jax.devices()) == 8\n"
        "config = configs.intended()\n"
        "config.update_from_flattened_dict(json.loads(sys.argv[1]))\n"
        "continual.run(config, sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, json.dumps(settings), str(tmp_path / "eight")]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"}, check=True, timeout=300)
    results = json.loads((tmp_path / "eight" / "results.json").read_text())
    for kind in (None, "frozen"):
        for key, matrix in matrices(results, kind).items():
            assert matrix == matrices(finished_run.results, kind)[key][:2]
    for kind in KINDS:
        found = results["routing"][kind]["matrix"]
        assert found == finished_run.results["routing"][kind]["matrix"][:2]
    one, eight = terms(metrics(finished_run.directory)), terms(metrics(tmp_path / "eight"))
    assert list(eight) == list(range(1, 2 * STEPS + 1))
    for step, found in eight.items():
        assert found == pytest.approx(one[step], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("finished", [0, 2])
def test_a_run_that_is_not_finished_is_not_reused_and_the_check_knows_it(make_config, copied_run, tmp_path, finished):
    for number in range(finished + 1, 4):
        shutil.rmtree(copied_run.directory / "checkpoints" / f"task_{number:03d}", ignore_errors=True)
    results = {**copied_run.results, "tasks": copied_run.results["tasks"][:finished]}
    (copied_run.directory / "results.json").write_text(json.dumps(results))
    config = make_config({"task_id": "oracle", "reuse": str(copied_run.directory)})
    sentence = (
        f"config.reuse is {str(copied_run.directory)!r}, a run that has finished {finished} of the 3 tasks so far; "
    )
    with pytest.raises(UserError) as error:
        continual.run(config, tmp_path / "again")
    assert str(error.value) == f"{sentence}start again when it is done"
    assert not (tmp_path / "again").exists()
    stream = parts.stream_of(config, 32)
    assert str(error.value) in refusals.refusals(config, assemble.look(config), stream)


def test_a_run_of_other_tasks_is_not_reused(make_config, finished_run, tmp_path):
    changes = {"data.domains": ("fax", "comic"), "reuse": str(finished_run.directory)}
    with pytest.raises(UserError, match=rf"^task 1 is 'fax' here and 'comic' in the run {finished_run.directory}$"):
        continual.run(make_config(changes), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_prompts_of_another_depth_are_not_reused(make_config, finished_run, tmp_path):
    config = make_config({"method.depth": 1, "reuse": str(finished_run.directory)})
    with pytest.raises(UserError, match=r"a run with config.method.depth 2 instead of 1; use --config.method.depth=2"):
        continual.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------- sizes of batches, chains


def test_tasks_of_batches_of_their_own_train_and_go_on_with_the_same_bits(
    make_config, toy_stream, use_stream, decided, read_progress, monkeypatch, tmp_path
):
    """With another size for each task, and a chain of what may stand around the optimiser."""
    use_stream(toy_stream(2, train=8, val=2))
    changes = {"train.batches": (2, 4), "train.accumulate": 2, "train.clip_norm": 1.0, "train.warmup": 2}
    changes |= {"train.schedule": "smooth", "train.groups": (("width_", 0.5),), "train.checkpoint_every": 3}
    config, save = make_config(changes), checkpoint.Checkpoints.save_inside

    def save_and_copy(self, task, step, state, flops):
        save(self, task, step, state, flops)
        if (task, step) == (1, 3):  # what a kill here would leave
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save_inside", save_and_copy)
        whole = continual.run(config, tmp_path / "whole")
    assert whole["counts"]["steps"] == [2 * 8 // 2, 2 * 8 // 4]
    assert decided(continual.run(config, tmp_path / "killed")) == decided(whole)
    assert terms(metrics(tmp_path / "killed")) == terms(metrics(tmp_path / "whole"))
    reached = [read_progress(tmp_path / name).memory for name in ("whole", "killed")]
    jax.tree.map(np.testing.assert_array_equal, *reached)


def test_sizes_for_another_number_of_tasks_are_refused_before_anything_is_written(
    make_config, toy_stream, use_stream, tmp_path
):
    use_stream(toy_stream(2))
    for sizes, words in (
        ((4,), "config.train.batches holds 1 sizes, expected one for each of the 2 tasks"),
        ((4, 32), "task 'toy 1' has 16 training examples, too few for a batch: config.train.batches is 32; use"),
    ):
        with pytest.raises(UserError, match=f"^{words}"):
            continual.run(make_config({"train.batches": sizes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_method_is_told_whether_another_task_follows(make_config):
    experiment = parts.assemble(make_config())
    names = [task.name for task in experiment.stream.tasks]
    evaluator = SimpleNamespace(meaning=lambda text: np.ones(4, np.float32))
    told = [
        tasks.context(experiment, evaluator, SimpleNamespace(count=number, names=names[:number])).last
        for number in range(len(names))
    ]
    assert told == [False] * (len(names) - 1) + [True]
