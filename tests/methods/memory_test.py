"""The memory: it grows task by task without an end, and what is in it stays as it is."""

import jax
import numpy as np
import pytest

from lpi_jax.methods import memory as memories


def grown(tasks, seed=0):
    """The memories after 0, 1, ... `tasks` tasks of random contents."""
    rng = np.random.default_rng(seed)
    found = [memories.empty(centres=3, embed_dim=5)]
    for task in range(tasks):
        trained = {"factors": {"layer": rng.normal(size=(2, 4)).astype(np.float32)}, "bias": np.float32(rng.normal())}
        image, text = rng.normal(size=(2, 3, 5)).astype(np.float32)
        description = rng.normal(size=5).astype(np.float32)
        found.append(memories.remember(found[-1], f"task {task}", trained, image, text, description))
    return found


def test_an_empty_memory_has_no_task_and_no_rows():
    memory = memories.empty(centres=3, embed_dim=5)
    assert (memory.count, memory.names, memory.trained) == (0, (), None)
    assert memory.image_centres.shape == memory.text_centres.shape == (0, 3, 5)
    assert memory.descriptions.shape == (0, 5)


def test_forty_tasks_fit_and_every_finished_one_keeps_its_bits():
    found = grown(40)
    last = found[-1]
    assert last.names == tuple(f"task {task}" for task in range(40))
    for count in range(1, 41):
        before = found[count].arrays()
        jax.tree.map(lambda old, new, n=count: np.testing.assert_array_equal(old, new[:n]), before, last.arrays())
        assert jax.tree.map(np.shape, found[count].trained_of(count - 1)) == {"factors": {"layer": (2, 4)}, "bias": ()}


def test_a_tasks_tree_comes_out_as_it_went_in():
    memory = memories.empty(1, 2)
    centres, trained = np.zeros((1, 2), np.float32), {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    memory = memories.remember(memory, "first", trained, centres, centres, centres[0])
    memory = memories.remember(memory, "second", {"a": trained["a"] + 6}, centres, centres, centres[0])
    np.testing.assert_array_equal(memory.trained_of(0)["a"], trained["a"])
    np.testing.assert_array_equal(memory.trained_of(1)["a"], trained["a"] + 6)


def test_a_method_that_trains_nothing_is_remembered_too():
    centres = np.zeros((1, 2), np.float32)
    memory = memories.remember(memories.empty(1, 2), "only", {}, centres, centres, centres[0])
    assert memory.count == 1
    assert memory.trained_of(0) == {}


def test_all_arrays_but_the_names_go_into_a_checkpoint():
    memory = grown(2)[-1]
    again = memories.Memory(memory.names, **memory.arrays())
    assert all(getattr(again, name) is value for name, value in vars(memory).items())


@pytest.mark.parametrize(("tasks", "room"), [(1, 16), (16, 16), (17, 32), (32, 32), (33, 64), (1000, 1024)])
def test_room_grows_in_doublings(tasks, room):
    assert memories.capacity(tasks) == room
