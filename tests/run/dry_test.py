"""A dry run: tells what a run does, as the run then does it, and writes nothing."""

import shutil

import pytest

from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.run import dry
from tests.support.disks import snapshot


def test_it_tells_the_steps_and_numbers_that_the_run_has_and_writes_nothing(make_config, finished_run, tmp_path):
    told = dry.tell(make_config(), tmp_path / "run")
    assert [*tmp_path.iterdir()] == []
    result = finished_run.results
    rows = [line.strip("| ").split(" | ") for line in told.splitlines() if line.startswith("| ") and "--" not in line]
    assert rows[0] == ["task", "training examples", "validation images", "validation captions", "steps"]
    assert [row[0] for row in rows[1:]] == result["tasks"]
    assert [row[-1] for row in rows[1:]] == ["6"] * 3
    assert f"A task trains {result['parameters']['per_task']:,} numbers." in told
    assert "Training: 18 steps, 0:0" in told
    per_step = result["training_flops"][0] / 6
    assert f" s, {per_step / 1e9:.3g} GFLOP" in told
    assert f"Directory: {tmp_path / 'run'}, where this run has not begun." in told


def test_a_finished_run_and_one_that_can_go_on_are_told_and_left_as_they_are(copied_run):
    before = snapshot(copied_run.directory)
    told = dry.tell(copied_run.config, copied_run.directory)
    assert "holds this run, finished: there is nothing left to do." in told
    assert "Training" not in told
    assert snapshot(copied_run.directory) == before
    shutil.rmtree(copied_run.directory / "checkpoints" / "task_003")
    shutil.rmtree(copied_run.directory / "checkpoints" / "inside")
    told = dry.tell(copied_run.config, copied_run.directory)
    assert "holds this run behind 2 tasks and 12 steps." in told
    assert "Training: 6 steps" in told


def test_where_nothing_is_trained_no_step_is_told(make_config, tmp_path):
    told = dry.tell(make_config({"method.name": "zero_shot"}), tmp_path / "run")
    assert told.splitlines()[-1] == "Nothing is trained."
    assert "step of the first task" not in told


def test_what_a_run_refuses_a_dry_run_refuses(make_config, tmp_path):
    with pytest.raises(UserError, match="too few for a batch"):
        dry.tell(make_config({"train.batch": 4096}), tmp_path / "run")


def test_the_flag_stands_anywhere_on_the_command_line(small_settings, compiled, tmp_path, capsys):
    file = tmp_path / "small.py"
    file.write_text(
        "from lpi_jax import config as configs\n\n\ndef get_config():\n    config = configs.intended()\n"
        f"    config.update_from_flattened_dict({small_settings!r})\n    return config\n"
    )
    workdir = tmp_path / "run"
    assert main(["lpi_jax.main", "--dry-run", f"--config={file}", f"--workdir={workdir}"]) == 0
    assert "Training: 18 steps" in capsys.readouterr().out
    assert not workdir.exists()
