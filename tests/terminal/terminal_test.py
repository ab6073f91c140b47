"""The edges of every command: what terminals, pipes and disks can do to it, and what others' text cannot."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from lpi_jax import report, terminal
from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.run.log import Log
from lpi_jax.terminal import Screen, one_line, printable

ROOT = Path(__file__).parents[2]
COMMANDS = ("main", "report", "search", "data.check", "data.coco")
NASTY = "red\x1b[31m \x9b2J\u202eabc\ud800\x07"


def gone():
    """The end of a pipe for writing, that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.fixture
def printed(monkeypatch):
    """(function, encoding) -> what a command that calls it writes to stdout, as bytes, and its status."""

    def run(function, encoding="utf-8"):
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr("sys.stdout", out)
        status = terminal.command()(lambda _: function() or 0)([])
        return out.buffer.getvalue(), status

    return run


# ---- others' text ----------------------------------------------------------------------------------------------------


def test_what_steers_a_terminal_becomes_question_marks():
    assert printable(NASTY) == "red?[31m ?2J?abc??"
    assert printable("a\r\u2028b\0c\x7f\u00ad\ufeff\n\td") == "a??b?c???\n\td"
    assert one_line("a\r\u2028b\0c\x7f\n\td") == "a??b?c???d"


@pytest.mark.parametrize("text", ["", "plain", "猫 Жук λόγος قطة à\u00a0b → ±", "👩\u200d👩\u200d👧 می\u200cخواهم"])
def test_what_only_says_something_stays(text):
    assert printable(text) == one_line(text) == text


def test_whatever_a_command_prints_is_cleaned(printed, capfd):
    def speak():
        print(f"{NASTY}\nsecond line")
        print(NASTY, file=sys.stderr)
        raise UserError(f"the task {NASTY} is\nnot there")

    out, status = printed(speak)
    assert (out.decode(), status) == ("red?[31m ?2J?abc??\nsecond line\n", 2)
    assert capfd.readouterr().err == "red?[31m ?2J?abc??\nerror: the task red?[31m ?2J?abc?? is not there\n"


def test_a_name_in_a_progress_bar_cannot_steer_and_the_bar_still_moves(printed, capfd):
    def work():
        with tqdm(total=3, desc=f"task {NASTY}\n\r\x1b[2Jnext", ascii=True) as bar:
            tqdm.write(f"\x1b]0;title\x07 after {NASTY}", file=sys.stderr)
            bar.update(3)

    assert printed(work)[1] == 0
    err = capfd.readouterr().err
    assert "\rtask red?[31m ?2J?abc????" in err and "?]0;title? after red?[31m" in err
    assert not set(err) & set("\x1b\x9b\x07\u202e") and err.count("\n") == 2


def test_a_run_cleans_what_it_logs(tmp_path, capfd):
    """Also outside of a command: a task's name must not even end the line."""
    log = Log(tmp_path, total=2, done=0, tasks=2)
    log.says(0, f"{NASTY}\nfoo", "epoch 1/2", stays=True)
    log.prints(f"after {NASTY}\nerror: all is lost")
    log.close()
    err = capfd.readouterr().err
    assert "after red?[31m ?2J?abc???error: all is lost\n" in err and "abc???foo" in err
    assert not set(err) & set("\x1b\x9b\x07\u202e")


# ---- terminals and pipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", b"chat ? ? ? na?ve\n"), ("latin-1", b"chat ? ? ? na\xefve\n")]
)
def test_a_terminal_that_knows_few_letters_shows_question_marks(printed, encoding, expected):
    assert printed(lambda: print("chat – 猫 \udcff naïve"), encoding) == (expected, 0)


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", b"?"), ("latin-1", b"\xb1")])
def test_a_table_can_be_shown_anywhere(monkeypatch, finished_run, copied_run, encoding, sign):
    """Of two seeds: mean, plus or minus the deviation."""
    record = copied_run.directory / "config.json"
    fields = json.loads(record.read_text(encoding="utf-8"))
    fields["config"]["seed"] = 1
    record.write_text(json.dumps(fields), encoding="utf-8")
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", out)
    assert report.main(["report", str(finished_run.directory), str(copied_run.directory)]) == 0
    assert b" " + sign + b" 0.0 |" in out.buffer.getvalue()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_reader_has_gone_ends_quietly(name):
    """A process of its own: Python itself complains at its end of what it could not write."""
    command = [sys.executable, "-m", f"lpi_jax.{name}", "--help"]
    writer = gone()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_reads_a_little_and_goes_disturbs_nobody(finished_run):
    command = f'{sys.executable} -m lpi_jax.report "$0" | head -c 10; echo "status ${{PIPESTATUS[0]}}"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = ["bash", "-c", command, str(finished_run.directory)]
    done = subprocess.run(shell, capture_output=True, env=environment, timeout=60)
    assert (done.stdout, done.stderr) == (b"| method |status 0\n", b"")


def test_a_runs_table_without_a_reader_is_no_failure(monkeypatch, finished_run, small_settings, tmp_path, capfd):
    (tmp_path / "small.py").write_text("from lpi_jax import config\n\nget_config = config.intended\n")
    flags = [f"--config.{key}={value}" for key, value in small_settings.items()]
    with open(gone(), "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        workdir = f"--workdir={finished_run.directory}"
        assert main(["main", f"--config={tmp_path}/small.py", workdir, *flags]) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_a_command_without_any_stdout_or_stderr_still_works():
    code = "import sys; from lpi_jax import main; sys.exit(main.main(['main', *sys.argv[1:]]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments, status in (("--help", 0), ("--nonsense", 2)):
        command = f'{sys.executable} -c "$0" {arguments} >&- 2>&-'
        assert subprocess.run(["bash", "-c", command, code], env=environment, timeout=60).returncode == status


def test_work_goes_on_when_nobody_sees_its_progress(monkeypatch):
    done = []

    @terminal.command()
    def work(arguments):
        for number in tqdm(range(3), mininterval=0, miniters=1):
            print(f"step {number}", file=sys.stderr, flush=True)
            print(f"step {number}", flush=True)
            done.append(number)
        return 7

    with open(gone(), "w") as out, open(gone(), "w") as err:
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        assert work([]) == 7
    assert done == [0, 1, 2]


class FullDisk(io.StringIO):
    """A file on a disk without room."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_mistake_on_stdout_and_a_loss_on_stderr(monkeypatch, capfd):
    monkeypatch.setattr("sys.stdout", FullDisk())
    assert terminal.command()(lambda _: print("a table") or 0)([]) == 2
    assert capfd.readouterr().err == "error: what is printed cannot be written: No space left on device\n"
    screen = Screen(FullDisk(), vital=False)
    print("progress", file=screen, flush=True)
    print("more of it", file=screen)
    assert screen._stream.getvalue() == "progress\n"


# ---- endings ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_every_command_in_its_own_words(capfd):
    def interrupt(_):
        raise KeyboardInterrupt

    assert terminal.command("interrupted; nothing was written")(interrupt)([]) == 130
    assert terminal.command()(interrupt)([]) == 130
    assert capfd.readouterr() == ("", "interrupted; nothing was written\ninterrupted\n")


def test_the_streams_are_the_old_ones_afterwards():
    before = sys.stdout, sys.stderr
    assert terminal.command()(lambda _: isinstance(sys.stdout, Screen) + isinstance(sys.stderr, Screen))([]) == 2
    assert (sys.stdout, sys.stderr) == before
