"""Batches: an order that is a pure function of the seed, so that a run resumes from three numbers, on any hosts."""

import gc
import hashlib
import threading
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data import captioned, loader
from lpi_jax.data.batches import dropped_per_epoch, host_rows, order, steps_per_epoch
from lpi_jax.data.images import BadImage
from lpi_jax.data.loader import Transform, ahead
from lpi_jax.data.stream import Split
from lpi_jax.models.tokenizer import trim
from tests.support.batches import Batch, batches_of
from tests.support.pixels import loading
from tests.support.sources import jsonl
from tests.support.splits import split_of

CAPTIONS = (2, 1, 3, 2, 1, 4)  # per image
IMAGES = np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), 12, 16, 3), np.uint8)
SPLIT = split_of(
    tuple(f"image {i}" for i in range(len(CAPTIONS))),
    tuple(tuple(f"caption {i} {j}" for j in range(count)) for i, count in enumerate(CAPTIONS)),
    loading(IMAGES),
)
PAIRS = sum(CAPTIONS)
EOT = 999


def token_ids(longest=12, more=0):
    """Per image [captions, 77] ids; the second tells the image, the third the caption, each `more` tokens longer.

    `more` makes the captions of an image differ in length.
    """
    ids = [np.zeros((count, 77), np.int32) for count in CAPTIONS]
    for image, own in enumerate(ids):
        for caption, row in enumerate(own):
            row[:4] = 1, image + 2, caption + 2, 5
            row[longest - 1 + more * caption] = EOT
    return ids


def batches(first, last, *, batch=4, seed=0, task=0, transform=None, split=SPLIT, longest=12, more=0, host=0, hosts=1):
    ids, transform, steps = token_ids(longest, more), transform or Transform(8), range(first, last)
    return list(batches_of(split, ids, transform, steps, batch=batch, seed=seed, task=task, host=host, hosts=hosts))


def global_batches(first, last, hosts, **settings):
    """What all hosts make together."""
    shares = [batches(first, last, host=host, hosts=hosts, **settings) for host in range(hosts)]
    return [Batch(*map(np.concatenate, zip(*rows, strict=True))) for rows in zip(*shares, strict=True)]


def digest(found):
    """A hash of every bit of the batches."""
    total = hashlib.sha256()
    for array in (array for batch in found for array in batch):
        total.update(repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def pairs_of(batch):
    return [(int(row[1]) - 2, int(row[2]) - 2) for row in batch.token_ids]


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")}


def assert_ended(before=frozenset()):
    """No more threads than `before`. One that never got an item is not waited for, but ends in a moment."""
    deadline = time.monotonic() + 5
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threads() == before


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.images, other.images, strict=True)
        np.testing.assert_array_equal(one.token_ids, other.token_ids, strict=True)


# ---- order -----------------------------------------------------------------------------------------------------------


def test_the_order_is_a_function_of_seed_task_and_epoch_and_of_nothing_else():
    first = order(3, 1, 2, 50)
    np.random.default_rng(0).random()
    np.testing.assert_array_equal(order(3, 1, 2, 50), first)
    np.testing.assert_array_equal(np.sort(first), np.arange(50))
    others = [order(4, 1, 2, 50), order(3, 2, 2, 50), order(3, 1, 3, 50), order(3, 2, 1, 50)]
    assert len({tuple(found) for found in [first, *others]}) == 5


def test_only_whole_batches_count():
    assert [steps_per_epoch(pairs, 4) for pairs in (3, 4, 7, 8, 13)] == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(("pairs", "batch"), [(13, 4), (8, 4), (3, 4), (0, 4), (13, 1)])
def test_what_an_epoch_leaves_out_is_counted(pairs, batch):
    shown = [pair for step in range(steps_per_epoch(pairs, batch)) for pair in range(step * batch, (step + 1) * batch)]
    assert dropped_per_epoch(pairs, batch) == pairs - len(shown)
    assert 0 <= dropped_per_epoch(pairs, batch) < batch


def test_a_pair_comes_at_most_once_an_epoch_and_brings_its_own_caption():
    per_epoch = steps_per_epoch(PAIRS, 4)
    found = batches(0, 5 * per_epoch)
    left_out = set()
    for epoch in range(5):
        shown = [pair for batch in found[epoch * per_epoch : (epoch + 1) * per_epoch] for pair in pairs_of(batch)]
        assert max(Counter(shown).values()) == 1
        assert len(shown) == per_epoch * 4
        left_out |= {tuple(pair) for pair in captioned.pairs(SPLIT).tolist()} - set(shown)
    assert len(left_out) > 1  # not always the same pair
    for batch in found:
        for image, (number, _) in zip(batch.images, pairs_of(batch), strict=True):
            np.testing.assert_array_equal(image, Transform(8)(SPLIT.load(number), ()))


def test_batches_have_the_promised_shapes():
    (batch,) = batches(0, 1)
    assert batch.images.shape == (4, 8, 8, 3)
    assert batch.images.dtype == np.uint8
    assert batch.token_ids.shape == (4, 16)  # twelve tokens, rounded up to a fixed length
    assert batch.token_ids.dtype == np.int32
    assert batches(0, 1, longest=20)[0].token_ids.shape == (4, 24)


@pytest.mark.parametrize("first", [1, 3, 4, 7])
def test_batches_from_the_middle_are_those_of_a_full_pass(first):
    transform = Transform(8, "random")
    assert_equal(batches(first, 9, transform=transform), batches(0, 9, transform=transform)[first:])


def test_tasks_and_seeds_have_their_own_order():
    shown = {
        str([pairs_of(batch) for batch in batches(0, 3, **settings)])
        for settings in ({}, {"seed": 1}, {"task": 1}, {"seed": 1, "task": 1})
    }
    assert len(shown) == 4


def test_nothing_is_left_to_do_at_the_end():
    assert batches(6, 6) == []


@pytest.mark.parametrize(
    ("kind", "seed", "task", "sha256"),
    [
        ("centre", 0, 0, "69d4d8d52ea9b6cc6af9df50f026e7eaae3923e1ec558b312f12ffe441913552"),
        ("centre", 7, 3, "8a4b7b400da7c6a0f83425fe83e90781ff9c04072908f3a4c63f00d19ee0e76a"),
        ("random", 0, 0, "185539b2c9ca13489ee4e795941008fb29cff73dc0b83a2fcb968c7dc96fcd69"),
        ("random", 7, 3, "c1167d73dd3b69da0f11ef8ede28176418d8db1d6fe12a33e2b97d800c7dc5d1"),
    ],
)
def test_batches_are_bit_for_bit_those_of_published_results(kind, seed, task, sha256):
    """Recorded before Grain read ahead. A change of order, crop or trimming makes older results unrepeatable."""
    assert digest(batches(0, 9, seed=seed, task=task, transform=Transform(8, kind), more=6)) == sha256


# ---- hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [2, 8])
def test_hosts_make_the_same_global_batches_as_one(hosts):
    settings = {"batch": 8, "seed": 3, "task": 1, "transform": Transform(8, "random"), "more": 6}
    one = batches(0, 6, **settings)
    assert {batch.images.shape[0] for batch in batches(0, 6, host=hosts - 1, hosts=hosts, **settings)} == {8 // hosts}
    assert_equal(global_batches(0, 6, hosts, **settings), one)


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_agree_on_shapes_whatever_captions_are_theirs(hosts):
    shares = [batches(0, 6, batch=8, more=12, host=host, hosts=hosts) for host in range(hosts)]
    for step in zip(*shares, strict=True):
        assert len({batch.token_ids.shape for batch in step}) == 1
    # Trimmed to captions of their own, the rows of some would have been shorter.
    assert any(trim(batch.token_ids).shape != batch.token_ids.shape for own in shares for batch in own)


@pytest.mark.parametrize(("first", "second"), [(1, 8), (8, 2), (2, 1)])
def test_a_run_goes_on_in_the_middle_of_an_epoch_on_another_number_of_hosts(first, second):
    settings = {"batch": 8, "transform": Transform(8, "random"), "more": 6}
    for stop in (1, 3):
        parts = global_batches(0, stop, first, **settings) + global_batches(stop, 6, second, **settings)
        assert_equal(parts, batches(0, 6, **settings))


def test_a_host_loads_only_the_images_of_its_rows():
    loaded = []
    split = Split(SPLIT.records, lambda index: (loaded.append(int(index)), SPLIT.load(index))[1])
    (batch,) = batches(0, 1, batch=8, host=1, hosts=4, split=split)
    assert len(loaded) == 2
    assert sorted(loaded) == sorted(image for image, _ in pairs_of(batch))


def test_rows_are_shared_out_evenly_in_the_order_of_hosts():
    assert [host_rows(8, host, 4) for host in range(4)] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert host_rows(5, 0, 1) == slice(0, 5)


@pytest.mark.parametrize(("batch", "host", "hosts"), [(10, 0, 4), (8, 4, 4), (8, -1, 4), (8, 0, 0)])
def test_a_share_that_does_not_exist_is_refused_before_anything_is_loaded(batch, host, hosts):
    with pytest.raises(ValueError, match=f"host {host} of {hosts} has no even share of a batch of {batch} rows"):
        host_rows(batch, host, hosts)
    with pytest.raises(ValueError, match="no even share"):
        batches(0, 1, batch=batch, host=host, hosts=hosts)


# ---- augmentation ----------------------------------------------------------------------------------------------------


def crops_by_pair(epoch, **settings):
    """pair -> its crop in an epoch in which every pair is shown."""
    found = batches(epoch, epoch + 1, batch=PAIRS, transform=Transform(8, "random"), **settings)[0]
    return dict(zip(pairs_of(found), found.images, strict=True))


def test_a_crop_is_a_function_of_seed_task_epoch_and_pair():
    transform = Transform(8, "random", scale=(0.1, 0.9), flip=True)
    image = SPLIT.load(0)
    np.testing.assert_array_equal(transform(image, (1, 2, 3, 4)), transform(image, (1, 2, 3, 4)))
    seeds = [(1, 2, 3, 4), (0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)]
    assert len({transform(image, seed).tobytes() for seed in seeds}) == 5
    first = crops_by_pair(1)
    for pair, crop in crops_by_pair(1).items():
        np.testing.assert_array_equal(crop, first[pair])


@pytest.mark.parametrize("settings", [{"epoch": 2}, {"epoch": 1, "seed": 1}, {"epoch": 1, "task": 1}])
def test_every_epoch_seed_and_task_crops_anew(settings):
    first, other = crops_by_pair(1), crops_by_pair(**settings)
    assert all((first[pair] != other[pair]).any() for pair in first)


def test_a_crop_does_not_depend_on_the_batch_it_is_in():
    whole = crops_by_pair(0)
    for batch in batches(0, 3, transform=Transform(8, "random")):
        for pair, crop in zip(pairs_of(batch), batch.images, strict=True):
            np.testing.assert_array_equal(crop, whole[pair])


def test_the_centre_view_is_the_same_whatever_the_seed():
    transform = Transform(8, "centre")
    np.testing.assert_array_equal(transform(SPLIT.load(1), (0, 1)), transform(SPLIT.load(1), (5, 6)))


def test_the_random_view_obeys_scale_and_flip():
    ramp = Image.fromarray(np.repeat(np.arange(16, dtype=np.uint8)[None, :, None], 16, 0).repeat(3, 2) * 15)
    for number in range(20):
        whole = Transform(16, "random", scale=(1.0, 1.0), flip=False)(ramp, (number,))
        assert (np.diff(whole[8, :, 0].astype(int)) >= 0).all()  # never mirrored
    directions = {
        bool(np.diff(Transform(16, "random", scale=(0.9, 1.0), flip=True)(ramp, (n,))[8, :, 0].astype(int)).sum() > 0)
        for n in range(20)
    }
    assert directions == {True, False}


# ---- ahead -----------------------------------------------------------------------------------------------------------


def test_results_come_in_order_although_threads_make_them():
    def slow_first(item):
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(ahead(slow_first, range(12))) == [item * item for item in range(12)]
    assert list(ahead(slow_first, [])) == []


def test_a_result_may_be_none():
    assert list(ahead(lambda item: None, range(3))) == [None] * 3


def test_work_is_done_ahead_but_not_far():
    made = []
    upcoming = ahead(lambda item: made.append(item) or item, range(100))
    next(upcoming)
    deadline = time.monotonic() + 5
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 2 <= len(made) <= 1 + loader.AHEAD
    upcoming.close()


def test_an_exception_surfaces_at_its_item():
    def picky(item):
        if item == 3:
            raise ValueError("item 3")
        return item

    upcoming = ahead(picky, range(10))
    assert [next(upcoming) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3") as raised:
        next(upcoming)
    assert not hasattr(raised.value, "__notes__")
    assert_ended()
    with pytest.raises(StopIteration):
        next(upcoming)


@pytest.mark.parametrize("death", [SystemExit("dead"), KeyboardInterrupt("dead"), MemoryError("dead"), StopIteration()])
def test_a_thread_that_dies_in_whatever_way_ends_the_rest_with_its_reason(death):
    def picky(item):
        if item == 3:
            raise death
        return item

    upcoming = ahead(picky, range(100))
    assert [next(upcoming) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError if isinstance(death, StopIteration) else type(death)) as raised:
        next(upcoming)
    assert death in (raised.value, raised.value.__cause__)
    assert_ended()


def test_threads_that_cannot_start_end_it_with_the_reason(monkeypatch):
    def fails(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(ahead(lambda item: item, range(10)))


def test_a_damaged_image_ends_the_epoch_at_its_batch():
    def load(index):
        if index == 5:
            raise OSError("image 5 is gone")
        return SPLIT.load(index)

    split = Split(SPLIT.records, load)
    found = []
    with pytest.raises(OSError, match="image 5 is gone"):
        for step in range(3):
            found += batches(step, step + 1, split=split)
    assert all(image != 5 for batch in found for image, _ in pairs_of(batch))


def test_a_damaged_file_is_named_with_its_line_at_its_batch(tmp_path):
    lines = [
        f'{{"image": "{i}.png", "captions": ["image {i}"], "task": "toys", "split": "{split}"}}'
        for i, split in enumerate(["train"] * 8 + ["val"])
    ]
    for i in range(9):
        SPLIT.load(i % len(IMAGES)).save(tmp_path / f"{i}.png")
    (tmp_path / "toys.jsonl").write_text("\n".join(lines))
    split = jsonl(tmp_path / "toys.jsonl").tasks[0].train
    damaged = int(order(0, 0, 0, 8)[5])  # the sixth to come: in the third batch of two
    (tmp_path / f"{damaged}.png").write_bytes(b"not an image any more")
    ids = [np.full((1, 77), 1, np.int32)] * 8
    upcoming = batches_of(split, ids, Transform(8), range(4), batch=2)
    assert [len(next(upcoming).images) for _ in range(2)] == [2, 2]
    with pytest.raises(BadImage, match=rf"toys\.jsonl, line {damaged + 1}: .*{damaged}\.png") as raised:
        next(upcoming)
    assert raised.value.kind == "unreadable image"
    assert_ended()


def test_an_early_end_waits_for_what_is_being_made_and_for_no_more():
    made, ended = [], []

    def slow(item):
        made.append(item)
        time.sleep(0.05)
        ended.append(item)

    upcoming = ahead(slow, range(1000))
    next(upcoming)
    upcoming.close()
    assert sorted(made) == sorted(ended)
    assert len(made) <= 1 + loader.AHEAD
    assert_ended()


@pytest.mark.parametrize("how", ["closed", "forgotten", "left by an exception", "exhausted", "never begun"])
def test_threads_end_when_the_rest_is_not_wanted(how):
    before, made = threads(), []
    upcoming = ahead(lambda item: made.append(item) or item, range(3 if how == "exhausted" else 1000))
    if how == "exhausted":
        assert list(upcoming) == [0, 1, 2]
    elif how != "never begun":
        next(upcoming)
        assert threads() > before
    if how == "closed":
        upcoming.close()
    elif how == "left by an exception":
        with pytest.raises(RuntimeError, match="enough"):
            upcoming.throw(RuntimeError("enough"))
    del upcoming
    gc.collect()
    assert_ended(before)
    assert len(made) <= 1 + loader.AHEAD
