"""A stream of one's own: what is read, and what each kind of bad line says."""

import json
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data import captioned
from lpi_jax.data.examples import checked_captions, failing_at
from lpi_jax.data.images import BadImage
from lpi_jax.data.sources.jsonl import MAX_LINE_BYTES
from lpi_jax.errors import UserError
from tests.support.pixels import pixels, shades
from tests.support.sources import jsonl
from tests.support.splits import captions_of


def line(image, task="cats", split="train", captions=("a cat",), **more):
    return {"image": image, "captions": list(captions), "task": task, "split": split, **more}


GOOD = [
    line("img/a.png", captions=["a cat", "The cat, again."]),
    line("img/b.png", split="val"),
    line("img/c.png", task="dogs", description="dogs of all kinds"),
    line("img/d.png", task="dogs", split="val", description="too late"),
]


@pytest.fixture
def folder(tmp_path):
    """Ten sound images img/a.png ... img/j.png and some bad ones."""
    (tmp_path / "img").mkdir()
    for shade, name in enumerate("abcdefghij"):
        Image.new("RGB", (6, 4), (shade, 0, 0)).save(tmp_path / "img" / f"{name}.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "img/cut.jpg")
    cut = (tmp_path / "img/cut.jpg").read_bytes()
    (tmp_path / "img/cut.jpg").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "img/text.png").write_text("no image")
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 8) + b"IDAT" + bytes(12)
    (tmp_path / "img/bomb.png").write_bytes(bomb)
    return tmp_path


def written(folder, lines, ending="\n"):
    """Lines are records, or text or bytes as they are."""
    raw = (x if isinstance(x, bytes) else (x if isinstance(x, str) else json.dumps(x)).encode() for x in lines)
    path = folder / "stream.jsonl"
    path.write_bytes(ending.encode().join(raw))
    return path


def test_tasks_splits_captions_and_images(folder):
    stream = jsonl(written(folder, GOOD))
    assert [task.name for task in stream.tasks] == ["cats", "dogs"]
    assert [task.description for task in stream.tasks] == ["cats", "dogs of all kinds"]
    cats = stream.tasks[0]
    assert cats.train.keys == ("img/a.png",) and cats.val.keys == ("img/b.png",)
    assert captions_of(cats.train) == (("a cat", "The cat, again."),)
    assert captioned.pairs(cats.train).tolist() == [[0, 0], [0, 1]]
    image = pixels(stream.tasks[1].val.load(0))
    assert image.shape == (4, 6, 3) and image[0, 0].tolist() == [3, 0, 0]
    assert stream.skipped == {} and stream.notes["images"] == 4


def test_images_are_not_kept_in_memory(folder):
    stream = jsonl(written(folder, GOOD))
    Image.new("RGB", (6, 4), (99, 0, 0)).save(folder / "img/a.png")
    assert shades(stream.tasks[0].train) == [99]


def test_loaders_cross_process_borders(folder):
    load = pickle.loads(pickle.dumps(jsonl(written(folder, GOOD)).tasks[0].train.load))
    assert pixels(load(0)).shape == (4, 6, 3)


def test_absolute_paths_dot_dot_blank_lines_windows_line_ends_and_other_keys(folder):
    lines = [
        *GOOD,
        "",
        "   ",
        line(str(folder / "img/e.png"), id=7),
        line("../" + folder.name + "/img/f.png", split="val"),
    ]
    stream = jsonl(written(folder, lines, ending="\r\n"))
    assert len(stream.tasks[0].train) == len(stream.tasks[0].val) == 2
    assert shades(stream.tasks[0].train)[1] == 4
    text = (folder / "stream.jsonl").read_bytes()
    (folder / "stream.jsonl").write_bytes(b"\xef\xbb\xbf" + text)
    assert len(jsonl(folder / "stream.jsonl").tasks) == 2


def test_relative_manifest_path(folder, monkeypatch):
    written(folder, GOOD)
    monkeypatch.chdir(folder)
    assert pixels(jsonl("stream.jsonl").tasks[0].train.load(0)).shape == (4, 6, 3)


def test_task_order(folder):
    path = written(folder, GOOD)
    assert [task.name for task in jsonl(path, task_order=["dogs", "cats"]).tasks] == ["dogs", "cats"]
    assert jsonl(path, task_order=["dogs", "cats"]).fingerprint != jsonl(path).fingerprint
    for order, message in [
        (["dogs", "cats", "birds"], "'birds', not in .*its tasks are 'cats', 'dogs'"),
        (["dogs"], "leaves out 'cats'"),
        (["dogs", "cats", "dogs"], "'dogs' 2 times"),
        ("dogs", "expected a list"),
    ]:
        with pytest.raises(UserError, match=message):
            jsonl(path, task_order=order)


def test_fingerprint_follows_manifest_and_images(folder):
    path = written(folder, GOOD)
    first = jsonl(path).fingerprint
    assert first == jsonl(path, on_bad_example="skip").fingerprint and len(first) == 64
    Image.new("RGB", (60, 4)).save(folder / "img/a.png")
    assert jsonl(path).fingerprint != first
    assert jsonl(written(folder, [*GOOD, ""])).fingerprint not in (first, jsonl(written(folder, GOOD)).fingerprint)


BAD = [
    ("not JSON", '{"image": "img/e.png"', "not JSON"),
    ("not JSON", "[" * 100_000, "too deep"),
    ("not an object", "[1, 2]", "a list; expected an object"),
    ("not an object", "null", "null; expected an object"),
    ("not UTF-8", b'{"image": "\xff"}', "byte 12 of the line is not UTF-8"),
    ("not UTF-8", '{"image": "\\ud800", "captions": ["x"], "task": "cats", "split": "val"}', "surrogate"),
    ("line too long", line("img/e.png", captions=["x" * MAX_LINE_BYTES]), "more than 1000000 bytes"),
    ("missing key", {"captions": ["x"], "task": "cats", "split": "val"}, "key 'image' is missing"),
    ("missing key", {"image": "img/e.png", "task": "cats", "split": "val"}, "key 'captions' is missing"),
    ("missing key", {"image": "img/e.png", "captions": ["x"], "split": "val"}, "key 'task' is missing"),
    ("missing key", {"image": "img/e.png", "captions": ["x"], "task": "cats"}, "key 'split' is missing"),
    ("wrong type", line(7), "image is a number; expected a string"),
    ("wrong type", line(" "), "image is empty"),
    ("wrong type", line("img/e.png", task=None), "task is null; expected a string"),
    ("wrong type", line("img/e.png", split=True), "split is true; expected a string"),
    ("wrong type", line("img/e.png") | {"captions": "a cat"}, "captions is a string; expected a list of strings"),
    ("wrong type", line("img/e.png", captions=["a cat", 3]), "captions holds a number"),
    ("wrong type", line("img/e.png", description=["x"]), "description is a list"),
    ("unknown split", line("img/e.png", split="test"), "split is 'test'; expected 'train' or 'val'"),
    ("no captions", line("img/e.png", captions=[]), "captions is an empty list"),
    ("empty caption", line("img/e.png", captions=[" ... ", "?"]), "caption ' ... ' is empty"),
    ("repeated image", line("img/a.png", task="dogs"), "'img/a.png' stands already in line 1$"),
    ("repeated image", line("img/a.png", split="val"), r"in line 1, in the other split \(train\)"),
    ("repeated image", line("./img/../img/a.png", task="dogs"), "stands already in line 1$"),
    ("missing file", line("img/no.png"), "no such file"),
    ("missing file", line("img"), "not a regular file"),
    ("NUL character", line("a\0b"), "image holds a NUL character"),
    ("unreadable image", line("img/text.png"), "not an image in a known format"),
    ("image too large", line("img/bomb.png"), "9000 x 9000 pixels, more than the 50000000 allowed"),
]


@pytest.mark.parametrize("kind, bad, message", BAD, ids=[f"{kind}-{i}" for i, (kind, _, _) in enumerate(BAD)])
def test_a_bad_line_is_one_clear_sentence_or_is_counted(folder, kind, bad, message):
    path = written(folder, [*GOOD, bad, line("img/j.png")])
    with pytest.raises(UserError, match=message) as caught:
        jsonl(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 5: ") and "\n" not in text and len(text) < 500
    stream = jsonl(path, on_bad_example="skip")
    assert stream.skipped == {kind: 1}
    assert stream.tasks[0].train.keys == ("img/a.png", "img/j.png")


def test_an_empty_caption_among_others_is_an_error_or_is_left_out_alone(folder):
    path = written(folder, [*GOOD, line("img/e.png", captions=["a cat", " ... ", "the cat", ""])])
    with pytest.raises(UserError, match=r"line 5: caption ' ... ' is empty"):
        jsonl(path)
    stream = jsonl(path, on_bad_example="skip")
    assert captions_of(stream.tasks[0].train)[-1] == ("a cat", "the cat")
    assert stream.refused.counts == {"cats": {"empty caption": 2}}
    assert [message.partition(": ")[2] for message in stream.refused.first] == [
        "caption ' ... ' is empty once it is cleaned of punctuation",
        "caption '' is empty once it is cleaned of punctuation",
    ]


def test_what_is_kept_of_an_empty_caption_is_its_sentence_alone(folder):
    captions = ["a cat", "?"]
    _, (fault,) = checked_captions(captions, failing_at("here", "cats"))
    assert (fault.kind, fault.task) == ("empty caption", "cats")
    assert fault.__traceback__ is None and fault.__context__ is None


def test_links_to_one_image_are_one_image(folder):
    os.symlink(folder / "img/a.png", folder / "img/link.png")
    os.symlink(folder / "img", folder / "other")
    for twice in ("img/link.png", "other/a.png"):
        with pytest.raises(UserError, match="stands already in line 1"):
            jsonl(written(folder, [*GOOD, line(twice, task="dogs")]))
        train = jsonl(written(folder, [*GOOD, line(twice, captions=["a kitten"])])).tasks[0].train
        assert (train.keys, captions_of(train)) == (("img/a.png",), (("a cat", "The cat, again.", "a kitten"),))


def test_an_image_damaged_inside_names_file_and_line_when_loaded(folder):
    stream = jsonl(written(folder, [*GOOD, line("img/cut.jpg")]))
    with pytest.raises(BadImage, match=r"stream.jsonl, line 5: .*cut.jpg.*truncated") as caught:
        stream.tasks[0].train.load(1)
    assert caught.value.kind == "unreadable image"


def test_skip_finds_damaged_images_before_the_run(folder):
    stream = jsonl(written(folder, [*GOOD, line("img/cut.jpg")]), on_bad_example="skip")
    assert stream.skipped == {"unreadable image": 1} and stream.notes["images"] == 4


def test_skipped_are_counted_by_kind(folder):
    bad = [line("img/no1.png"), line("img/no2.png"), line("img/e.png", split="x"), "{", line("img/cut.jpg")]
    stream = jsonl(written(folder, [*bad, *GOOD]), on_bad_example="skip")
    assert stream.skipped == {"missing file": 2, "unknown split": 1, "not JSON": 1, "unreadable image": 1}
    placed = {"missing file": 2, "unknown split": 1, "unreadable image": 1}
    assert stream.refused.counts == {"": {"not JSON": 1}, "cats": placed}
    places = [message.partition("stream.jsonl, ")[2].partition(":")[0] for message in stream.refused.first]
    assert places == ["line 3", "line 4", "line 1", "line 2", "line 5"]  # what lines say, then what images are


def test_of_many_bad_examples_all_are_counted_and_the_first_told(folder):
    stream = jsonl(written(folder, ["{"] * 50 + GOOD), on_bad_example="skip")
    assert stream.skipped == {"not JSON": 50} and len(stream.refused.first) == 20


def test_a_bad_line_does_not_take_the_place_of_a_later_good_one(folder):
    lines = [line("img/e.png", captions=[]), *GOOD, line("img/e.png")]
    stream = jsonl(written(folder, lines), on_bad_example="skip")
    assert stream.skipped == {"no captions": 1} and "img/e.png" in stream.tasks[0].train.keys


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_task_without_train_or_val_is_always_an_error(folder, split):
    lines = [x for x in GOOD if (x["task"], x["split"]) != ("dogs", split)]
    with pytest.raises(UserError, match=f"task 'dogs' has no {split} images; expected"):
        jsonl(written(folder, lines))
    bad = line("img/no.png", task="dogs", split=split)
    lost = rf"has no {split} images once 1 bad examples are skipped \(the first: {folder}/stream.jsonl, line 4: "
    with pytest.raises(UserError, match=f"task 'dogs' {lost}"):
        jsonl(written(folder, [*lines, bad]), on_bad_example="skip")


def test_a_task_of_bad_lines_only_is_an_error_even_when_skipping(folder):
    with pytest.raises(UserError, match="task 'birds' has no train images"):
        jsonl(written(folder, [*GOOD, line("img/e.png", task="birds", split="test")]), on_bad_example="skip")


def test_no_file_an_empty_file_a_folder_and_wrong_arguments(folder):
    for path, message in [
        (folder / "no.jsonl", "no.jsonl: there is no such file; expected a JSON Lines file"),
        (folder, "this is a folder; expected a JSON Lines file, one line per image$"),
    ]:
        with pytest.raises(UserError, match=message):
            jsonl(path)
    with pytest.raises(UserError, match="the file is empty"):
        jsonl(written(folder, []))
    with pytest.raises(UserError, match="nothing in it names a task"):
        jsonl(written(folder, ["", " "]))
    with pytest.raises(UserError, match="on_bad_example is 'ignore'; expected 'error' or 'skip'"):
        jsonl(written(folder, GOOD), on_bad_example="ignore")


def test_pixel_limit_is_the_callers(folder):
    assert jsonl(written(folder, GOOD), max_pixels=24).notes["images"] == 4
    with pytest.raises(BadImage, match=r"line 1: .* 6 x 4 pixels, more than the 23 allowed"):
        jsonl(written(folder, GOOD), max_pixels=23)


def test_a_progress_bar_for_many_images_only(folder, capsys):
    jsonl(written(folder, GOOD))
    assert capsys.readouterr().err == ""
    (folder / "many").mkdir()
    content = (folder / "img/a.png").read_bytes()
    for i in range(501):
        (folder / f"many/{i}.png").write_bytes(content)
    many = [line(f"many/{i}.png") for i in range(501)]
    stream = jsonl(written(folder, [*many, *GOOD]), on_bad_example="skip")
    assert len(stream.tasks[0].train) == 502
    assert "checking images" in capsys.readouterr().err


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_lines_end_in_a_user_error_or_are_skipped(folder, data):
    text = bytearray("\n".join(map(json.dumps, GOOD)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        end = min(start + data.draw(st.integers(0, 12)), len(text))
        text[start:end] = data.draw(st.binary(max_size=6))
    path = folder / "fuzz.jsonl"
    path.write_bytes(text)
    for mode in ("error", "skip"):
        try:
            stream = jsonl(path, on_bad_example=mode)
        except UserError as error:
            assert "fuzz.jsonl" in str(error)
        else:
            assert all(len(task.train) and len(task.val) for task in stream.tasks)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD[2], "x"]), inner, max_size=5)
        ),
        max_leaves=12,
    )
)
@example({"image": None, "task": "#"})  # a task whose name says nothing either
def test_any_json_at_all_ends_in_a_user_error_or_is_skipped(folder, value):
    path = written(folder, [json.dumps(value), *GOOD])
    try:
        stream = jsonl(path, on_bad_example="skip")
    except UserError as error:
        assert any(told in str(error) for told in ("no train images", "no val images", "has no description"))
    else:
        assert stream.skipped and stream.notes["images"] == len(GOOD)
    with pytest.raises(UserError, match="line 1: "):
        jsonl(path)
