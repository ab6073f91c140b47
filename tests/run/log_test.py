"""The log: one line a logged step, also over a kill and a resume, and the same values as TensorBoard events."""

import json
import time
from inspect import signature
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from lpi_jax.parallel.mesh import make_mesh
from lpi_jax.parallel.peaks import peak
from lpi_jax.report.losses import NO_TERMS
from lpi_jax.run.log import DIGITS, Log, Silence
from lpi_jax.train import step as train

PLACE = ("step", "task", "epoch")


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def logged(workdir, first, last, value=1.0, total=8):
    """Logs the steps first + 1 .. last as the loop does."""
    logs(Log(workdir, total, first, tasks=2), first, last, value)


def logs(log, first, last, value=1.0):
    log.catch_up(first, batch=4)
    log.says(0, "fax", "epoch 1/1", stays=True)
    for step in range(first + 1, last + 1):
        log.advance(0.0)
        log.terms(step, {"task": "fax", "epoch": 1}, {"loss": value * step, "align": 0.5})
    log.ends_epoch()
    log.evaluated(1.0)
    log.scalars(last, {"eval/image_to_text/R@1": 12.5})
    log.prints("after fax: R@1 12.5 %")
    log.close()


def events(workdir):
    """Every event of all files, in the order of writing; a record is length, checksum, event, checksum."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_a_logged_step_is_one_line_with_its_terms_and_place(tmp_path):
    logged(tmp_path, 0, 3)
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [1, 2, 3]
    assert all(line.keys() == {*PLACE, "loss", "align", "pairs_per_second", "data_wait"} for line in found)
    assert found[1] | {"pairs_per_second": 0} == {
        "step": 2,
        "task": "fax",
        "epoch": 1,
        "loss": 2.0,
        "align": 0.5,
        "pairs_per_second": 0,
        "data_wait": 0.0,
    }
    assert all(line["pairs_per_second"] > 0 for line in found)


def test_operations_are_told_by_the_second_and_as_a_share_of_what_the_devices_can(tmp_path, clock):
    log = Log(tmp_path, 8, 0, tasks=2, peak=4.0)
    log.catch_up(0, batch=4)
    for step, flops in ((1, 3e12), (2, 7e12), (3, 7e12)):
        clock[0] += 2.0
        log.terms(step, {"task": "fax", "epoch": 1}, {"loss": 1.0}, int(flops))
    log.close()
    found = [(line.get("tflops_per_second"), line.get("mfu")) for line in lines(tmp_path)]
    assert found == [(1.5, 0.375), (2.0, 0.5), (None, None)]


def test_no_report_draws_speed_as_a_loss():
    assert DIGITS.keys() <= NO_TERMS


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5e", 197),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("cpu", None),
    ],
)
def test_peaks_are_those_of_the_longest_name_that_fits(kind, tflops):
    assert peak(kind) == tflops


@pytest.fixture
def clock(monkeypatch):
    """The seconds the log sees pass: a list of one, to be raised."""
    seconds = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def test_data_wait_is_the_share_of_the_time_since_the_line_before(tmp_path, clock, capsys):
    log = Log(tmp_path, 8, 0, tasks=2)
    for step, (seconds, waited) in enumerate([(1.0, 0.25), (3.0, 0.125), (2.0, 2.0), (0.0, 0.0), (1.0, 7.0)]):
        clock[0] += seconds
        log.advance(waited)
        if step:  # the first two steps share a line
            log.terms(step + 1, {"task": "fax", "epoch": 1}, {"loss": 1.0})
    log.ends_epoch()
    log.close()
    assert [line["data_wait"] for line in lines(tmp_path)] == [0.094, 1.0, 0.0, 1.0]
    scalars = {e.step: v.simple_value for e in events(tmp_path) for v in e.summary.value if v.tag == "train/data_wait"}
    assert scalars == {2: 0.09375, 3: 1.0, 4: 0.0, 5: 1.0}
    assert "data wait 1.000" in capsys.readouterr().err


def test_time_before_a_task_is_taken_up_counts_as_no_wait(tmp_path, clock):
    log = Log(tmp_path, 8, 0, tasks=2)
    log.advance(5.0)
    clock[0] += 10.0
    log.catch_up(3, batch=4)
    clock[0] += 2.0
    log.advance(0.5)
    log.terms(4, {"task": "fax", "epoch": 1}, {"loss": 1.0})
    log.close()
    assert lines(tmp_path)[0]["data_wait"] == 0.25


def test_the_rate_is_in_pairs_of_the_task_s_own_batches(tmp_path, clock):
    log = Log(tmp_path, 8, 0, tasks=2)
    for step, batch in enumerate([4, 10]):
        log.catch_up(step, batch)
        clock[0] += 2.0
        log.advance(0.0)
        log.terms(step + 1, {"task": "fax", "epoch": 1}, {"loss": 1.0})
    log.close()
    assert [line["pairs_per_second"] for line in lines(tmp_path)] == [2.0, 5.0]


def test_fit_tells_what_the_host_waited_for_each_batch(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))

    def batches():
        for waiting in (0.5, 0.0, 0.25):
            seconds[0] += waiting
            yield {"images": np.zeros((2, 4, 4, 3), np.uint8), "token_ids": np.zeros((2, 16), np.int32)}

    def run(state, frozen, constants, batch, key, lr):
        seconds[0] += 8.0  # no waiting for data
        assert batch["images"].shape == (2, 4, 4, 3)
        return state._replace(step=state.step + 1), {"loss": lr}

    seen = []
    state = train.fit(
        train.TrainState({}, {}, jnp.int32(4)),
        train.Step(run, None, make_mesh(1)),
        train.Task({}, {}, None, float),
        batches(),
        lambda state, done, terms, waited: seen.append((done, float(terms["loss"]), waited)),
    )
    assert int(state.step) == 7
    assert seen == [(5, 4.0, 0.5), (6, 5.0, 0.0), (7, 6.0, 0.25)]


def test_lines_are_there_while_the_run_goes_on(tmp_path):
    log = Log(tmp_path, 8, 0, tasks=2)
    log.terms(1, {"task": "fax", "epoch": 1}, {"loss": 1.0})
    assert len(lines(tmp_path)) == 1
    log.close()


def test_tensorboard_events_hold_the_same_values(tmp_path):
    logged(tmp_path, 0, 3)
    scalars = {(v.tag, e.step): v.simple_value for e in events(tmp_path) for v in e.summary.value}
    assert {scalars[("train/loss", step)] for step in (1, 2, 3)} == {1.0, 2.0, 3.0}
    assert scalars[("train/align", 2)] == 0.5
    assert scalars[("eval/image_to_text/R_1", 3)] == 12.5  # tags have no @
    assert ("train/pairs_per_second", 3) in scalars
    assert ("train/data_wait", 3) in scalars


def test_a_resumed_run_has_every_step_once(tmp_path):
    logged(tmp_path, 0, 5)
    logged(tmp_path, 3, 8, value=10.0)  # killed after step 5, its newest checkpoint was of step 3
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["loss"] for line in found] == [1, 2, 3, 40, 50, 60, 70, 80]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    logged(tmp_path, 0, 2)
    logged(tmp_path, 0, 3, value=10.0)
    assert [line["loss"] for line in lines(tmp_path)] == [10, 20, 30]


@pytest.mark.parametrize("first", [0, 3])
def test_tensorboard_is_told_where_a_resumed_run_goes_on(tmp_path, first):
    logged(tmp_path, 0, 5)
    logged(tmp_path, first, 6)
    starts = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert starts == [first + 1]  # TensorBoard drops what an earlier start wrote from this step on


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 3, "lo', b'{"step": 3, "loss": 3.0}', b"\x00\x00\x00", b"[3]\n", b'{"loss": 1}\n', b'{"step": "x"}\n'],
)
def test_a_line_torn_by_a_kill_is_dropped(tmp_path, torn):
    logged(tmp_path, 0, 2)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    logged(tmp_path, 2, 4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_progress_goes_to_stderr_and_not_to_stdout(tmp_path, capsys):
    logged(tmp_path, 0, 8)
    out, err = capsys.readouterr()
    assert out == ""
    assert "after fax: R@1 12.5 %" in err
    assert "8/8" in err


def test_the_bar_counts_the_steps_of_this_start_only(tmp_path, capsys):
    logged(tmp_path, 3, 8)
    assert "8/8" in capsys.readouterr().err


def test_silence_takes_all_that_a_log_takes_and_says_and_writes_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs(Silence(), 0, 8)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_silence_keeps_silent_wherever_a_log_speaks():
    def public(kind):
        return {name: signature(own) for name, own in vars(kind).items() if callable(own) and name[0] != "_"}

    assert public(Silence) == public(Log)
