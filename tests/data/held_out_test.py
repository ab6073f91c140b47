"""Training images that are held out: which, how many, and that no other thing of the stream changes."""

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data import held_out
from lpi_jax.data.captioned import Captioned
from lpi_jax.data.stream import Split, Stream, Task
from lpi_jax.errors import UserError


def split(name, count):
    """Images that are told apart by their shade."""
    records = tuple(Captioned(f"{name}{i}", (f"caption {i}",)) for i in range(count))
    return Split(records, lambda index: Image.new("RGB", (1, 1), (index, 0, 0)))


def stream(*counts):
    tasks = tuple(Task(f"t{n}", f"t{n}", split(f"t{n}/", count), split(f"v{n}/", 3)) for n, count in enumerate(counts))
    return Stream("toy", tasks, "abc")


def test_a_share_of_nothing_leaves_the_stream_itself():
    whole = stream(5)
    assert held_out.apart(whole, 0.0, 7) is whole


@pytest.mark.parametrize(
    ("count", "share", "held"), [(10, 0.1, 1), (10, 0.25, 2), (2, 0.1, 1), (3, 0.9, 2), (40, 0.1, 4)]
)
def test_the_parts_are_disjoint_keep_their_order_and_load_their_own_images(count, share, held):
    task = held_out.apart(stream(count), share, 3).tasks[0]
    assert (len(task.train), len(task.held_out)) == (count - held, held)
    whole = split("t0/", count)
    assert sorted(task.train.keys + task.held_out.keys, key=whole.keys.index) == list(whole.keys)
    for part in (task.train, task.held_out):
        assert list(part.keys) == sorted(part.keys, key=whole.keys.index)
        for place, key in enumerate(part.keys):
            assert np.asarray(part.load(place))[0, 0, 0] == whole.keys.index(key)


def test_the_choice_follows_the_seed_and_the_task_alone():
    once, again, other = (held_out.apart(stream(30, 30), 0.2, seed) for seed in (1, 1, 2))
    assert once.tasks[0].held_out.keys == again.tasks[0].held_out.keys != other.tasks[0].held_out.keys
    first, second = ([key.split("/")[1] for key in task.held_out.keys] for task in once.tasks)
    assert first != second


def test_validation_images_and_names_stay():
    whole = stream(8)
    task = held_out.apart(whole, 0.5, 0).tasks[0]
    assert (task.name, task.val) == ("t0", whole.tasks[0].val)


def test_a_task_of_one_image_is_refused_by_name():
    with pytest.raises(UserError, match=r"train.held_out is 0.1, but task 't1' has 1 training image; expected two"):
        held_out.apart(stream(4, 1), 0.1, 0)
