"""Tar shards: what is read, and what each kind of bad member says."""

import gzip
import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data.images import BadImage
from lpi_jax.data.sources.webdataset import MAX_TEXT_BYTES
from lpi_jax.errors import UserError
from tests.support.pixels import pixels, shades
from tests.support.sources import webdataset
from tests.support.splits import captions_of
from tests.support.tar_shards import GOOD, image, link, pair, shard, tarred


@pytest.fixture
def folder(tmp_path):
    """Task toys with images 1 and 2 for training and 3 for validation."""
    shard(tmp_path, "data/toys/train-000.tar", GOOD)
    shard(tmp_path, "data/toys/val-000.tar", pair(3))
    return tmp_path / "data"


def test_folders_are_tasks_and_names_of_shards_are_splits(folder):
    shard(folder, "birds/train-a.tar", pair(7))
    shard(folder, "birds/validation.tar", pair(8))
    shard(folder, "toys/train-001.tar", [("0001.png", image(4)), ("0001.txt", b"another shard, the same name")])
    stream = webdataset(folder)
    assert [task.name for task in stream.tasks] == ["birds", "toys"] and stream.name == "data"
    birds, toys = stream.tasks
    assert captions_of(birds.train) == (("number 7",),) and shades(birds.val) == [8]
    assert toys.train.keys == ("toys/train-000.tar/0001", "toys/train-000.tar/0002", "toys/train-001.tar/0001")
    assert shades(toys.train) == [1, 2, 4] and pixels(toys.val.load(0)).shape == (4, 4, 3)
    assert stream.skipped == {} and stream.notes == {"path": str(folder), "images": 6}


def test_json_names_task_split_captions_and_description(tmp_path):
    records = [
        {"task": "toys", "split": "train", "captions": ["one", "uno"], "description": "things to play with"},
        {"task": "toys", "split": "val", "caption": "two", "other": None},
        {"task": "birds", "split": "train", "caption": ["three", "tre"], "captions": None},
        {"task": "birds", "split": "val"},
    ]
    members = [
        member
        for number, record in enumerate(records)
        for member in ((f"{number}.jpg", image(10 * number, "jpeg")), (f"{number}.json", json.dumps(record).encode()))
    ]
    path = shard(tmp_path, "all.tar", [*members, ("3.txt", b"four"), ("1.txt", b"not this")])
    stream = webdataset(path)
    toys, birds = stream.tasks
    assert (toys.name, toys.description, birds.description) == ("toys", "things to play with", "birds")
    assert captions_of(toys.train) == (("one", "uno"),) and captions_of(toys.val) == (("two",),)
    assert captions_of(birds.train) == (("three", "tre"),) and captions_of(birds.val) == (("four",),)
    assert toys.train.keys == ("all.tar/0",)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_long_names_and_fractions_of_seconds(tmp_path, form):
    deep = "/".join(["a folder of some length"] * 4) + "/"  # within what ustar allows
    longer = deep if form == tarfile.USTAR_FORMAT else deep * 3
    shard(tmp_path, "t/train.tar", pair(1, folder=longer) + pair(2, folder="./"), form=form, mtime=1.5)
    shard(tmp_path, "t/val.tar", pair(3), form=form, mtime=1.5)
    stream = webdataset(tmp_path)
    assert shades(stream.tasks[0].train) == [1, 2] and stream.tasks[0].train.keys[1] == "t/train.tar/0002"


@pytest.mark.parametrize("ending, kind", [("jpg", "jpeg"), ("JPEG", "jpeg"), ("Png", "png"), ("webp", "webp")])
def test_images_in_every_format(folder, ending, kind):
    shard(folder, "toys/train-000.tar", [(f"a.{ending}", image(200, kind)), ("a.TXT", b"a")])
    assert abs(shades(webdataset(folder).tasks[0].train)[0] - 200) < 3


def test_an_image_with_another_formats_ending_is_read_as_what_it_is(folder):
    shard(folder, "toys/train-000.tar", [("a.jpg", image(9, "png")), ("a.txt", b"a")])
    assert shades(webdataset(folder).tasks[0].train) == [9]


def test_members_of_an_example_need_not_stand_together(folder):
    members = pair(1) + pair(2) + pair(4)
    shard(folder, "toys/train-000.tar", members[1::2] + members[::2])
    train = webdataset(folder).tasks[0].train
    assert shades(train) == [1, 2, 4] and captions_of(train) == (("number 1",), ("number 2",), ("number 4",))


def test_links_to_members_are_those_members_under_another_name(folder):
    """Hard ones, symbolic ones relative to their folder, links to links, before and behind what they lead to."""
    members = [
        link("early.png", "deep/0007.png"),
        ("early.txt", b"before its target"),
        *pair(7, "the target", folder="deep/"),
        *[link("deep/soft.png", "0007.png"), link("deep/soft.txt", "./../deep/other.txt")],
        *[("deep/other.txt", b"by symbolic links"), ("deep/other.png", image(9))],
        *[link("hard.png", "deep/0007.png", tarfile.LNKTYPE), ("hard.txt", b"by a hard link")],
        *[link("chain.png", "deep/soft.png"), ("chain.txt", b"by a link to a link")],
        link("notes.cls", "nowhere.cls"),  # no part of an example: ignored like any other ending
    ]
    shard(folder, "toys/train-001.tar", members)
    train = webdataset(folder).tasks[0].train
    place = train.keys.index("toys/train-001.tar/early")  # the same image five times: one with all captions
    spoken = ("before its target", "the target", "by symbolic links", "by a hard link", "by a link to a link")
    assert captions_of(train)[place] == spoken
    np.testing.assert_array_equal(pixels(train.load(place)), pixels(Image.open(io.BytesIO(image(7)))))


def test_endings_of_shards_may_be_in_capitals_and_hidden_files_are_none(folder):
    shard(folder, "toys/train-001.TAR", pair(7))
    (folder / "toys" / "._train-000.tar").write_bytes(b"what macOS leaves")
    (folder / ".Trash").mkdir()
    (folder / ".Trash" / "train-000.tar").write_bytes(b"")
    assert "toys/train-001.TAR/0007" in webdataset(folder).tasks[0].train.keys


@pytest.mark.parametrize("skip", ["error", "skip"])
def test_shards_that_lie_too_deep_are_named_in_every_mode(folder, skip):
    deep = shard(folder, "toys/2026/part/train-001.tar", pair(7))
    with pytest.raises(UserError, match=rf"^{deep}: this shard lies too deep; expected SHARD.tar or TASK/SHARD.tar in"):
        webdataset(folder, on_bad_example=skip)


def test_white_space_in_a_text_is_single_spaces_and_all_of_it_one_caption(folder):
    shard(folder, "toys/train-000.tar", [("a.png", image(1)), ("a.txt", b"\xef\xbb\xbf a red\r\n\n kite\t.\n")])
    assert captions_of(webdataset(folder).tasks[0].train) == (("a red kite .",),)


def test_captions_in_any_script_stay_as_they_are(folder):
    spoken = ("עפיפון אדום", "طائرة ورقية حمراء", "🪁 kite", "紅い凧", "e\u0301")
    members = [m for i, text in enumerate(spoken, 10) for m in pair(i, text)]
    shard(folder, "toys/train-000.tar", members)
    assert captions_of(webdataset(folder).tasks[0].train) == tuple((text,) for text in spoken)


def test_other_members_are_ignored(folder):
    masks = [
        ("0001.seg.png", b"mask"),
        ("0001.cls", b"3"),
        ("README", b""),
        ("._0001.png", b"of macOS"),
        ("x.npy", b""),
    ]
    inside = tarfile.TarInfo("sub")
    inside.type = tarfile.DIRTYPE
    shard(folder, "toys/train-000.tar", [("sub", inside), *GOOD, *masks])
    (folder / "toys/notes.txt").write_text("no shard")
    stream = webdataset(folder)
    assert shades(stream.tasks[0].train) == [1, 2] and stream.skipped == {}


def test_streams_cross_process_borders(folder):
    assert shades(pickle.loads(pickle.dumps(webdataset(folder))).tasks[0].train) == [1, 2]


def test_relative_paths_one_shard_and_task_order(folder, monkeypatch):
    shard(folder, "birds/train-a.tar", pair(7))
    shard(folder, "birds/val.tar", pair(8))
    monkeypatch.chdir(folder.parent)
    stream = webdataset("data", task_order=["toys", "birds"])
    assert [task.name for task in stream.tasks] == ["toys", "birds"] and shades(stream.tasks[0].val) == [3]
    with pytest.raises(
        UserError, match=r"train-000.tar, '0001': there is no task; expected it in a .json or as the fol"
    ):
        webdataset("data/toys/train-000.tar")


def test_fingerprint_follows_names_sizes_and_texts_but_not_the_folder(folder, tmp_path):
    first = webdataset(folder).fingerprint
    assert first == webdataset(folder, on_bad_example="skip").fingerprint and len(first) == 64
    folder = folder.rename(tmp_path / "elsewhere")
    assert webdataset(folder).fingerprint == first
    found = {first}
    for members in (GOOD + pair(4), pair(1, "number i") + pair(2), pair(1, folder="x/") + pair(2), GOOD[::-1]):
        shard(folder, "toys/train-000.tar", members)
        found.add(webdataset(folder).fingerprint)
    assert len(found) == 5


PNG = image(5)
BIG = io.BytesIO()
Image.new("RGB", (900, 900)).save(BIG, "png")

BAD = [
    ("no captions", [("b.png", PNG)], "'b': there is only 'b.png'; expected .txt, .json beside it"),
    ("no captions", [("b.png", PNG), ("b.json", b"{}")], "neither captions nor caption, and there is no .txt"),
    ("no captions", [("b.png", PNG), ("b.json", b'{"captions": []}')], "captions is an empty list"),
    ("caption without image", [("b.txt", b"b")], "'b': there is only 'b.txt'; expected .jpg, .jpeg, .png, .webp"),
    ("caption without image", [("b.json", b'{"caption": "b"}')], "there is only 'b.json'"),
    ("caption without image", [("b.gif", PNG), ("b.txt", b"b")], "there is only 'b.gif', 'b.txt'; expected .jpg"),
    (
        "no such member",
        [link("b.png", "/etc/passwd"), ("b.txt", b"b")],
        "'b.png' is a link to '/etc/passwd', which is no",
    ),
    ("no such member", [link("b.png", "../../0001.png"), ("b.txt", b"b")], "'b.png' is a link to '../../0001.png'"),
    (
        "no such member",
        [link("b.png", "b.png"), ("b.txt", b"b")],
        "'b.png' is a link to 'b.png', which is no file in the",
    ),
    ("no such member", [("b.png", PNG), link("b.txt", "c.txt", tarfile.LNKTYPE)], "'b.txt' is a link to 'c.txt'"),
    ("no such member", [link("b.png", "", tarfile.FIFOTYPE), ("b.txt", b"b")], "'b.png' is no file in the shard"),
    ("unknown ending", [("b.v2.jpg", PNG), ("b.v2.txt", b"b")], "an ending begins at the first dot"),
    ("repeated member", [("b.png", PNG), ("b.txt", b"b"), ("b.png", PNG)], "'b': there are two members 'b.png'"),
    ("repeated member", [("b.png", PNG), ("b.txt", b"b"), ("b.txt", b"c")], "'b': there are two members 'b.txt'"),
    ("repeated member", [("b.png", PNG), ("b.txt", b"b"), ("./b.PNG", PNG)], "two members './b.PNG'"),
    ("repeated member", [("b.png", PNG), ("b.jpg", PNG), ("b.txt", b"b")], "there are 2 images, 'b.png', 'b.jpg'; "),
    ("empty caption", [("b.png", PNG), ("b.txt", b" ... \n")], "caption '...' is empty once it is cleaned"),
    ("empty caption", [("b.png", PNG), ("b.txt", b"")], "caption '' is empty"),
    ("not UTF-8", [("b.png", PNG), ("b.txt", b"caf\xe9")], "byte 4 of its .txt is not UTF-8"),
    ("not UTF-8", [("b.png", PNG), ("b.json", b'{"caption": "\\ud800"}')], "surrogate"),
    ("not UTF-8", [("b\udcff.png", PNG), ("b\udcff.txt", b"b")], "the name holds half of a surrogate pair"),
    ("text too long", [("b.png", PNG), ("b.txt", b"x" * (MAX_TEXT_BYTES + 1))], "its .txt has more than 1000000 bytes"),
    ("text too long", [("b.png", PNG), ("b.json", b" " * (MAX_TEXT_BYTES + 1))], "its .json has more than"),
    ("not JSON", [("b.png", PNG), ("b.json", b"{")], "its .json is not JSON"),
    ("not JSON", [("b.png", PNG), ("b.json", b"[" * 100_000)], "its .json is JSON of an absurd kind"),
    ("not JSON", [("b.png", PNG), ("b.json", b"9" * 10_000)], "its .json is JSON of an absurd kind"),
    ("not an object", [("b.png", PNG), ("b.json", b'["b"]')], "its .json is a list; expected an object"),
    ("wrong type", [("b.png", PNG), ("b.json", b'{"captions": "b"}')], "captions is a string; expected a list"),
    ("wrong type", [("b.png", PNG), ("b.json", b'{"caption": 3}')], "caption is a number; expected a string or a list"),
    ("wrong type", [("b.png", PNG), ("b.json", b'{"caption": "b", "task": 3}')], "task is a number|task is 3"),
    ("wrong type", [("b.png", PNG), ("b.json", b'{"caption": "b", "description": " "}')], "description is ' '"),
    (
        "contradiction",
        [("b.png", PNG), ("b.json", b'{"caption": "b", "task": "x"}')],
        "task is 'x' .* but 'toys' by the folder of the shard$",
    ),
    (
        "contradiction",
        [("b.png", PNG), ("b.json", b'{"caption": "b", "split": "val"}')],
        "split is 'val' .* but 'train' by the beginning of the shard's name$",
    ),
    ("unreadable image", [("b.png", b""), ("b.txt", b"b")], "member 'b.png': this is not an image"),
    ("unreadable image", [("b.png", PNG[:-20]), ("b.txt", b"b")], "member 'b.png': "),
    ("unreadable image", [("b.jpg", b"GIF, or so it says"), ("b.txt", b"b")], "not an image in a known format"),
    (
        "image too large",
        [("b.png", BIG.getvalue()), ("b.txt", b"b")],
        "900 x 900 pixels, more than the 800000 allowed",
    ),
]


@pytest.mark.parametrize("kind, bad, message", BAD, ids=[f"{kind}-{i}" for i, (kind, _, _) in enumerate(BAD)])
def test_a_bad_member_is_one_clear_sentence_or_is_counted(folder, kind, bad, message):
    path = shard(folder, "toys/train-000.tar", [*pair(1), *bad, *pair(2)])
    with pytest.raises(UserError, match=message) as caught:
        webdataset(folder, max_pixels=800_000)
    text = str(caught.value)
    assert text.startswith(f"{path}, '") and "\n" not in text and len(text) < 500
    stream = webdataset(folder, on_bad_example="skip", max_pixels=800_000)
    assert stream.skipped == {kind: 1} and shades(stream.tasks[0].train) == [1, 2]


@pytest.mark.parametrize(
    "kind, record, message",
    [
        (
            "missing key",
            {"caption": "b", "split": "train"},
            "there is no task; expected it in a .json or as the folder",
        ),
        ("missing key", {"caption": "b", "task": "toys"}, "there is no split; expected it in a .json or as the begin"),
        (
            "unknown split",
            {"caption": "b", "task": "toys", "split": "test"},
            "split is 'test'; expected 'train' or 'val'",
        ),
    ],
)
def test_task_and_split_must_be_said_somewhere(tmp_path, kind, record, message):
    good = [{"caption": "b", "task": "toys", "split": split} for split in ("train", "val")]
    members = [
        member
        for number, told in enumerate([*good, record])
        for member in ((f"{number}.png", image(number)), (f"{number}.json", json.dumps(told).encode()))
    ]
    path = shard(tmp_path, "shard.tar", members)
    with pytest.raises(UserError, match=f"{path}, '2': {message}"):
        webdataset(path)
    assert webdataset(path, on_bad_example="skip").skipped == {kind: 1}


def test_an_image_damaged_inside_names_shard_and_member_when_loaded(folder):
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(noise, "jpeg")
    cut = noise.getvalue()[: len(noise.getvalue()) // 2]
    path = shard(folder, "toys/train-000.tar", [("b.jpg", cut), ("b.txt", b"b"), *GOOD])
    with pytest.raises(BadImage, match=f"{path}, 'b': .*member 'b.jpg'.*truncated") as caught:
        webdataset(folder).tasks[0].train.load(0)
    assert caught.value.kind == "unreadable image"
    stream = webdataset(folder, on_bad_example="skip")
    assert stream.skipped == {"unreadable image": 1} and shades(stream.tasks[0].train) == [1, 2]


def test_a_shard_that_shrinks_later_is_a_bad_image(folder):
    train = webdataset(folder).tasks[0].train
    (folder / "toys/train-000.tar").write_bytes(b"")
    with pytest.raises(BadImage, match="the file ends after 0 of its"):
        train.load(0)


def test_linked_shards_are_one_shard(folder):
    os.symlink(folder / "toys/train-000.tar", folder / "toys/train-001.tar")
    train = webdataset(folder).tasks[0].train
    assert captions_of(train) == (("number 1",), ("number 2",))
    os.symlink(folder / "toys", folder / "birds")
    with pytest.raises(
        UserError, match=r"toys/train-000.tar, '0001': image .* stands already in .*birds/train-000.tar"
    ):
        webdataset(folder)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_task_with_one_example_is_an_error(folder, split):
    shard(folder, f"birds/{split}.tar", pair(5))
    other = {"train": "val", "val": "train"}[split]
    with pytest.raises(UserError, match=f"task 'birds' has no {other} images; expected at least one"):
        webdataset(folder)


def test_a_task_of_damaged_shards_only_is_an_error_even_when_skipping(folder):
    for split in ("train", "val"):
        shard(folder, f"birds/{split}.tar", b"no tar at all")
    with pytest.raises(UserError, match="task 'birds' has no train images once 2 bad examples are skipped"):
        webdataset(folder, on_bad_example="skip")


@pytest.mark.parametrize(
    "name, pack", [("train.tar.gz", gzip.compress), ("train.tgz", gzip.compress), ("train.tar", gzip.compress)]
)
def test_compressed_shards_are_refused_in_every_mode(folder, name, pack):
    path = shard(folder, f"toys/{name}", pack(tarred(GOOD)))
    for mode in ("error", "skip"):
        with pytest.raises(UserError, match=f"{path}: this shard is compressed.*; expected a plain .tar"):
            webdataset(folder, on_bad_example=mode)


@pytest.mark.parametrize("name", ["a.tar.lz4", "a.tar.zstd", "a.tbz", "a.tzst", "a.TAR.Z", "deep/er/a.tar.gz"])
def test_compressed_shards_of_any_kind_and_depth_are_named_not_passed_over(folder, name):
    path = shard(folder, f"toys/{name}", b"whatever packed it")
    with pytest.raises(UserError, match=f"^{path}: this shard is compressed; expected a plain .tar"):
        webdataset(folder)


def test_indices_beside_shards_are_no_shards(folder):
    shard(folder, "toys/train-000.tar.index.json", b"{}")
    assert len(webdataset(folder).tasks[0].train) == 2


def test_a_folder_whose_name_is_no_text_is_a_bad_example(folder):
    name = os.fsdecode(b"caf\xe9")
    shard(folder, f"{name}/train.tar", pair(7))
    with pytest.raises(UserError, match="'0007': task holds half of a surrogate pair"):
        webdataset(folder)


def test_no_shards_no_folder_pipes_and_wrong_arguments(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: there are no shards"):
        webdataset(tmp_path / "empty")
    with pytest.raises(UserError, match="there is no such folder or file"):
        webdataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="on_bad_example is 'ignore'"):
        webdataset(folder, on_bad_example="ignore")
    os.mkfifo(folder / "toys/train-001.tar")
    with pytest.raises(UserError, match=r"train-001.tar: this is not a regular file"):
        webdataset(folder)
