"""Few shots, another order of tasks, several streams as one: what changes, and what must not."""

import dataclasses
import itertools
import json
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data import captioned
from lpi_jax.data.arrange import combined, ordered, shots, shuffled
from lpi_jax.data.builder import TOLD
from lpi_jax.data.stream import Refused, Split, Stream, Task
from lpi_jax.errors import UserError
from tests.support.splits import captions_of, split_of


@dataclass(frozen=True)
class Load:
    """The image's number, and which split it belongs to, are its only pixel."""

    task: int
    first: int

    def __call__(self, index):
        return Image.new("RGB", (1, 1), (self.task, self.first + int(index), 0))


def split(task, first, count):
    keys = tuple(f"{task}/{first + i}" for i in range(count))
    told = [{"number": i} for i in range(count)]
    return split_of(keys, [(f"caption {key}", "another") for key in keys], Load(task, first), told)


def stream(names=("cats", "dogs", "birds"), train=20, val=5, name="toys", **more):
    tasks = tuple(
        Task(task, f"all about {task}", split(number, 0, train), split(number, 100, val))
        for number, task in enumerate(names)
    )
    return Stream(name, tasks, f"fingerprint of {name}", **more)


def pixels(split):
    return [split.load(i).getpixel((0, 0))[:2] for i in range(len(split))]


def matches(split):
    """Keys, captions, images and annotations of a split still belong together."""
    for i, (task, number) in enumerate(pixels(split)):
        assert split.keys[i] == f"{task}/{number}" and captions_of(split)[i][0] == f"caption {task}/{number}"
        assert split.records[i].annotation == {"number": number % 100}
    return True


def test_shots_take_so_many_training_images_in_their_order():
    few = shots(stream(), 4, seed=1)
    for task, whole in zip(few.tasks, stream().tasks, strict=True):
        assert (
            len(task.train) == 4
            and matches(task.train)
            and list(captioned.pairs(task.train)[:, 0]) == [0, 0, 1, 1, 2, 2, 3, 3]
        )
        assert pixels(task.train) == sorted(pixels(task.train)) and set(task.train.keys) < set(whole.train.keys)
        assert task.val == whole.val and (task.name, task.description) == (whole.name, whole.description)
    assert few.notes == {"images": 27, "arranged": [{"shots": 4, "seed": 1, "fewer": {}}]}


def test_shots_depend_on_seed_and_name_alone():
    few = {task.name: task.train.keys for task in shots(stream(), 4, seed=1).tasks}
    other = {task.name: task.train.keys for task in shots(stream(("dogs",)), 4, seed=1).tasks}
    assert [key.partition("/")[2] for key in few["dogs"]] == [key.partition("/")[2] for key in other["dogs"]]
    numbers = {tuple(key.partition("/")[2] for key in keys) for keys in few.values()}
    assert len(numbers) == 3  # not the same ones in every task
    assert {task.name: task.train.keys for task in shots(stream(), 4, seed=2).tasks} != few


def test_fewer_shots_are_among_more():
    chosen = [set(shots(stream(), count, seed=3).tasks[0].train.keys) for count in (1, 2, 5, 19, 20)]
    assert all(few < more for few, more in itertools.pairwise(chosen))


def test_a_task_with_fewer_keeps_all_and_the_notes_say_so():
    few = shots(stream(train=3), 4, seed=0)
    assert all(len(task.train) == 3 for task in few.tasks)
    assert few.notes["arranged"][0]["fewer"] == {"cats": 3, "dogs": 3, "birds": 3}


def test_what_is_chosen_never_changes():
    """Results are compared over years: the choice must not follow a library or a platform."""
    chosen = [task.train.keys for task in shots(stream(), 3, seed=0).tasks]
    assert chosen == [("0/3", "0/6", "0/11"), ("1/2", "1/13", "1/16"), ("2/0", "2/1", "2/7")]
    assert [task.name for task in shuffled(stream(), seed=0).tasks] == ["dogs", "cats", "birds"]


def test_shuffled_tasks_follow_names_and_seed_but_not_the_order_before():
    names = [f"task {i}" for i in range(8)]
    order = [task.name for task in shuffled(stream(names), seed=5).tasks]
    assert sorted(order) == names != order
    assert [task.name for task in shuffled(stream(names[::-1]), seed=5).tasks] == order
    assert [task.name for task in shuffled(stream(names[2:]), seed=5).tasks] == [n for n in order if n in names[2:]]
    assert [task.name for task in shuffled(stream(names), seed=6).tasks] != order
    moved = shuffled(stream(names), seed=5)
    assert all(task == whole for task in moved.tasks for whole in stream(names).tasks if task.name == whole.name)
    assert moved.notes["arranged"] == [{"shuffled": order, "seed": 5}]


def test_tasks_in_an_order_of_ones_own():
    moved = ordered(stream(), ["birds", "cats", "dogs"])
    assert [task.name for task in moved.tasks] == ["birds", "cats", "dogs"] and moved.tasks[1] == stream().tasks[0]
    assert moved.notes["arranged"] == [{"ordered": ["birds", "cats", "dogs"]}]
    assert moved.fingerprint not in (stream().fingerprint, ordered(stream(), ["birds", "dogs", "cats"]).fingerprint)
    for names in (["birds", "cats"], ["birds", "cats", "dogs", "dogs"], ["birds", "cats", "cows"]):
        with pytest.raises(
            UserError, match=r"task_order is 'birds', 'cats'.*; expected each of 'cats', 'dogs', 'birds'"
        ):
            ordered(stream(), names)


REFUSED = Refused({"person": {"missing file": 2}, "dog": {"no captions": 1}}, ("first",))


def test_combined_streams_follow_each_other_and_share_no_name():
    one = stream(("person", "dog"), name="a", refused=REFUSED, notes={"path": "x"})
    more = Refused({"person": {"missing file": 3}, "": {"not JSON": 1}}, ("second",) * TOLD)
    other = stream(("person", "kite"), name="b", refused=more, notes={"path": "y"})
    both = combined([one, other], ["flickr30k", "coco"])
    assert [task.name for task in both.tasks] == ["flickr30k/person", "dog", "coco/person", "kite"]
    assert [task.description.split()[-1] for task in both.tasks] == ["person", "dog", "person", "kite"]
    assert both.name == "flickr30k+coco"
    assert both.refused.counts == {
        "flickr30k/person": {"missing file": 2},
        "dog": {"no captions": 1},
        "coco/person": {"missing file": 3},
        "": {"not JSON": 1},
    }
    assert both.refused.first == ("first", *("second",) * (TOLD - 1))
    assert both.skipped == {"missing file": 5, "no captions": 1, "not JSON": 1}
    assert both.notes == {"streams": {"flickr30k": {"path": "x"}, "coco": {"path": "y"}}}
    assert all(matches(task.train) and len(set(task.train.keys)) == len(task.train.keys) for task in both.tasks)


@pytest.mark.parametrize(
    "streams, names, message",
    [
        ([], [], "there are 0 streams and 0 names"),
        ([stream()], ["a", "b"], "there are 1 streams and 2 names; expected one name for each"),
        ([stream(), stream()], ["a", "a"], "two streams are called 'a'"),
        (
            [stream(("x",)), stream(("x",)), stream(("a/x",))],
            ["a", "b", "c"],
            "two tasks are called 'a/x' once the str",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused(streams, names, message):
    with pytest.raises(UserError, match=message):
        combined(streams, names)


@pytest.mark.parametrize("count, seed, message", [(0, 0, "count is 0"), (-1, 0, "count is -1"), (1, -1, "seed is -1")])
def test_numbers_that_make_no_sense_are_refused(count, seed, message):
    with pytest.raises(UserError, match=message):
        shots(stream(), count, seed)
    if seed < 0:
        with pytest.raises(UserError, match=message):
            shuffled(stream(), seed)


def test_every_arrangement_has_a_fingerprint_of_its_own():
    one, other = stream(), dataclasses.replace(stream(), fingerprint="another")
    made = [
        *(shots(one, 4, 0), shots(one, 5, 0), shots(one, 4, 1), shots(other, 4, 0)),
        *(shuffled(one, 0), shuffled(one, 1), shuffled(other, 0), shuffled(shots(one, 4, 0), 0)),
        *(combined([one], ["a"]), combined([one, other], ["a", "b"]), combined([other, one], ["a", "b"])),
        *(combined([one], ["b"]), combined([other], ["a"]), one, other),
    ]
    assert len({arranged.fingerprint for arranged in made}) == len(made)
    assert shots(one, 4, 0).fingerprint == shots(stream(), 4, 0).fingerprint


def test_arrangements_add_up_cross_process_borders_and_are_json():
    made = shuffled(shots(combined([stream(), stream(("x", "y"))], ["a", "b"]), 3, 0), 0)
    again = pickle.loads(pickle.dumps(made))
    assert [pixels(task.train) for task in again.tasks] == [pixels(task.train) for task in made.tasks]
    assert all(matches(task.train) for task in again.tasks)
    notes = json.loads(json.dumps(made.notes))
    assert [list(done) for done in notes["arranged"]] == [["shots", "seed", "fewer"], ["shuffled", "seed"]]


def test_a_stream_is_not_changed_by_what_is_made_of_it():
    notes = {"path": "x", "arranged": []}
    whole = stream(notes=notes)
    shuffled(shots(whole, 2, 0), 0)
    assert whole == stream(notes={"path": "x", "arranged": []})


def test_shots_take_records_of_any_kind():
    @dataclass(frozen=True)
    class Answered:
        key: str
        answer: int

    records = tuple(Answered(f"question {i}", i) for i in range(9))
    task = Task("questions", "sums", Split(records, Load(0, 0)), Split(records[:1], Load(0, 0)))
    (few,) = shots(Stream("sums", (task,), "f"), 3, 0).tasks
    assert [few.train.load(i).getpixel((0, 0))[1] for i in range(3)] == [record.answer for record in few.train.records]
    assert set(few.train.records) < set(records) and few.val == task.val


@given(st.lists(st.text(), min_size=1, max_size=6, unique=True), st.integers(1, 8), st.integers(0, 2**40))
def test_any_names_and_seeds_will_do(names, count, seed):
    few = shuffled(shots(stream(names, train=6), count, seed), seed)
    assert sorted(task.name for task in few.tasks) == sorted(names)
    assert all(len(task.train) == min(count, 6) and matches(task.train) for task in few.tasks)
