"""Replay: what the buffer holds of every task, by hand, and that it is a function of seed and tasks alone."""

import math
from itertools import pairwise
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import leaves, replay, routing
from lpi_jax.models.clip import CLIPConfig, TowerConfig, param_shapes

EMPTY = np.zeros((0, 2), np.int32)


def buffers(counts, most, seed=0):
    """The buffer after each of the tasks, which have so many examples."""
    found = [EMPTY]
    for number, count in enumerate(counts):
        found.append(replay.shared_out(found[-1], number, count, most, seed))
    return found[1:]


def shares(buffer):
    return np.bincount(buffer[:, 0]).tolist() if len(buffer) else []


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [
        ((9, 9, 9, 9, 9), 8, [[8], [4, 4], [3, 3, 2], [2, 2, 2, 2], [2, 2, 2, 1, 1]]),
        ((9, 2, 9, 1), 10, [[9], [8, 2], [4, 2, 4], [4, 2, 3, 1]]),  # what small tasks leave goes to the others
        ((3, 2), 10, [[3], [3, 2]]),  # room for all
        ((4, 4, 4), 2, [[2], [1, 1], [1, 1]]),  # more tasks than rows: the earliest
    ],
)
def test_every_task_has_a_fair_share(counts, most, expected):
    found = buffers(counts, most)
    assert [shares(buffer) for buffer in found] == expected
    for buffer in found:
        assert buffer.dtype == np.int32 and buffer.shape[1] == 2
        assert len(np.unique(buffer, axis=0)) == len(buffer)
        assert all(0 <= example < counts[task] for task, example in buffer)


def test_a_share_is_the_beginning_of_the_one_before_in_an_order_that_seed_and_task_decide():
    found = buffers((30, 30, 30), 12)
    for task in range(3):
        own = [buffer[buffer[:, 0] == task, 1].tolist() for buffer in found[task:]]
        for longer, shorter in pairwise(own):
            assert shorter == longer[: len(shorter)]
    again = buffers((30, 30, 30), 12)
    np.testing.assert_array_equal(found[-1], again[-1])
    # Another seed or another task draws others; what an earlier task was does not matter to a later one's examples.
    assert (found[0] != buffers((30,), 12, seed=1)[0]).any()
    assert set(found[1][:6, 1]) != set(found[1][6:, 1])
    np.testing.assert_array_equal(found[2][8:], buffers((14, 99, 30), 12)[2][8:])


@pytest.fixture
def method():
    """Replay of at most six examples, two rows a batch."""
    return replay.build(replay.Options(buffer=6, replayed=2), {}, routing.Options())


def test_the_memory_is_that_of_fine_tuning_and_a_buffer(method):
    trained = {"a": np.ones(3, np.float32)}
    assert (method.name, method.replayed) == ("replay", 2)
    np.testing.assert_array_equal(method.replay({}), EMPTY)
    memory = {}
    for number in range(2):
        memory = method.finish(memory, trained, SimpleNamespace(number=number, examples=10, seed=3))
        assert memory.keys() == {"stage", "trained", "buffer"}
        assert method.replay(memory) is memory["buffer"]
    np.testing.assert_array_equal(memory["buffer"], buffers((10, 10), 6, seed=3)[1])
    assigned = method.assign(memory, {"image": np.zeros((4, 2), np.float32)}, {})
    assert assigned["image"].ids.tolist() == [1] * 4


def test_all_of_clip_b16_but_its_logit_scale_is_trained(method):
    clip = CLIPConfig(224, 16, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408)
    frozen = param_shapes(clip)
    method.fits(frozen)
    trainable = leaves.chosen(frozen, method.options.where)

    def tower(width, tokens):  # twelve blocks of attention, MLP and two norms; positions, class or tokens; norms
        return 12 * (12 * width**2 + 13 * width) + tokens * width

    vision = tower(768, 1 + 197 + 3 * 16 * 16 + 4) + 768 * 512
    text = tower(512, 77 + 49408 + 2) + 512 * 512
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trainable))
    assert count == vision + text == 149_620_736
    assert count == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(frozen)) - 1


def test_more_replayed_rows_than_the_buffer_holds_are_refused():
    with pytest.raises(UserError, match=r"^config\.method\.replayed is 7, expected at most config\.method\.buffer, 6$"):
        replay.build(replay.Options(buffer=6, replayed=7), {}, routing.Options())
