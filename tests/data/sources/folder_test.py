"""A folder of images: tasks, captions and splits by where files lie, and the traps of trees that people collect."""

import os
from pathlib import Path

import pytest

from lpi_jax.check import command
from lpi_jax.config import command_line
from lpi_jax.data import share
from lpi_jax.data.sources import registry
from lpi_jax.errors import UserError
from tests.support.pixels import shades
from tests.support.sources import folder
from tests.support.splits import captions_of
from tests.support.tables import encoded


def write(root, *names, **texts):
    """Files below `root`: images whose red is their number, and beside each of `names` that has one, its text."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".txt":
            path.write_text(texts.get(path.stem, f"about {path.stem}\n"), encoding="utf-8")
        else:
            digits = "".join(filter(str.isdigit, path.stem))
            path.write_bytes(encoded(int(digits or 0)))
    return root


def with_texts(*names):
    return [*names, *(f"{os.path.splitext(name)[0]}.txt" for name in names)]


def told(stream):
    """task -> split -> name -> captions."""
    return {
        task.name: {
            name: dict(zip(split.keys, captions_of(split), strict=True))
            for name, split in (("train", task.train), ("val", task.val))
        }
        for task in stream.tasks
    }


@pytest.mark.parametrize(
    "layout",
    ["{side}/{task}/{name}", "{task}/{side}/{name}", "{side}/{task}/deeper/{name}", "{task}/{side}/a/b/{name}"],
)
@pytest.mark.parametrize("val", ["val", "validation", "Test"])
def test_tasks_and_splits_are_folders_and_captions_the_lines_of_the_text_beside(tmp_path, layout, val):
    for number, (task, side) in enumerate([("b", "train"), ("b", val), ("a", "train"), ("a", val)], start=1):
        write(tmp_path, *with_texts(layout.format(task=task, side=side, name=f"{number}.png")))
    stream = folder(tmp_path)
    assert [task.name for task in stream.tasks] == ["a", "b"] and stream.skipped == {}
    assert [shades(split) for task in stream.tasks for split in (task.train, task.val)] == [[3], [4], [1], [2]]
    assert captions_of(stream.tasks[1].val) == (("about 2",),)
    assert stream.notes == {"path": str(tmp_path), "images": 4}


def test_each_line_of_a_text_that_is_not_blank_is_a_caption(tmp_path):
    text = "\ufeffa kite, red \r\n\n  \u05e2\u05e4\u05d9\u05e4\u05d5\u05df\u2028twice\r \x0bthe last"
    write(tmp_path, *with_texts("train/a/1.png", "val/a/2.png"))
    (tmp_path / "train/a/1.txt").write_bytes(text.encode())
    (task,) = folder(tmp_path).tasks
    assert captions_of(task.train) == (("a kite, red", "\u05e2\u05e4\u05d9\u05e4\u05d5\u05df\u2028twice", "the last"),)


@pytest.mark.parametrize("layout", ["{side}/{task}/{label}/{n}.png", "{task}/{side}/{label}/{n}.png"])
def test_without_texts_the_folder_of_the_class_is_the_caption(tmp_path, layout):
    for n, (side, label) in enumerate([("train", "grey_wolf"), ("train", "Great-Dane"), ("test", "grey_wolf")]):
        write(tmp_path, layout.format(side=side, task="big_dogs", label=label, n=n))
    (task,) = folder(tmp_path).tasks
    assert set(captions_of(task.train)) == {("grey wolf",), ("Great Dane",)} and captions_of(task.val) == (
        ("grey wolf",),
    )
    assert (task.name, task.description) == ("big_dogs", "big dogs")


def test_classes_that_are_the_tasks_themselves(tmp_path):
    write(tmp_path, *(f"{side}/{label}/{n}.png" for n, side in enumerate(("train", "val")) for label in ("cat", "dog")))
    assert {task.name: captions_of(task.val) for task in folder(tmp_path).tasks} == {
        "cat": (("cat",),),
        "dog": (("dog",),),
    }


def test_a_flat_folder_is_one_task_of_its_name(tmp_path, monkeypatch):
    root = write(tmp_path / "my_kites", *with_texts(*(f"{n}.png" for n in range(5))))
    (task,) = folder(root).tasks
    assert (task.name, task.description, len(task.train) + len(task.val)) == ("my_kites", "my kites", 5)
    monkeypatch.chdir(root)
    assert folder(".").tasks[0].name == "my_kites"
    parted = write(tmp_path / "other", *with_texts("train/1.png", "val/2.png"))
    assert told(folder(parted)) == {
        "other": {"train": {"train/1.png": ("about 1",)}, "val": {"val/2.png": ("about 2",)}}
    }


def test_a_class_called_train_beside_other_classes_is_a_class(tmp_path):
    write(tmp_path, *(f"vehicles/{label}/{n}.png" for label in ("bus", "train") for n in range(4)))
    (task,) = folder(tmp_path).tasks
    assert {caption for split in (task.train, task.val) for caption in captions_of(split)} == {("bus",), ("train",)}


def test_a_folder_train_without_val_is_told(tmp_path):
    write(tmp_path, "train/a/1.png", "train/b/2.png")
    message = f"{tmp_path}: of its images, all are in 'train'; expected train and val"
    with pytest.raises(UserError, match=message):
        folder(tmp_path)
    assert len(folder(write(tmp_path, "train/a/3.png", "train/b/4.png") / "train").tasks) == 2


def test_of_val_and_test_the_one_asked_for_validates_and_the_other_is_counted(tmp_path):
    write(tmp_path, "train/a/1.png", "val/a/2.png", "val/a/3.png", "test/a/4.png", "train/b/5.png", "val/b/6.png")
    stream = folder(tmp_path)
    assert [shades(task.val) for task in stream.tasks] == [[4], [6]] and stream.notes["left_out"] == {"val": 2}
    stream = folder(tmp_path, evaluate="val")
    assert [shades(task.val) for task in stream.tasks] == [[2, 3], [6]] and stream.notes["left_out"] == {"test": 1}


# ---- who validates where no folder says so ---------------------------------------------------------------------------


def test_a_list_names_who_validates(tmp_path):
    root = write(tmp_path / "data", *with_texts(*(f"a/{n}.png" for n in range(4)), "b/x/4.JPG", "b/5.png"))
    names = tmp_path / "val.txt"
    names.write_bytes(b"\xef\xbb\xbfa/2.png\r\n\r\n  ./a/../a/3.png \r\nb\\x\\4.JPG")
    stream = folder(root, val_list=str(names))
    assert [shades(task.val) for task in stream.tasks] == [[2, 3], [4]]
    assert [shades(task.train) for task in stream.tasks] == [[0, 1], [5]]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a/1.png\na/9.png\n", r"val.txt, line 2: there is no image 'a/9.png' in .*data; the closest is 'a/2.png'$"),
        (b"a/1.txt\n", r"line 1: there is no image 'a/1.txt' in .*; the closest is 'a/1.png'"),
        (b"../secret.png\n", r"line 1: there is no image '../secret.png'"),
        (b"a/1.png\n\xff\n", "val.txt: the file is not UTF-8"),
        (b"\n \n", "val.txt: the list names no image"),
        (None, "val.txt: there is no such file; expected a text file that names the validation images"),
    ],
)
def test_a_list_that_names_what_is_not_there_is_told_with_its_line(tmp_path, content, message):
    root = write(tmp_path / "data", *with_texts("a/1.png", "a/2.png"))
    if content is not None:
        (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        folder(root, val_list=str(tmp_path / "val.txt"), on_bad_example="skip")


def test_a_list_beside_folders_that_say_the_same_is_refused(tmp_path):
    root = write(tmp_path / "data", "train/a/1.png", "val/a/2.png")
    (tmp_path / "val.txt").write_text("val/a/2.png")
    with pytest.raises(UserError, match=r"data.val_list is .*, but folders in .* say which images validate"):
        folder(root, val_list=str(tmp_path / "val.txt"))


def test_a_share_of_each_task_validates_and_another_image_moves_none(tmp_path):
    root = write(tmp_path, *(f"{task}/{n}.png" for task in "ab" for n in range(100)))
    before = told(folder(root, val_share=0.3))
    for task in "ab":
        assert 20 <= len(before[task]["val"]) <= 40
    assert folder(root, val_share=0.3, seed=1).fingerprint != folder(root, val_share=0.3).fingerprint
    write(root, *(f"a/{n}.png" for n in range(100, 110)))
    after = told(folder(root, val_share=0.3))
    for task in "ab":
        for split in ("train", "val"):
            assert before[task][split].items() <= after[task][split].items()
    assert sum(len(split) for split in after["a"].values()) == 110
    fewer = told(folder(root, val_share=0.1))
    assert fewer["a"]["val"].keys() < after["a"]["val"].keys()


def test_a_share_does_not_follow_the_place_of_the_folder(tmp_path):
    names = [f"a/{n}.png" for n in range(20)]
    one, other = folder(write(tmp_path / "here", *names)), folder(write(tmp_path / "there", *names))
    assert one.fingerprint == other.fingerprint and told(one) == told(other)


def test_a_share_where_folders_decide_is_refused(tmp_path):
    root = write(tmp_path, "a/train/1.png", "a/val/2.png")
    assert len(folder(root, val_share=share.USUAL).tasks) == 1
    with pytest.raises(UserError) as caught:
        folder(root, val_share=0.3)
    assert str(caught.value) == (
        f"config.data.val_share is 0.3, but folders in {root} say which images validate; expected 0.2, as if it were"
        " not set"
    )
    write(root, "b/3.png", "b/4.png")
    assert len(folder(root, val_share=0.3).tasks) == 2  # it parts b


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
def test_a_share_leaves_an_image_on_each_side(fraction):
    tasks = {"two": ["x", "y"], "three": ["p", "q", "r"]}
    for seed in range(20):
        found = share.chosen(tasks, fraction, seed)
        assert all(0 < len(found & {*names}) < len(names) for names in tasks.values())


@pytest.mark.parametrize("wrong", [0, 1, -0.5, 1.5])
def test_a_share_of_none_or_all_is_refused(tmp_path, wrong):
    write(tmp_path, "a/1.png", "a/2.png")
    with pytest.raises(UserError, match=f"data.val_share is {wrong}, expected more than 0 and less than 1"):
        folder(tmp_path, val_share=wrong)


def test_a_task_of_one_image_is_told(tmp_path):
    with pytest.raises(UserError, match="task 'b' has no val images"):
        folder(write(tmp_path, "a/1.png", "a/2.png", "b/3.png"))


# ---- traps -----------------------------------------------------------------------------------------------------------


def test_what_systems_leave_behind_is_not_there(tmp_path):
    write(tmp_path, *with_texts("a/1.JPG", "a/2.Png", "a/3.jpeg"), "README.txt", "a/LICENSE.txt")
    (tmp_path / "a/2.txt").rename(tmp_path / "a/2.TXT")
    write(tmp_path, "a/._1.jpg", ".hidden/5.png", "__MACOSX/a/6.png", "a/.cache/7.png")
    for name in (".DS_Store", "a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", "notes.md", "a/clip.mp4", "a/noending"):
        (tmp_path / name).write_bytes(b"x")
    (task,) = folder(tmp_path).tasks
    assert sorted(shades(task.train) + shades(task.val)) == [1, 2, 3]
    assert folder(tmp_path).notes["other_files"] == {".txt": 2, "": 1, ".md": 1, ".mp4": 1}


def test_links_are_followed_but_not_in_circles(tmp_path):
    outside = write(tmp_path / "outside", *with_texts("1.png", "2.png", "3.png"))
    root = write(tmp_path / "data", *with_texts("b/4.png", "b/5.png", "b/7.png"))
    (root / "b/sub").mkdir()
    (root / "a").symlink_to(outside)
    (root / "b/up").symlink_to(root)
    (root / "b/sub/self").symlink_to(root / "b")
    (root / "b/6.png").symlink_to(root / "b/6.png")  # leads to itself
    (root / "b/6.txt").write_text("six")
    stream = folder(root, on_bad_example="skip")
    assert [sorted(shades(task.train) + shades(task.val)) for task in stream.tasks] == [[1, 2, 3], [4, 5, 7]]
    assert stream.skipped == {"missing file": 1}


def test_a_folder_that_comes_again_under_another_name_is_named(tmp_path):
    root = write(tmp_path, *with_texts("a/1.png", "a/2.png"))
    (root / "b").symlink_to(root / "a")
    with pytest.raises(UserError, match=r"'b': this link leads to a folder that is read under another name"):
        folder(root)
    assert told(folder(root, on_bad_example="skip")).keys() == {"a"}


BAD = [
    ("no captions", ["a/7.png"], "a/7.png: there is no text beside the image; expected '7.txt'"),
    ("caption without image", ["a/7.txt"], "a/7.txt: there is no image of this name beside the text"),
    ("caption without image", ["a/texts/7.txt"], "a/texts/7.txt: there is no image"),
    ("repeated name", [*with_texts("a/7.png"), "a/7.jpg"], "there are 'a/7.jpg', 'a/7.png', 'a/7.txt'; expected one"),
    ("repeated name", [*with_texts("a/7.png"), "a/7.TXT"], "there are 'a/7.png', 'a/7.TXT', 'a/7.txt'; expected one"),
    ("no task", with_texts("7.png"), "7.png: this image lies beside the folders of the tasks"),
]


@pytest.mark.parametrize("kind, names, message", BAD, ids=[f"{kind}-{i}" for i, (kind, *_) in enumerate(BAD)])
def test_a_bad_example_is_one_clear_sentence_or_is_counted(tmp_path, kind, names, message):
    root = write(tmp_path, *with_texts(*(f"a/{n}.png" for n in range(1, 5))), *names)
    with pytest.raises(UserError, match=message) as caught:
        folder(root)
    assert str(caught.value).startswith(f"{root}, ") and "\n" not in str(caught.value)
    stream = folder(root, on_bad_example="skip")
    assert stream.skipped == {kind: 1} and stream.notes["images"] == 4


@pytest.mark.parametrize(
    "kind, raw, message",
    [
        ("no captions", b"", "'a/7.txt' has no line with text"),
        ("no captions", b"\xef\xbb\xbf\r\n \n", "'a/7.txt' has no line with text"),
        ("empty caption", b"...\n", "caption '...' is empty once it is cleaned"),
        ("not UTF-8", "a kite".encode("utf-16"), "byte 1 of 'a/7.txt' is not UTF-8"),
        ("text too long", b"x" * 1_000_001, "'a/7.txt' has more than 1000000 bytes"),
        ("unreadable text", None, "'a/7.txt' is not a regular file"),
    ],
)
def test_a_bad_text_is_one_clear_sentence_or_is_counted(tmp_path, kind, raw, message):
    root = write(tmp_path, *with_texts(*(f"a/{n}.png" for n in range(1, 5))), "a/7.png")
    os.mkfifo(root / "a/7.txt") if raw is None else (root / "a/7.txt").write_bytes(raw)
    with pytest.raises(UserError, match=message) as caught:
        folder(root)
    assert str(caught.value).startswith(f"{root}, a/7.png: ")
    assert folder(root, on_bad_example="skip").skipped == {kind: 1}


def test_bad_images_are_named_or_counted(tmp_path):
    root = write(tmp_path, *with_texts(*(f"a/{n}.png" for n in range(1, 5))))
    (root / "a/9.png").write_bytes(b"no image")
    (root / "a/9.txt").write_text("nine")
    with pytest.raises(UserError, match=r"a/9.png: this is not an image in a known format"):
        folder(root)
    assert folder(root, on_bad_example="skip").skipped == {"unreadable image": 1}


def test_an_image_beside_the_folders_of_the_splits_is_a_bad_example(tmp_path):
    root = write(tmp_path, "train/a/1.png", "val/a/2.png", "3.png", "more/a/4.png")
    with pytest.raises(UserError, match=r"3.png: this image lies beside the folders train and val"):
        folder(root)
    stream = folder(root, on_bad_example="skip")
    assert stream.skipped == {"unknown split": 2} and stream.notes["images"] == 2


def test_names_that_are_not_utf8_are_bad_examples(tmp_path):
    root = write(tmp_path, *(f"a/{n}.png" for n in range(4)))
    for name in (b"a/\xff.png", b"\xfe/1.png"):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(encoded(9))
    with pytest.raises(UserError, match="the name of this file is not UTF-8") as caught:
        folder(root)
    str(caught.value).encode()
    stream = folder(root, on_bad_example="skip")
    assert stream.skipped == {"not UTF-8": 2} and [task.name for task in stream.tasks] == ["a"]


@pytest.mark.parametrize("apart", ["texts/{n}.txt", "data/texts/{n}.txt"])
def test_texts_in_a_folder_of_their_own_are_told_not_passed_over(tmp_path, apart):
    images = "images/{n}.png" if apart.startswith("texts") else "data/images/{n}.png"
    root = write(tmp_path, *(form.format(n=n) for form in (apart, images) for n in range(4)))
    with pytest.raises(UserError, match=r"no image|no text"):
        folder(root)
    with pytest.raises(UserError, match=r"no image|no text"):
        folder(root, on_bad_example="skip")


@pytest.mark.parametrize("ending", [".json", ".caption", ".Captions", ".cap", ".text", ".png.json"])
def test_captions_in_files_that_are_not_read_are_told_where_the_class_would_be_the_caption(tmp_path, ending):
    root = write(tmp_path, *(f"a/x/{n}.png" for n in range(1, 5)), "a/x/9.png")
    (root / f"a/x/9{ending}").write_text("a cat")
    said = f"a/x/9.png: there is '9{ending}' beside the image, which is not read; expected captions in a .txt"
    with pytest.raises(UserError) as caught:
        folder(root)
    assert str(caught.value) == f"{root}, {said}"
    stream = folder(root, on_bad_example="skip")
    assert stream.skipped == {"no captions": 1} and stream.notes["other_files"] == {
        f".{ending.lower().split('.')[-1]}": 1
    }


def test_files_beside_images_that_have_texts_or_of_another_name_are_no_captions(tmp_path):
    root = write(tmp_path, *with_texts("a/1.png", "a/2.png"), "b/3.png", "b/4.png")
    for name in ("a/1.json", "b/metadata.json", "b/3.xml", "5.json"):
        (root / name).write_text("{}")
    stream = folder(root)
    assert [task.name for task in stream.tasks] == ["a", "b"] and stream.notes["other_files"] == {".json": 3, ".xml": 1}


def test_no_folder_a_file_and_a_folder_without_images_are_told(tmp_path):
    with pytest.raises(UserError, match="nowhere: there is no such folder; expected a folder of images"):
        folder(tmp_path / "nowhere")
    write(tmp_path, "1.txt")
    with pytest.raises(UserError, match=r"1.txt: this is a file; expected a folder of images"):
        folder(tmp_path / "1.txt")
    with pytest.raises(UserError, match=r"there are no images in this folder; expected jpg, jpeg"):
        folder(tmp_path)


def test_the_check_and_the_command_line_know_the_source(tmp_path, capsys):
    root = write(tmp_path / "data", *with_texts(*(f"a/{n}.png" for n in range(6))), "a/7.png")
    own = Path(__file__).parents[3] / "configs" / "own_data_lpi.py"
    flags = [f"--config={own}", "--config.data.name=folder", f"--config.data.path={root}"]
    flags += ["--config.backbone=bundled", "--config.data.val_share=0.5"]
    assert command.main(["check", *flags, f"--out={tmp_path / 'out'}"]) == 0
    assert "there is no text beside the image" in capsys.readouterr().out
    config, _ = command_line.parse([*flags, "--workdir=x"])
    (task,) = registry.stream(config.data.to_dict(), 32).tasks
    assert len(task.train) + len(task.val) == 6 and len(task.val) > 1


def test_of_several_tasks_each_may_be_parted_in_its_own_way(tmp_path):
    root = write(tmp_path / "data", "a/train/1.png", "a/val/2.png", *(f"b/{n}.png" for n in range(3, 9)))
    a, b = folder(root).tasks
    assert (shades(a.train), shades(a.val)) == ([1], [2]) and len(b.train) + len(b.val) == 6 and len(b.val)
    (tmp_path / "val.txt").write_text("b/5.png\n")
    a, b = folder(root, val_list=str(tmp_path / "val.txt")).tasks
    assert (shades(a.val), shades(b.val)) == ([2], [5])
    (tmp_path / "val.txt").write_text("b/5.png\na/train/1.png\n")
    with pytest.raises(UserError, match=r"line 2: there is no image 'a/train/1.png'"):
        folder(root, val_list=str(tmp_path / "val.txt"))


def test_a_whole_tree_of_odd_names_keeps_each_caption_with_its_image(tmp_path):
    names = [
        "a b/1 (copy).png",
        "a b/2.v2.png",
        "a b/\u05e7\u05d5\u05d1\u05e5 3.png",
        "a b/[4].png",
        "a b/5%20.png",
        "a b/'6'.png",
    ]
    root = write(tmp_path, *names)
    for name in names:
        (root / f"{os.path.splitext(name)[0]}.txt").write_text(f"shade of {name}", encoding="utf-8")
    (task,) = folder(root, val_share=0.4).tasks
    for split in (task.train, task.val):
        for key, captions in zip(split.keys, captions_of(split), strict=True):
            assert captions == (f"shade of {key}",)
    assert sorted([*task.train.keys, *task.val.keys]) == sorted(names)
