"""One start in a folder at a time: who has it is told, and a killed one is in nobody's way."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.parallel import lock
from lpi_jax.parallel.lock import Lock, refuse_held
from lpi_jax.run import continual
from lpi_jax.workdir import ownership

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from pathlib import Path
from lpi_jax.parallel.lock import Lock
with Lock(Path(sys.argv[1])) as held:
    held.take()
    print("taken", flush=True)
    time.sleep(600)
"""
DEAD = {"host": "another", "process": 4711, "since": "2026-01-02 03:04:05 UTC"}


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder `run`."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def take(folder):
    with Lock(folder) as held:
        held.take()


def test_a_folder_is_made_taken_and_left_as_it_was(tmp_path):
    with Lock(tmp_path / "runs" / "new") as held:
        held.take()
        record = json.loads((tmp_path / "runs" / "new" / "run.lock").read_text())
        assert (record["host"], record["process"]) == (socket.gethostname(), os.getpid())
    assert list((tmp_path / "runs" / "new").iterdir()) == []
    take(tmp_path / "runs" / "new")


def test_the_second_start_is_told_who_has_the_folder_since_when_and_how_several_are_started(holder, tmp_path):
    before = (tmp_path / "run" / "run.lock").read_bytes()
    for refused in (take, refuse_held):
        with pytest.raises(UserError) as error:
            refused(tmp_path / "run")
        assert str(error.value) == (
            f"--workdir is {tmp_path / 'run'}, which is in use by process {holder.pid} on {socket.gethostname()} since"
            f" {json.loads(before)['since']}; expected one start at a time (several processes of one run are started"
            " together, with --config.distributed=true)"
        )
    assert (tmp_path / "run" / "run.lock").read_bytes() == before


def test_the_command_ends_with_status_2_before_it_reads_anything(holder, tmp_path, capfd):
    flags = ["--config=configs/scenes_lpi.py", "--config.backbone=nosuch", f"--workdir={tmp_path / 'run'}"]
    assert main(["main", *flags]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"error: --workdir is {tmp_path / 'run'}, which is in use by process {holder.pid} on ")
    assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_does_not_keep_the_folder(holder, tmp_path, number, capfd):
    holder.send_signal(number)
    began = time.monotonic()
    take(tmp_path / "run")  # at once: it may not even have ended
    assert time.monotonic() - began < 5
    assert capfd.readouterr().err == ""
    assert list((tmp_path / "run").iterdir()) == []


def test_two_threads_of_one_process_do_not_share_a_folder(tmp_path):
    with Lock(tmp_path) as held:
        held.take()
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            take(tmp_path)
        assert (tmp_path / "run.lock").exists()


def test_a_start_that_only_looks_disturbs_nobody(tmp_path):
    with open(tmp_path / "run.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        refuse_held(tmp_path)


def test_a_folder_that_was_removed_and_made_again_is_not_robbed_of_its_lock(tmp_path):
    with Lock(tmp_path / "run") as held:
        held.take()
        (tmp_path / "run" / "run.lock").unlink()
        with Lock(tmp_path / "run") as other:
            other.take()
            held.__exit__()
            assert (tmp_path / "run" / "run.lock").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file.*, which cannot be used: "):
        take(tmp_path / "file")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"process": 1}', b'"text"', b"[" * 5000])
def test_whatever_the_file_holds_the_second_start_is_refused_with_a_sentence(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)
    with open(tmp_path / "run.lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process; expected one start"):
            refuse_held(tmp_path)


def test_what_the_file_says_cannot_steer_a_terminal(tmp_path):
    (tmp_path / "run.lock").write_text(json.dumps({**DEAD, "host": "\x1b[31mred"}))
    with open(tmp_path / "run.lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"process 4711 on \?\[31mred since"):
            refuse_held(tmp_path)


# --------------------------------------------------------------------------- where flock is missing, or another host's


@pytest.fixture
def quick(monkeypatch):
    """Signs of life every twentieth of a second."""
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    monkeypatch.setattr(lock, "_PATIENCE", 0.5)
    monkeypatch.setattr(lock, "_SETTLE", 0.2)
    monkeypatch.setattr(lock, "_PAUSE", 0.02)


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_flock(monkeypatch, quick, request):
    """A file system without flock."""

    def missing(file, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", missing)


def test_without_flock_that_is_said_once_and_the_folder_is_kept(no_flock, tmp_path, capfd):
    with Lock(tmp_path) as held:
        held.take()
        assert capfd.readouterr().err == (
            f"{tmp_path} is on a file system without locks (flock); another start is told by signs of life\n"
        )
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on {socket.gethostname()} since"):
            take(tmp_path)
        assert (tmp_path / "run.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_without_flock_a_killed_process_does_not_keep_the_folder(no_flock, tmp_path, capfd):
    (tmp_path / "run.lock").write_text(json.dumps(DEAD))
    take(tmp_path)
    assert capfd.readouterr().err.startswith(
        f"{tmp_path} was in use by process 4711 on another since 2026-01-02 03:04:05 UTC; "
    )
    assert list(tmp_path.iterdir()) == []


def test_without_flock_one_of_two_that_begin_at_once_is_refused(no_flock, tmp_path, monkeypatch):
    with Lock(tmp_path) as held:
        sleep = time.sleep

        def meanwhile(seconds):
            (tmp_path / "run.lock").write_text(json.dumps(DEAD))
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", meanwhile)
        with pytest.raises(UserError, match="in use by process 4711 on another"):
            held.take()
    assert json.loads((tmp_path / "run.lock").read_text()) == DEAD


def test_another_hosts_process_is_looked_for_where_flock_knows_only_this_host(quick, tmp_path, capfd):
    with Lock(tmp_path) as other:
        other.take()
        (tmp_path / "run.lock").write_text(json.dumps(DEAD))
        fcntl.flock(other._file, fcntl.LOCK_UN)  # as another host's would look
        with pytest.raises(UserError, match="in use by process 4711 on another since"):
            take(tmp_path)
    (tmp_path / "run.lock").write_text(json.dumps(DEAD))
    take(tmp_path)  # a dead one's


# ------------------------------------------------------------------------------------------------------------- of a run


def test_a_run_leaves_no_lock(finished_run):
    assert not (finished_run.directory / "run.lock").exists()


def test_a_run_that_is_refused_leaves_no_lock_in_the_others_folder(copied_run, make_config):
    with pytest.raises(UserError, match="holds another run"):
        continual.run(make_config({"seed": 1}), copied_run.directory)
    assert not (copied_run.directory / "run.lock").exists()


def test_a_folder_that_holds_only_what_a_killed_start_left_may_be_used(tmp_path):
    (tmp_path / "run.lock").write_text(json.dumps({**DEAD, "host": socket.gethostname()}))
    ownership.refuse_foreign(tmp_path)
    take(tmp_path)
