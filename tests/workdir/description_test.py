"""What a checkpoint says of its own arrays: it comes back, and nobody is made to hold what no file has."""

import json

import chex
import jax
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.workdir import description


def said(told, folder):
    """The arrays that a checkpoint in this folder says to have."""
    return description.expected(told, folder, description.room(folder))


@pytest.fixture
def folder(tmp_path):
    """A checkpoint whose files have 1,000 bytes."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "arrays").write_bytes(bytes(1000))
    return tmp_path


@pytest.mark.parametrize("kind", description.KINDS)
def test_nested_arrays_come_back_in_their_shapes_and_kinds(folder, kind):
    tree = {"a": {"b": np.zeros((3, 2), kind), "empty": {}}, "c": np.zeros((), kind), "d": np.ones((1, 4), np.int8)}
    told = json.loads(json.dumps(description.of(tree)))
    found = said(told, folder)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, tree)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_arrays_on_a_device_and_plain_numbers_are_described_as_on_the_host(folder):
    told = description.of({"a": jax.numpy.ones((2, 3)), "b": np.float32(1), "stage": np.int32(4)})
    assert told == {"a": ["float32", [2, 3]], "b": ["float32", []], "stage": ["int32", []]}
    assert description.of({}) == {}
    assert said({}, folder) == {}


def test_without_a_description_an_earlier_version_wrote_it(folder):
    with pytest.raises(UserError, match=f"^checkpoint {folder} does not describe its arrays; expected one of this"):
        said(None, folder)


@pytest.mark.parametrize(
    "told",
    [
        7,
        "float32",
        [],
        ["float32"],
        ["float32", [1], [2]],
        ["float32", 3],
        ["float32", "12"],
        ["float32", [-1]],
        ["float32", [1.5]],
        ["float32", [True]],
        ["float32", [None]],
        ["float32", [1] * 99],
        ["float32", [0, 10**30]],
        ["float99", [1]],
        ["object", [1]],
        ["str", [1]],
        ["<U999999999", [1]],
        [["float32"], [1]],
        [{"float32": 1}, [1]],
        {"a": {"b": None}},
        {"a": [["float32", [1]], ["float32", [1]]]},
    ],
    ids=str,
)
def test_what_describes_no_array_is_one_sentence(folder, told):
    with pytest.raises(UserError) as refused:
        said(told, folder)
    assert str(refused.value).startswith(f"checkpoint {folder} is damaged: it describes an array as ")
    assert len(str(refused.value)) < len(str(folder)) + 150


@pytest.mark.parametrize("told", [["float32", [10**30]], ["float64", [1 << 40, 1 << 40]], ["int8", [1 << 27]]], ids=str)
def test_more_than_the_files_can_hold_is_refused_before_anything_is_made(folder, told):
    with pytest.raises(UserError, match=f"^checkpoint {folder} is damaged: it says to hold more than its files can$"):
        said({"a": ["float32", [1]], "b": told}, folder)


def test_many_arrays_count_together(folder, monkeypatch):
    monkeypatch.setattr(description, "_FREE", 0)
    room = description._PACKED * 1000 // 4  # float32
    assert said({"a": ["float32", [room]]}, folder)["a"].size == room
    halves = {"a": ["float32", [room // 2]], "b": ["float32", [room // 2]]}
    assert said(halves, folder)
    with pytest.raises(UserError, match="more than its files can"):
        said({**halves, "c": ["int8", [1]]}, folder)
