"""The memory: it grows task by task without an end, and what is in it stays as it is."""

import jax
import numpy as np
import pytest

from lpi_jax.methods import memory as memories


def grown(tasks, seed=0):
    """The memories after 0, 1, ... `tasks` tasks of random contents."""
    rng = np.random.default_rng(seed)
    found = [{}]
    for _ in range(tasks):
        trained = {"factors": {"layer": rng.normal(size=(2, 4)).astype(np.float32)}, "bias": np.float32(rng.normal())}
        image, text = rng.normal(size=(2, 3, 5)).astype(np.float32)
        description = rng.normal(size=5).astype(np.float32)
        row = {"trained": trained, "image_centres": image, "text_centres": text, "descriptions": description}
        found.append(memories.appended(found[-1], row))
    return found


def test_an_empty_memory_has_no_task():
    assert memories.count({}) == 0
    assert memories.count(grown(3)[-1]) == 3


def test_forty_tasks_fit_and_every_finished_one_keeps_its_bits():
    found = grown(40)
    last = found[-1]
    for count in range(1, 41):
        assert memories.count(found[count]) == count
        jax.tree.map(lambda old, new, n=count: np.testing.assert_array_equal(old, new[:n]), found[count], last)
        newest = memories.row(found[count]["trained"], count - 1)
        assert jax.tree.map(np.shape, newest) == {"factors": {"layer": (2, 4)}, "bias": ()}


def test_a_tasks_tree_comes_out_as_it_went_in():
    trained = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    memory = memories.appended({}, {"trained": trained})
    memory = memories.appended(memory, {"trained": {"a": jax.numpy.asarray(trained["a"] + 6)}})
    assert isinstance(memory["trained"]["a"], np.ndarray)
    np.testing.assert_array_equal(memories.row(memory, 0)["trained"]["a"], trained["a"])
    np.testing.assert_array_equal(memories.row(memory, 1)["trained"]["a"], trained["a"] + 6)


def test_a_method_that_trains_nothing_is_remembered_too():
    memory = memories.appended({}, {"trained": {}, "descriptions": np.zeros(2, np.float32)})
    memory = memories.appended(memory, {"trained": {}, "descriptions": np.ones(2, np.float32)})
    assert memories.count(memory) == 2
    assert memories.row(memory["trained"], 1) == {}


@pytest.mark.parametrize(("tasks", "room"), [(1, 16), (16, 16), (17, 32), (32, 32), (33, 64), (1000, 1024)])
def test_room_grows_in_doublings(tasks, room):
    assert memories.capacity(tasks) == room
