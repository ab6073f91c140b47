"""Batches of pairs: a pure function of the seed, so that a run resumes from three numbers, on any hosts."""

import hashlib
import threading
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from lpi_jax.data.pictures import BadImage

from lpi_jax.data.batches import Plan, dropped_per_epoch, host_rows, order, steps_per_epoch, training_batches
from lpi_jax.data.loader import Transform
from lpi_jax.data.sources.jsonl import jsonl
from lpi_jax.data.stream import Split
from lpi_jax.models.tokenizer import trim
from lpi_jax.problems.retrieval.source import Pairs
from tests.support.pixels import loading

CAPTIONS = (2, 1, 3, 2, 1, 4)  # per picture
PICTURES = np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), 12, 16, 3), np.uint8)
SPLIT = Split(
    tuple(f"picture {i}" for i in range(len(CAPTIONS))),
    tuple(tuple(f"caption {i} {j}" for j in range(count)) for i, count in enumerate(CAPTIONS)),
    loading(PICTURES),
)
PAIRS = sum(CAPTIONS)
EOT = 999


class Batch(NamedTuple):
    images: np.ndarray
    token_ids: np.ndarray


def token_ids(longest=12, more=0):
    """Per picture [captions, 77] ids; the second tells the picture, the third the caption, each `more` tokens longer.

    `more` makes the captions of a picture differ in length.
    """
    ids = [np.zeros((count, 77), np.int32) for count in CAPTIONS]
    for picture, own in enumerate(ids):
        for caption, row in enumerate(own):
            row[:4] = 1, picture + 2, caption + 2, 5
            row[longest - 1 + more * caption] = EOT
    return ids


def pairs(split, ids, transform, asking=False):
    """The pairs of a split whose captions become these ids, picture by picture."""
    return Pairs(split, transform, lambda words, placeholders: np.concatenate(ids), 0, asking)


def batches(first, last, *, batch=4, seed=0, task=0, transform=None, split=SPLIT, longest=12, more=0, host=0, hosts=1):
    source = pairs(split, token_ids(longest, more), transform or Transform(8))
    plan = Plan({task: source}, task, batch, seed)
    return [Batch(**made) for made in training_batches(plan, first, last, host, hosts)]


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
        left_out |= {tuple(pair) for pair in SPLIT.pairs.tolist()} - set(shown)
    assert len(left_out) > 1  # not always the same pair
    for batch in found:
        for image, (picture, _) in zip(batch.images, pairs_of(batch), strict=True):
            np.testing.assert_array_equal(image, Transform(8)(SPLIT.load(picture), ()))


def test_batches_have_the_promised_shapes():
    (batch,) = batches(0, 1)
    assert batch.images.shape == (4, 8, 8, 3)
    assert batch.images.dtype == np.uint8
    assert batch.token_ids.shape == (4, 16)  # twelve tokens, rounded up to a fixed length
    assert batch.token_ids.dtype == np.int32
    assert batches(0, 1, longest=20)[0].token_ids.shape == (4, 24)


def test_captions_without_placeholders_come_along_where_a_method_asks_and_are_cut_to_the_same_length():
    """Behind placeholders a caption is longer; both are cut to what the longest of the global batch needs."""
    asked = []

    def captions(words, placeholders):
        asked.append((placeholders, list(words)))
        return np.concatenate(token_ids(12 if placeholders else 8))

    source = Pairs(SPLIT, Transform(8), captions, 4, asking=True)
    words = [caption for own in SPLIT.captions for caption in own]
    assert asked == [(4, words), (0, words)]
    (batch,) = training_batches(Plan({0: source}, 0, 4, 0), 0, 1)
    assert {name: part.shape for name, part in batch.items()} == {
        "images": (4, 8, 8, 3),
        "token_ids": (4, 16),
        "query_ids": (4, 16),
    }
    np.testing.assert_array_equal(batch["token_ids"].argmax(1), [11] * 4)
    np.testing.assert_array_equal(batch["query_ids"].argmax(1), [7] * 4)
    np.testing.assert_array_equal(batch["token_ids"][:, 1:3], batch["query_ids"][:, 1:3])  # of the same caption
    assert [source.length(pair) for pair in range(PAIRS)] == [12] * PAIRS
    assert len(source) == PAIRS


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


def test_a_host_loads_only_the_pictures_of_its_rows():
    loaded = []
    split = Split(SPLIT.keys, SPLIT.captions, lambda index: (loaded.append(int(index)), SPLIT.load(index))[1])
    (batch,) = batches(0, 1, batch=8, host=1, hosts=4, split=split)
    assert len(loaded) == 2
    assert sorted(loaded) == sorted(picture for picture, _ in pairs_of(batch))


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


# ---- damaged pictures ------------------------------------------------------------------------------------------------


def test_a_damaged_picture_ends_the_epoch_at_its_batch():
    def load(index):
        if index == 5:
            raise OSError("picture 5 is gone")
        return SPLIT.load(index)

    split = Split(SPLIT.keys, SPLIT.captions, load)
    found = []
    with pytest.raises(OSError, match="picture 5 is gone"):
        for step in range(3):
            found += batches(step, step + 1, split=split)
    assert all(picture != 5 for batch in found for picture, _ in pairs_of(batch))


def test_a_damaged_file_is_named_with_its_line_at_its_batch(tmp_path):
    lines = [
        f'{{"image": "{i}.png", "captions": ["picture {i}"], "task": "toys", "split": "{split}"}}'
        for i, split in enumerate(["train"] * 8 + ["val"])
    ]
    for i in range(9):
        SPLIT.load(i % len(PICTURES)).save(tmp_path / f"{i}.png")
    (tmp_path / "toys.jsonl").write_text("\n".join(lines))
    split = jsonl(tmp_path / "toys.jsonl").tasks[0].train
    damaged = int(order(0, 0, 0, 8)[5])  # the sixth to come: in the third batch of two
    (tmp_path / f"{damaged}.png").write_bytes(b"not a picture any more")
    ids = [np.full((1, 77), 1, np.int32)] * 8
    plan = Plan({0: pairs(split, ids, Transform(8))}, 0, batch=2, seed=0)
    upcoming = training_batches(plan, 0, 4)
    assert [len(next(upcoming)["images"]) for _ in range(2)] == [2, 2]
    with pytest.raises(BadImage, match=rf"toys\.jsonl, line {damaged + 1}: .*{damaged}\.png") as raised:
        next(upcoming)
    assert raised.value.kind == "unreadable picture"
    assert_ended()
