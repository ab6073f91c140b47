"""Runs that are disturbed: read while they are at work, on a disk that is full or read-only, in a folder that goes."""

import io
import json
import shutil
import sys
import threading

import jax
import numpy as np
import pytest

import lpi_jax
from lpi_jax import report
from lpi_jax.check import command as check
from lpi_jax.data.sources import coco
from lpi_jax.errors import UserError
from lpi_jax.experiment import experiment as parts
from lpi_jax.problems import saved
from lpi_jax.run import boundary, continual, log
from lpi_jax.workdir import checkpoint
from tests.support.disks import full, read_only, snapshot


@pytest.fixture
def quiet(monkeypatch):
    """What is said goes to memory: on a full disk nothing else could be written either."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def test_a_run_that_is_loaded_again_and_again_while_it_is_at_work_ends_as_if_nobody_looked(
    finished_run, make_config, decided, read_progress, tmp_path
):
    config = make_config({"train.checkpoint_every": 1, "train.checkpoints_kept": 1})
    seen, told, ended = set(), set(), threading.Event()

    def look():
        while not ended.is_set():
            try:
                seen.add(lpi_jax.load(tmp_path / "run").tasks)
            except UserError as error:
                told.add(str(error))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        results = continual.run(config, tmp_path / "run")
    finally:
        ended.set()
        looking.join()
    assert decided(results) == decided(finished_run.results)
    memories = [read_progress(path).memory for path in (tmp_path / "run", finished_run.directory)]
    jax.tree.map(np.testing.assert_array_equal, *memories)
    names = tuple(results["tasks"])
    assert seen
    assert seen <= {names[:count] for count in (1, 2, 3)}
    early = ("has no finished task yet", "config.json cannot be read (No such file or directory)")
    assert all(any(part in sentence for part in early) for sentence in told)


# ---- read-only -------------------------------------------------------------------------------------------------------


def test_a_finished_run_on_a_read_only_disk_gives_its_results_its_model_its_prompts_and_its_table(
    copied_run, make_config, tmp_path
):
    shutil.rmtree(copied_run.directory / "checkpoints" / "inside")  # empty folders are lost in some copies
    (copied_run.directory / "metrics.jsonl").unlink()
    before = snapshot(copied_run.directory)
    with read_only(copied_run.directory):
        with pytest.raises(OSError, match=r"Read-only file system|Permission denied"):
            (copied_run.directory / "new").write_text("")
        assert continual.run(copied_run.config, copied_run.directory) == copied_run.results
        assert lpi_jax.load(copied_run.directory).tasks == tuple(copied_run.results["tasks"])
        reusing = make_config({"reuse": str(copied_run.directory), "data.domains": ("comic", "fax")})
        assert continual.run(reusing, tmp_path / "reusing")["tasks"] == ["comic", "fax"]
        assert "| LPI intended | 1 | final |" in report.table([copied_run.directory])
    assert snapshot(copied_run.directory) == before


def test_a_run_with_something_left_to_do_on_a_read_only_disk_says_that_it_cannot(copied_run):
    shutil.rmtree(copied_run.directory / "checkpoints" / "task_003")
    shutil.rmtree(copied_run.directory / "checkpoints" / "inside")
    with read_only(copied_run.directory), pytest.raises(UserError) as error:
        continual.run(copied_run.config, copied_run.directory)
    assert str(error.value).startswith(f"--workdir is {copied_run.directory}, which cannot be used: ")


# ---- full ------------------------------------------------------------------------------------------------------------

POINTS = {
    "the log's first line": (log.Log, "terms"),
    "a state inside a task": (checkpoint.Checkpoints, "save_inside"),
    "the features of a boundary": (saved, "save"),
    "a boundary": (checkpoint.Checkpoints, "save_task"),
    "the results": (boundary, "publish"),
}


def test_a_disk_that_is_full_at_five_points_one_after_the_other_costs_nothing_but_starts(
    finished_run, decided, read_progress, monkeypatch, quiet, tmp_path
):
    for point, (owner, name) in POINTS.items():
        method = getattr(owner, name)

        def on_a_full_disk(*arguments, method=method):
            with full():
                return method(*arguments)

        with monkeypatch.context() as patch, pytest.raises(UserError) as error:
            patch.setattr(owner, name, on_a_full_disk)
            continual.run(finished_run.config, tmp_path)
        assert str(error.value) == (
            f"{tmp_path} cannot be written (File too large); the same command goes on from the last checkpoint"
        ), point
        assert not list(tmp_path.rglob("*part*")), point
    results = continual.run(finished_run.config, tmp_path)
    assert decided(results) == decided(finished_run.results)
    memories = [read_progress(path).memory for path in (tmp_path, finished_run.directory)]
    jax.tree.map(np.testing.assert_array_equal, *memories)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 19))


def test_a_report_a_check_and_a_table_of_images_on_a_full_disk_are_one_sentence(
    finished_run, monkeypatch, capsys, tmp_path
):
    small_stream = ("--config.data.domains=fax,comic", "--config.data.train=4", "--config.data.val=2")
    write = {
        "report": lambda: report.main(["", f"--out={tmp_path}", str(finished_run.directory)]),
        "check": lambda: check.main(["", "--config=configs/scenes_lpi.py", f"--out={tmp_path}", *small_stream]),
        "coco": lambda: coco.main(["manifest", f"--path={tmp_path}", f"--out={tmp_path / 'a.csv'}"]),
    }
    nothing = coco._Selection(coco.Coco("published files", (), (), {}), {}, {}, {})
    monkeypatch.setattr(coco, "_select", lambda *_: nothing)
    for name, command in write.items():
        with full():
            assert command() == 2, name
        out, err = capsys.readouterr()
        assert out == "", name
        assert err.startswith("error: "), name
        assert err.count("\n") == 1, name
        assert "File too large" in err, name
        assert str(tmp_path) in err, name
        assert list(tmp_path.iterdir()) == [], name


# ---- gone ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "all but the checkpoints"])
def test_a_folder_that_is_removed_during_the_run_is_noticed_at_the_next_boundary_and_what_is_left_can_be_gone_on_with(
    make_config, toy_stream, decided, monkeypatch, tmp_path, left
):
    directory, config = tmp_path / "run", make_config({"method.name": "zero_shot"})
    monkeypatch.setattr(parts, "stream_of", lambda config, size: toy_stream(2))
    finish = continual.finish

    def and_removed(*arguments):
        if left == "all but the checkpoints":
            shutil.rmtree(directory / "checkpoints")
        else:
            shutil.rmtree(directory)
        if left == "an empty folder":
            directory.mkdir()
        monkeypatch.setattr(continual, "finish", finish)
        return finish(*arguments)

    monkeypatch.setattr(continual, "finish", and_removed)
    if left == "all but the checkpoints":
        results = continual.run(config, directory)
    else:
        with pytest.raises(UserError, match=f"{directory} was removed or moved during the run; the same command goes"):
            continual.run(config, directory)
        assert [path for path in tmp_path.rglob("*") if path != directory] == []
        results = continual.run(config, directory)
    assert decided(results) == decided(continual.run(config, tmp_path / "whole"))
    assert lpi_jax.load(directory).tasks == ("toy 0", "toy 1")
