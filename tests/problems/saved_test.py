"""What evaluators have computed is kept in pieces: the same arrays again, little written twice, damage noticed."""

import json

import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.problems import saved

RNG = np.random.default_rng(0)
FIRST = {
    "features": RNG.normal(size=(70, 8)).astype(np.float32),
    "ids": np.arange(70, dtype=np.int32),
    "there": np.arange(70) % 2 == 0,
    "none": np.zeros((0, 5), np.float32),
    "count": np.int64(3),
}


@pytest.fixture
def small(monkeypatch):
    """Pieces of 16 rows of features."""
    monkeypatch.setattr(saved, "PIECE", 16 * 8 * 4)


@pytest.fixture
def boundary(tmp_path, small):
    path = tmp_path / "features" / "task_001.json"
    saved.save(path, {"stream": FIRST})
    return path


def pieces(path):
    return {piece.name: piece.stat().st_mtime_ns for piece in (path.parent / "pieces").iterdir()}


def test_every_array_comes_back_with_its_bits_dtype_and_shape(boundary):
    found = saved.saved(boundary, {"stream": FIRST})["stream"]
    for name, array in FIRST.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].flags.writeable
    assert saved.read(boundary).keys() == {f"stream.{name}" for name in FIRST}


def test_rows_that_stay_are_not_written_again_and_what_nobody_needs_goes(boundary):
    before = pieces(boundary)
    more = {name: np.concatenate([array, array]) if array.ndim else array for name, array in FIRST.items()}
    more["features"][20] += 1  # a row of the second piece
    after = boundary.with_name("task_002.json")
    saved.save(after, {"stream": more})
    kept = {name: time for name, time in pieces(after).items() if name in before}
    assert kept == before  # the boundary before can still be taken up
    np.testing.assert_array_equal(saved.read(boundary)["stream.features"], FIRST["features"])
    saved.keep_only(after)
    assert sorted(path.name for path in after.parent.iterdir()) == ["pieces", "task_002.json"]
    index = told(after)
    assert pieces(after).keys() == {name for array in index.values() for name in array["pieces"]}
    of_features = index["stream.features"]["pieces"]
    # Of the five pieces before, that with the changed row and the unfinished last one are others now.
    assert [name in before for name in of_features] == [True, False, True, True] + [False] * (len(of_features) - 4)
    np.testing.assert_array_equal(saved.read(after)["stream.features"], more["features"])


def test_a_piece_that_was_cut_short_is_written_again(boundary):
    (name, *_) = told(boundary)["stream.features"]["pieces"]
    piece = boundary.parent / "pieces" / name
    piece.write_bytes(piece.read_bytes()[:7])
    saved.save(boundary, {"stream": FIRST})
    np.testing.assert_array_equal(saved.read(boundary)["stream.features"], FIRST["features"])


def told(path):
    return json.loads(path.read_text())["arrays"]


def signed(arrays):
    """An index as it is written."""
    return json.dumps({"arrays": arrays, "digest": saved._digest(json.dumps(arrays).encode())})


def damaged(arrays, key, value):
    arrays["stream.features"][key] = value
    return signed(arrays)


@pytest.mark.parametrize(
    "write",
    [
        lambda content: "",
        lambda content: signed(content)[:-40],
        lambda content: "[]",
        lambda content: signed({}),
        lambda content: signed([]),
        lambda content: signed(content).replace("[70, 8]", "[8, 70]"),
        lambda content: damaged(content, "dtype", "|O"),
        lambda content: damaged(content, "dtype", 7),
        lambda content: damaged(content, "shape", [10**12, 8]),
        lambda content: damaged(content, "shape", [-70, -8]),
        lambda content: damaged(content, "shape", "70"),
        lambda content: damaged(content, "pieces", ["nobody"]),
        lambda content: damaged(content, "pieces", content["stream.ids"]["pieces"]),
    ],
)
def test_whatever_a_damaged_index_holds_it_is_one_sentence(boundary, write):
    boundary.write_text(write(told(boundary)))
    with pytest.raises(UserError, match=rf"^{boundary} cannot be read \(.+\); delete the folder {boundary.parent} to"):
        saved.saved(boundary, {"stream": FIRST})


@pytest.mark.parametrize("change", ["a byte", "its end", "all of it"])
def test_a_damaged_piece_is_noticed(boundary, change):
    (name, *_) = told(boundary)["stream.features"]["pieces"]
    piece = boundary.parent / "pieces" / name
    content = bytearray(piece.read_bytes())
    content[3] ^= 1
    piece.write_bytes({"a byte": bytes(content), "its end": content[:-1], "all of it": b""}[change])
    with pytest.raises(UserError, match="cannot be read"):
        saved.saved(boundary, {"stream": FIRST})


def test_a_piece_is_named_by_nothing_but_a_name(boundary, tmp_path):
    """An index cannot make the reader look outside its folder."""
    content = told(boundary)
    (tmp_path / "secret").write_bytes(FIRST["ids"].tobytes())
    content["stream.ids"]["pieces"] = ["../../secret"]
    boundary.write_text(signed(content))
    with pytest.raises(UserError, match="cannot be read"):
        saved.saved(boundary, {"stream": FIRST})
