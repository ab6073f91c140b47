"""The cache of images: resized once, the same images ever after."""

import errno
import fcntl
import json
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data import cache
from lpi_jax.data.cache import cached, shrunk
from lpi_jax.data.images import BadImage
from lpi_jax.data.loader import Transform
from lpi_jax.data.transforms import resize_and_crop
from lpi_jax.errors import UserError
from tests.support.cached import (
    SIDE,
    TRAIN,
    VAL,
    asked,
    assert_right,
    noise,
    overwritten,
    read,
    shards,
    stream_of,
)
from tests.support.pixels import pixels, shades
from tests.support.sources import jsonl
from tests.support.terminals import terminal


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Four images in a shard: three shards of training images."""
    monkeypatch.setattr(cache, "SHARD", 4)
    cache._reader.cache_clear()


# ---- the images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [((24, 40), (16, 26)), ((40, 24), (26, 16)), ((33, 33), (16, 16)), ((17, 16), (17, 16)), ((9, 50), (9, 50))],
)
def test_the_shorter_side_becomes_the_side_and_nothing_is_enlarged(size, expected):
    image = noise(*size, 0)
    found = shrunk(image, SIDE)
    assert pixels(found).shape == (*expected, 3)
    if size == expected:
        assert found is image
    else:
        pillow = image.resize(expected[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pixels(found), pixels(pillow))


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90))
def test_the_centre_view_is_the_same_with_and_without_the_cache(height, width):
    image = noise(height, width, height, width)
    np.testing.assert_array_equal(resize_and_crop(shrunk(image, 16), 16), resize_and_crop(image, 16))


def test_cached_images_are_the_shrunk_ones_and_are_decoded_once(tmp_path):
    stream = stream_of()
    kept = cached(stream, tmp_path, SIDE)
    for _ in range(3):
        assert_right(read(kept))
    assert [sorted(own) for own in asked(stream)] == [list(range(len(TRAIN))), list(range(len(VAL)))]
    again = stream_of()
    assert_right(read(cached(again, tmp_path, SIDE)))
    assert asked(again) == [[], []]


def test_everything_but_the_images_stays(tmp_path):
    stream = stream_of()
    kept = cached(stream, tmp_path, SIDE)
    assert replace(kept, tasks=()) == replace(stream, tasks=())
    for ours, theirs in ((kept.tasks[0].train, stream.tasks[0].train), (kept.tasks[0].val, stream.tasks[0].val)):
        assert replace(ours, load=theirs.load) == theirs
        assert ours.records[1].annotation == "1"
    assert (kept.tasks[0].name, kept.tasks[0].description) == ("toys", "things")


def test_images_from_files_are_kept_pixel_by_pixel_and_their_files_needed_no_more(tmp_path):
    lines = [
        {"image": f"{i}.png", "captions": ["a toy"], "task": "toys", "split": "train" if i < len(TRAIN) else "val"}
        for i in range(len(TRAIN) + 1)
    ]
    for i, image in enumerate([*TRAIN, VAL[0]]):  # some are shrunk, some stay as they were read
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "toys.jsonl").write_text("\n".join(map(json.dumps, lines)))
    kept = cached(jsonl(tmp_path / "toys.jsonl"), tmp_path / "cache", SIDE)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert_right(read(kept))


def test_a_cached_image_goes_through_both_views_and_a_changed_one_spoils_no_other(tmp_path):
    load = cached(stream_of(), tmp_path, SIDE).tasks[0].train.load
    for kind in ("centre", "random"):
        view = Transform(8, kind)(load(np.int64(0)), (1, 2))
        np.testing.assert_array_equal(view, Transform(8, kind)(shrunk(TRAIN[0], SIDE), (1, 2)))
    for _ in range(2):
        image = load(0)
        np.testing.assert_array_equal(pixels(image), pixels(shrunk(TRAIN[0], SIDE)))
        image.paste((1, 2, 3), (0, 0, 9, 9))


@pytest.mark.parametrize("index", [-1, len(TRAIN)])
def test_an_image_that_is_not_in_the_split_is_an_index_error(tmp_path, index):
    with pytest.raises(IndexError, match=f"image {index} of {len(TRAIN)}"):
        cached(stream_of(), tmp_path, SIDE).tasks[0].train.load(index)


# ---- whose they are --------------------------------------------------------------------------------------------------


def test_other_images_and_sizes_have_files_of_their_own(tmp_path):
    streams = [
        stream_of(),
        stream_of(fingerprint="beef"),
        stream_of(name="toys!"),
        stream_of(name="toys?"),
        stream_of(TRAIN[:9]),
    ]
    for count, stream in enumerate(streams, 1):
        kept = cached(stream, tmp_path, SIDE)
        assert len(asked(stream)[0]) == len(kept.tasks[0].train)
        assert len(list(tmp_path.glob("*-train-*"))) == count
    larger = stream_of()
    assert pixels(cached(larger, tmp_path, SIDE + 1).tasks[0].train.load(0)).shape == (17, 28, 3)
    assert len(asked(larger)[0]) == len(TRAIN)
    assert len(list(tmp_path.glob(f"*-train-{SIDE + 1}-*"))) == 1


@pytest.mark.parametrize("name", ["../../outside", "/etc", "", ".", "a" * 500, "Spiel\nzeug \U0001f9f8"])
def test_no_task_name_leads_out_of_the_folder(tmp_path, name):
    cached(stream_of(name=name), tmp_path / "cache", SIDE)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert len(shards(tmp_path / "cache")) == 3


def test_a_shard_of_another_split_is_not_taken_for_ones_own(tmp_path, capsys):
    cached(stream_of(fingerprint="other", train=TRAIN[::-1]), tmp_path / "other", SIDE)
    cached(stream_of(), tmp_path / "own", SIDE)
    for theirs, ours in zip(shards(tmp_path / "other"), shards(tmp_path / "own"), strict=True):
        shutil.copy(theirs, ours)
    assert_right(read(cached(stream_of(), tmp_path / "own", SIDE)))
    assert capsys.readouterr().err.count("is damaged") == 3


# ---- building --------------------------------------------------------------------------------------------------------


def test_an_interrupted_build_goes_on_behind_the_last_whole_shard(tmp_path):
    broken = list(TRAIN)
    broken[6] = RuntimeError("pulled the plug")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        cached(stream_of(broken), tmp_path, SIDE)
    assert [path.name for path in shards(tmp_path)] == ["00000-of-00003.array_record"]
    assert {path.name for path in shards(tmp_path)[0].parent.iterdir()} == {"00000-of-00003.array_record", "lock"}
    stream = stream_of()
    assert_right(read(cached(stream, tmp_path, SIDE)))
    assert sorted(asked(stream)[0]) == [4, 5, 6, 7, 8, 9]


def test_what_a_killed_build_left_half_written_is_no_shard(tmp_path):
    cached(stream_of(), tmp_path, SIDE)
    last = shards(tmp_path)[-1]
    last.rename(last.with_name(f".{last.name}.part"))
    stream = stream_of()
    assert_right(read(cached(stream, tmp_path, SIDE)))
    assert sorted(asked(stream)[0]) == [8, 9]
    assert not list(tmp_path.glob("*/.*"))


def test_an_image_that_cannot_be_read_comes_up_as_it_is(tmp_path):
    lines = [
        {"image": f"{i}.png", "captions": ["a toy"], "task": "toys", "split": "val" if i == 9 else "train"}
        for i in range(10)
    ]
    for i in range(10):
        TRAIN[i].save(tmp_path / f"{i}.png")
    (tmp_path / "toys.jsonl").write_text("\n".join(map(json.dumps, lines)))
    stream = jsonl(tmp_path / "toys.jsonl")
    (tmp_path / "5.png").write_bytes(b"no image")
    with pytest.raises(BadImage, match=r"toys\.jsonl, line 6: .*5\.png") as raised:
        cached(stream, tmp_path / "cache", SIDE)
    assert raised.value.kind == "unreadable image"


def test_a_progress_bar_with_time_left_for_many_images_only(tmp_path, capsys, monkeypatch):
    cached(stream_of(), tmp_path, SIDE)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cache, "_PROGRESS_FROM", 10)
    with terminal(monkeypatch, 80) as sent:
        cached(stream_of(fingerprint="beef"), tmp_path, SIDE)
    shown = b"".join(sent).decode()
    assert "resizing images: 100%" in shown
    assert "13/13 [" in shown  # of both splits; behind it the time gone and the time left
    cached(stream_of(fingerprint="feed"), tmp_path, SIDE)
    assert capsys.readouterr().err == "resizing images: 13\n"  # without a terminal
    cached(stream_of(fingerprint="feed"), tmp_path, SIDE)
    assert capsys.readouterr().err == ""


def test_a_process_that_builds_the_same_cache_is_waited_for_and_its_work_taken_over(tmp_path, capsys):
    cached(stream_of(), tmp_path / "theirs", SIDE)
    (theirs,) = {path.parent for path in shards(tmp_path / "theirs")}
    folder = tmp_path / "own" / theirs.name
    folder.mkdir(parents=True)
    stream, done = stream_of(), []
    with open(folder / "lock", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: done.append(cached(stream, tmp_path / "own", SIDE)))
        waiting.start()
        time.sleep(0.2)
        assert not done
        assert asked(stream)[0] == []
        for path in shards(tmp_path / "theirs"):
            shutil.copy(path, folder)
    waiting.join(30)
    assert_right(read(done[0]))
    assert asked(stream)[0] == []
    assert capsys.readouterr().err.startswith(f"{folder}: waiting for another process, which fills this part of")


def test_a_file_system_without_locks_takes_a_cache_and_that_is_told_once(tmp_path, monkeypatch, capsys):
    def missing(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    assert_right(read(cached(stream_of(), tmp_path, SIDE)))
    said = f"{tmp_path}: a file system without locks (flock); only one process may fill the cache\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file.*: the cache of images cannot be written \(.+\)"):
        cached(stream_of(), tmp_path / place, SIDE)


@pytest.mark.parametrize("name", ["{}", ".{}.part"])
def test_a_folder_in_place_of_a_shard_is_one_sentence(tmp_path, name, capsys):
    cached(stream_of(), tmp_path, SIDE)
    path = shards(tmp_path)[0]
    path.unlink()
    path.with_name(name.format(path.name)).mkdir()
    with pytest.raises(UserError, match=rf"{path}: the cache of images cannot be written \(.+\)$"):
        cached(stream_of(), tmp_path, SIDE)
    assert capsys.readouterr().err == ""


def test_a_file_that_the_source_lacks_is_no_failure_to_write(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'elsewhere\.png'"):
        cached(stream_of([FileNotFoundError(2, "gone", "elsewhere.png")]), tmp_path, SIDE)


def test_a_full_disk_found_when_the_file_is_flushed_is_one_sentence(tmp_path, monkeypatch):
    def fsync(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(UserError, match=r"cannot be written \(\[Errno 28\] No space left on device\)$"):
        cached(stream_of(), tmp_path, SIDE)
    assert shards(tmp_path) == []


def test_an_error_of_the_source_without_a_file_name_comes_through(tmp_path):
    with pytest.raises(OSError, match="the network is gone"):
        cached(stream_of([OSError("the network is gone")]), tmp_path, SIDE)


def test_a_full_disk_is_one_sentence():
    with (
        pytest.raises(UserError, match=r"the cache of images cannot be written .*No space left on device"),
        cache._writer("/dev/full") as put,
    ):
        for _ in range(20):
            put(bytes(100_000))


@pytest.mark.parametrize("side", [0, -1])
def test_a_side_of_nothing_is_refused(tmp_path, side):
    with pytest.raises(UserError, match=f"the side of cached images is {side}, expected at least 1"):
        cached(stream_of(), tmp_path / "cache", side)
    assert not (tmp_path / "cache").exists()


# ---- threads and processes -------------------------------------------------------------------------------------------


def test_many_threads_read_at_once_and_a_damaged_shard_is_mended_once(tmp_path):
    stream = stream_of()
    kept = cached(stream, tmp_path, SIDE)
    stream.tasks[0].train.load.asked.clear()
    overwritten(shards(tmp_path)[0])
    wanted = np.random.default_rng(0).integers(0, len(TRAIN), 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(kept.tasks[0].train.load, wanted))
    for index, image in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(pixels(image), pixels(shrunk(TRAIN[index], SIDE)))
    assert sorted(asked(stream)[0]) == [0, 1, 2, 3]


def test_a_cached_split_can_be_pickled_and_mends_itself_where_it_arrives(tmp_path):
    kept = cached(stream_of(), tmp_path, SIDE)
    read(kept)
    arrived = pickle.loads(pickle.dumps(kept.tasks[0].train))
    shards(tmp_path)[2].unlink()
    assert_right([arrived.load(i) for i in range(len(TRAIN))])


def test_no_more_shards_are_open_than_allowed(tmp_path):
    reds = [i % 256 for i in range(4 * (cache._OPEN + 5))]
    images = [Image.new("RGB", (2, 2), (red, 0, 0)) for red in reds]
    assert shades(cached(stream_of(images), tmp_path, SIDE).tasks[0].train) == reds
    assert cache._reader.cache_info().currsize == cache._OPEN
