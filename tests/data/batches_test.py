"""Batches of any source: an order that is a pure function of the seed, on any hosts, with rows of earlier tasks."""

import hashlib
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from lpi_jax.data import batches
from lpi_jax.data.batches import Plan, training_batches
from lpi_jax.data.loader import Transform
from lpi_jax.experiment import checks
from lpi_jax.problems.retrieval.source import Pairs
from lpi_jax.train import optimizer
from tests.support.pixels import loading
from tests.support.splits import split_of

BATCH, REPLAYED, SEED, NUMBER = 8, 3, 5, 2  # five rows of the task's own
COUNTS = (7, 9, 23)  # examples of three tasks
BUFFER = np.array([[0, 4], [0, 1], [1, 8], [1, 2]], np.int32)


class Noted:
    """A source that hands out what it was asked for; example i is as long as `longest(i)`."""

    def __init__(self, task, count, longest=lambda index: 1):
        self.task, self.count, self.longest, self.made = task, count, longest, []

    def __len__(self):
        return self.count

    def length(self, index):
        return self.longest(index)

    def item(self, index, seed):
        self.made.append(index)
        return {"row": (self.task, index), "seed": seed}

    def collate(self, items, longest):
        return {name: [item[name] for item in items] for name in ("row", "seed")} | {"longest": longest}


def plan(number=NUMBER, buffer=BUFFER, **changes):
    sources = {task: Noted(task, count) for task, count in enumerate(COUNTS)}
    return Plan(
        **{"sources": sources, "number": number, "batch": BATCH, "seed": SEED, "replayed": REPLAYED} | changes,
        buffer=buffer,
    )


def made(first, last, hosts=1, **changes):
    """The global batches that all hosts make together."""
    shares = [list(training_batches(plan(**changes), first, last, host, hosts)) for host in range(hosts)]
    together = []
    for rows in zip(*shares, strict=True):
        assert len({part["longest"] for part in rows}) == 1
        assert {len(part["row"]) for part in rows} == {BATCH // hosts}
        joined = {name: [value for part in rows for value in part[name]] for name in ("row", "seed")}
        together.append(joined | {"longest": rows[0]["longest"]})
    return together


# ---- the task's own rows ---------------------------------------------------------------------------------------------


def test_the_orders_are_functions_of_seed_task_and_epoch_and_of_nothing_else():
    for order in (lambda *key: batches.order(*key, 50), lambda *key: batches.replay_order(*key, 50, 50)):
        first = order(3, 1, 2)
        np.random.default_rng(0).random()
        np.testing.assert_array_equal(order(3, 1, 2), first)
        np.testing.assert_array_equal(np.sort(first), np.arange(50))
        others = [order(4, 1, 2), order(3, 2, 2), order(3, 1, 3), order(3, 2, 1)]
        assert len({tuple(found) for found in [first, *others]}) == 5
    assert (batches.order(3, 1, 2, 50) != batches.replay_order(3, 1, 2, 50, 50)).any()


def test_only_whole_batches_count_and_the_rest_is_told():
    for count, own, steps in ((3, 4, 0), (4, 4, 1), (7, 4, 1), (13, 4, 3), (0, 4, 0), (13, 1, 13)):
        assert batches.steps_per_epoch(count, own) == steps
        assert batches.dropped_per_epoch(count, own) == count - steps * own


def test_an_example_comes_at_most_once_an_epoch_and_in_the_long_run_all_do():
    steps = plan().steps_per_epoch
    assert steps == 23 // 5
    own = [[row for row in batch["row"] if row[0] == NUMBER] for batch in made(0, 8 * steps)]
    assert {len(rows) for rows in own} == {5}
    for epoch in range(8):
        shown = [row for rows in own[epoch * steps : (epoch + 1) * steps] for row in rows]
        order = batches.order(SEED, NUMBER, epoch, 23)
        assert shown == [(NUMBER, example) for example in order[: 5 * steps]]
    assert len({row for rows in own for row in rows}) == 23


@pytest.mark.parametrize(
    ("kind", "seed", "task", "sha256"),
    [
        ("centre", 0, 0, "69d4d8d52ea9b6cc6af9df50f026e7eaae3923e1ec558b312f12ffe441913552"),
        ("random", 7, 3, "c1167d73dd3b69da0f11ef8ede28176418d8db1d6fe12a33e2b97d800c7dc5d1"),
    ],
)
def test_pairs_come_bit_for_bit_as_in_published_results(kind, seed, task, sha256):
    """Recorded before there were sources; see tests/data/loader_test.py, whose pictures and ids these are."""
    counts = (2, 1, 3, 2, 1, 4)
    pictures = np.random.default_rng(0).integers(0, 256, (len(counts), 12, 16, 3), np.uint8)
    words = tuple(tuple(f"{i} {j}" for j in range(count)) for i, count in enumerate(counts))

    def captions(spoken, placeholders):
        ids = np.zeros((len(spoken), 77), np.int32)
        for row, (picture, caption) in zip(ids, (map(int, text.split()) for text in spoken), strict=True):
            row[:4] = 1, picture + 2, caption + 2, 5
            row[11 + 6 * caption] = 999
        return ids

    pairs = Pairs(split_of(tuple("abcdef"), words, loading(pictures)), Transform(8, kind), captions, 0, asking=False)
    found = hashlib.sha256()
    for batch in training_batches(Plan({task: pairs}, task, 4, seed), 0, 9):
        for array in (batch["images"], batch["token_ids"]):
            found.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
    assert found.hexdigest() == sha256


# ---- replayed rows ---------------------------------------------------------------------------------------------------


def test_every_batch_ends_with_rows_of_the_buffer_that_all_come_up_as_often():
    steps = plan().steps_per_epoch
    for epoch in range(3):
        replayed = [batch["row"][-REPLAYED:] for batch in made(epoch * steps, (epoch + 1) * steps)]
        assert all(len(rows) == REPLAYED for rows in replayed)
        often = Counter(row for rows in replayed for row in rows)
        assert set(often) == {tuple(row) for row in BUFFER.tolist()}
        assert set(often.values()) == {3}  # four steps of three rows from four examples
    assert made(0, 1)[0]["row"] != made(steps, steps + 1)[0]["row"]


def test_a_buffer_smaller_than_its_share_of_a_batch_repeats_itself():
    rows = made(0, 1, buffer=BUFFER[:2])[0]["row"][-REPLAYED:]
    assert set(rows) == {(0, 4), (0, 1)}


@pytest.mark.parametrize("number", [0, 2])
def test_without_a_buffer_all_rows_are_the_tasks_own(number):
    nothing = np.zeros((0, 2), np.int32)
    without, asked = (list(training_batches(plan(number, nothing, replayed=n, batch=4), 0, 2)) for n in (0, REPLAYED))
    assert without == asked
    assert all(row[0] == number for batch in asked for row in batch["row"])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_make_the_same_global_batches_as_one_from_any_step_on(hosts):
    whole = made(0, 10)
    assert made(0, 10, hosts) == whole
    for first in (1, 4, 7):  # inside an epoch, and between two
        assert made(first, 10) == whole[first:]
        assert made(first, 10, hosts) == whole[first:]
    assert made(10, 10) == []


def test_a_row_has_random_numbers_of_its_own_whichever_task_replays_it():
    batch = made(5, 6)[0]  # of the second epoch
    for (task, example), seed in zip(batch["row"], batch["seed"], strict=True):
        assert seed == ((SEED, NUMBER, 1, example) if task == NUMBER else (SEED, NUMBER, 1, example, task))
    crops = [(SEED, NUMBER, 1, 4), *((SEED, NUMBER, 1, 4, task) for task in range(2))]
    assert len({np.random.default_rng(list(seed)).random() for seed in crops}) == 3


def test_all_hosts_are_told_the_longest_of_all_rows_replayed_ones_too():
    sources = {
        task: Noted(task, count, lambda index, task=task: 10 * (3 - task) + index) for task, count in enumerate(COUNTS)
    }
    for batch in made(0, 4, 4, sources=sources):
        assert batch["longest"] == max(10 * (3 - task) + example for task, example in batch["row"])
        assert batch["longest"] >= 28  # of a replayed one


def test_a_host_makes_only_its_own_rows():
    shared = plan()
    batch = next(iter(list(training_batches(shared, 0, 1, host=3, hosts=4))))
    assert [(task, i) for task, source in shared.sources.items() for i in source.made] == sorted(batch["row"])
    assert len(batch["row"]) == 2


def test_what_a_source_raises_comes_up_at_its_batch():
    class Broken(Noted):
        def item(self, index, seed):
            if index == 8:
                raise OSError("example 8 is gone")
            return super().item(index, seed)

    first = next(step for step, batch in enumerate(made(0, 8)) if (1, 8) in batch["row"])
    sources = plan().sources | {1: Broken(1, 9)}
    upcoming = training_batches(plan(sources=sources), 0, 8)
    assert [next(upcoming)["row"] for _ in range(first)] == [batch["row"] for batch in made(0, first)]
    with pytest.raises(OSError, match="example 8 is gone"):
        next(upcoming)


# ---- shares and counts -----------------------------------------------------------------------------------------------


def test_rows_are_shared_out_evenly_in_the_order_of_hosts():
    assert [batches.host_rows(8, host, 4) for host in range(4)] == [slice(a, b) for a, b in pairwise(range(0, 9, 2))]
    assert batches.host_rows(5, 0, 1) == slice(0, 5)


@pytest.mark.parametrize(("host", "hosts"), [(0, 3), (4, 4), (-1, 4), (0, 0)])
def test_a_share_that_does_not_exist_is_refused_before_anything_is_made(host, hosts):
    with pytest.raises(ValueError, match=f"host {host} of {hosts} has no even share of a batch of 8 rows"):
        list(training_batches(plan(), 0, 1, host, hosts))


def test_the_steps_of_a_run_are_those_of_its_batches():
    method = SimpleNamespace(options=SimpleNamespace(trains=True), check=lambda names: None, replayed=REPLAYED)
    training = optimizer.Options(epochs=2, batch=BATCH)
    counts = (9, 9, 23)
    steps = checks.steps_per_task(training, method, ("a", "b", "c"), counts, devices=1)
    buffers = [np.zeros((0, 2), np.int32), BUFFER[:2], BUFFER]
    sources = {task: Noted(task, count) for task, count in enumerate(counts)}
    plans = [plan(number, buffer, sources=sources) for number, buffer in enumerate(buffers)]
    assert steps == [2 * one.steps_per_epoch for one in plans] == [2, 2, 8]
