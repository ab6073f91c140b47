"""What is shown: a line that fits the terminal, drawn anew; plain lines without one; and never the end of a run."""

import os
import re
import sys

import pytest

from lpi_jax.run.log import Log
from lpi_jax.terminal import Screen
from lpi_jax.terminal.display import Display, columns, counting, duration, fitted, shortened
from tests.support.terminals import screen, terminal

TERMS = {"align": 0.25, "loss": 4.5678, "retrieval": 3.5, "task": 0.125}
SHOWN = r"loss 4\.568, \d+ examples/s, align 0\.250, retrieval 3\.500, task 0\.125, data wait 0\.000"


def trains(folder, name="comic", steps=6, tasks=3):
    """A log as the loop keeps it over one task of two epochs and its evaluation."""
    log = Log(folder, steps * tasks, 0, tasks=tasks)
    log.catch_up(0, batch=4)
    log.says(0, name, "compiling", stays=True)
    for step in range(1, steps + 1):
        log.says(0, name, f"epoch {(step - 1) // (steps // 2) + 1}/2")
        log.advance(0.0)
        log.terms(step, {"task_name": name, "epoch": 1}, TERMS)
        if step % (steps // 2) == 0:
            log.ends_epoch()
    log.says(0, name, "evaluation")
    log.evaluated(30.0)
    log.prints(f"after {name}: R@1 12.5 %")
    log.says(1, "fax", "epoch 1/2")
    log.advance(0.0)
    log.terms(steps + 1, {"task_name": "fax", "epoch": 1}, TERMS)
    log.close()


@pytest.mark.parametrize(
    "name", ["comic", "forty letters of a task's name, or so!!!", "水彩画の中の小さな動物たち", "\x1b[31mred"]
)
def test_on_80_columns_task_epoch_bar_steps_and_time_left_stand_in_one_line(tmp_path, monkeypatch, name):
    with terminal(monkeypatch, 80) as sent:
        trains(tmp_path, name)
    lines = screen(sent, 80)
    assert re.fullmatch(
        r"task 2/3 fax, epoch 1/2 \[#{3,}\.{5,}\] 7/18, 1:00 left, loss 4\.568(, \d+ examples/s)?", lines[-2]
    )
    assert lines[-3] == f"after {name}: R@1 12.5 %".replace("\x1b", "?")
    drawn = re.split(r"[\r\n]+", b"".join(sent).decode())
    seen = [line for line in drawn if ", epoch 2/2 [" in line]
    assert seen and all(re.search(r"^task 1/3 \S.*, epoch 2/2 \[#+\.+\] \d/18, over 0:0\d left", line) for line in seen)
    assert b"\x1b" not in b"".join(sent)


def test_a_terminal_says_at_once_that_the_step_is_being_compiled(tmp_path, monkeypatch):
    with terminal(monkeypatch, 80) as sent:
        log = Log(tmp_path, 18, 0, tasks=3)
        log.says(0, "comic", "compiling", stays=True)
        log.close()
    assert screen(sent, 80)[0].startswith("task 1/3 comic, compiling [")


def test_a_run_with_nothing_to_do_draws_nothing(tmp_path, monkeypatch):
    with terminal(monkeypatch, 80) as sent:
        Log(tmp_path, 18, 18, 3, [1.0, 1.0, 1.0]).close()
    assert b"".join(sent) == b""


def test_a_wide_terminal_shows_every_term(tmp_path, monkeypatch):
    with terminal(monkeypatch, 200) as sent:
        trains(tmp_path)
    (line,) = [line for line in screen(sent, 200) if line.startswith("task 2/3")]
    assert re.search(
        r", loss 4\.568, \d+ examples/s, align 0\.250, retrieval 3\.500, task 0\.125, data wait 0\.000$", line
    )


def test_what_a_command_draws_on_a_terminal_leaves_the_lines_that_stay_whole(tmp_path, monkeypatch):
    """A command's stderr is a Screen, which must let the line at the foot be cleared."""
    with terminal(monkeypatch, 80) as sent:
        monkeypatch.setattr("sys.stderr", Screen(sys.stderr, vital=False))
        trains(tmp_path)
    assert screen(sent, 80)[-3] == "after comic: R@1 12.5 %"
    assert b"?" not in b"".join(sent)


def test_a_terminal_without_unicode_is_sent_none_and_still_fits(tmp_path, monkeypatch):
    with terminal(monkeypatch, 60, "ascii") as sent:
        trains(tmp_path, "漫画")
    lines = screen(sent, 60, "ascii")
    assert lines[-3] == "after ??: R@1 12.5 %"


def test_without_a_terminal_each_epoch_and_task_is_one_plain_line(tmp_path, capfd):
    trains(tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert "\r" not in err and "\x1b" not in err
    compiling, first, second, after = err.splitlines()
    assert compiling == "task 1/3 comic, compiling"
    assert re.fullmatch(rf"task 1/3 comic, epoch 1/2: 3/18, over 0:00 left, {SHOWN}", first)
    assert re.fullmatch(rf"task 1/3 comic, epoch 2/2: 6/18, over 0:00 left, {SHOWN}", second)
    assert after == "after comic: R@1 12.5 %"


def test_a_run_goes_on_when_the_reader_of_its_stderr_has_gone(tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    file = open(writer, "w")  # noqa: SIM115 - closing it fails
    monkeypatch.setattr(sys, "stderr", file)
    trains(tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 7
    with pytest.raises(BrokenPipeError):
        file.close()


def test_a_process_without_stderr_shows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    trains(tmp_path)
    with counting(1000, "checking pictures", "picture") as bar:
        bar.update()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0])
def test_a_line_never_exceeds_the_terminal(share):
    for width in range(1, 100):
        line = fitted(width, "task 1/2 漫画, epoch 1/2", share, ["3/18", "0:12 left", "loss 1.000"])
        assert 1 <= columns(line) <= width


def test_fields_are_left_out_from_the_last_one():
    fields = ["9/18", "0:12 left", "loss 1.000", "more"]
    assert fitted(20, "task", 0.5, fields) == "task [####....] 9/18"
    assert fitted(31, "task", 0.5, fields) == "task [####....] 9/18, 0:12 left"
    assert fitted(43, "task", 0.5, fields) == "task [####....] 9/18, 0:12 left, loss 1.000"


def test_text_is_cut_by_columns_and_durations_are_read_at_a_glance():
    assert shortened("漫画漫画", 6) == "漫画.."
    assert shortened("漫画漫画", 8) == "漫画漫画"
    assert [duration(seconds) for seconds in (0, 7.4, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]


def test_counting_says_one_plain_line_without_a_terminal(capfd):
    with counting(1000, "resizing pictures", "picture") as bar:
        for _ in range(1000):
            bar.update()
    assert list(counting(2, "reading", "record", quiet=True, items="ab")) == ["a", "b"]
    assert capfd.readouterr() == ("", "resizing pictures: 1000\n")


def test_counting_moves_on_a_terminal(monkeypatch):
    with terminal(monkeypatch, 80) as sent:
        assert list(counting(3, "reading", "record", items="abc")) == ["a", "b", "c"]
    assert "reading: 100%" in b"".join(sent).decode()


def test_a_line_that_stays_leaves_nothing_of_the_one_below(monkeypatch):
    with terminal(monkeypatch, 80) as sent:
        display = Display()
        display.draw("a long line that moves", None, [], now=True)
        display.line("stays")
        display.close()
    assert screen(sent, 80)[:2] == ["stays", "a long line that moves"]


def test_the_losses_of_one_task_are_not_shown_with_the_next(tmp_path, capfd):
    log = Log(tmp_path, 4, 0, tasks=2)
    for number in (0, 1):
        log.says(number, "abc"[number], "epoch 1/1")
        log.advance(0.0)
        if not number:
            log.terms(1, {}, TERMS)
        log.ends_epoch()
    log.close()
    first, second = capfd.readouterr().err.splitlines()
    assert "loss 4.568" in first
    assert second.startswith("task 2/2 b, epoch 1/1: 2/4") and "loss" not in second
