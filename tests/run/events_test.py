"""TensorBoard's events are a by-product: their loss is told once, and neither holds the run up nor ends it."""

import json
import threading

from lpi_jax.run.log import Log
from tests.run.log_test import events
from tests.support.disks import full

TERMS = {"loss": 1.0, "retrieval": 0.5, "align": 0.25, "task": 0.25}


def trains(folder, steps):
    log = Log(folder, steps, 0, tasks=1)
    for step in range(1, steps + 1):
        log.terms(step, {}, TERMS)
    log.close()


def logged(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_disk_that_takes_no_more_events_is_told_once_and_training_goes_on(tmp_path, capfd):
    with full(8192):  # 40 steps: 16 kB of events, 5 kB of lines
        trains(tmp_path, 40)
    assert logged(tmp_path) == list(range(1, 41))
    lines = [line for line in capfd.readouterr().err.splitlines() if "TensorBoard" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path / 'tensorboard'}: TensorBoard events are no longer written (")
    assert lines[0].endswith("; the run goes on")


def test_events_that_cannot_even_begin_are_told_once_and_training_goes_on(tmp_path, capfd):
    (tmp_path / "tensorboard").write_text("no folder")
    trains(tmp_path, 3)
    assert logged(tmp_path) == [1, 2, 3]
    assert capfd.readouterr().err.count("TensorBoard events are no longer written (File exists); the run goes on") == 1


def test_no_thread_stands_between_the_run_and_its_files(tmp_path):
    before = set(threading.enumerate())
    log = Log(tmp_path, 2, 0, tasks=1)
    log.terms(1, {}, TERMS)
    assert set(threading.enumerate()) == before
    log.close()


def test_events_are_in_the_file_as_soon_as_they_are_logged(tmp_path):
    log = Log(tmp_path, 2, 0, tasks=1)
    log.terms(1, {}, TERMS)
    assert {value.tag for event in events(tmp_path) for value in event.summary.value} > {"train/loss", "train/align"}
    log.close()


def test_two_starts_within_a_second_have_a_file_each(tmp_path):
    trains(tmp_path, 1)
    trains(tmp_path, 1)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
