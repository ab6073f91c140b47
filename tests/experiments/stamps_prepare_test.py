"""The stream of stamps: what becomes of sentences, variants, SVGs, damaged pictures, look-alikes and equal captions."""

import importlib.util
import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lpi_jax.data.transforms import clean_caption
from tests.support.pixels import pixels
from tests.support.sources import jsonl

FILE = Path(__file__).parents[2] / "experiments" / "stamps" / "prepare.py"
# Under a name of its own: the clip-art's preparation is called prepare, too.
spec = importlib.util.spec_from_file_location("stamps_prepare", FILE)
stamps_prepare = sys.modules["stamps_prepare"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stamps_prepare)


def drawn(seed, size=(120, 120), mode="RGB"):
    rng = np.random.default_rng(seed)
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, w, h = rng.uniform(0, 120, 4)
        draw.ellipse([x, y, x + w / 2 + 5, y + h / 2 + 5], fill=tuple(int(v) for v in rng.integers(0, 200, 3)))
    if mode == "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", size, "white"), picture).convert("RGB")


def stamp(key, picture, caption):
    part = stamps_prepare.drawn_part(np.asarray(picture))
    colours, proportions = stamps_prepare.look_of(part)
    return stamps_prepare.Stamp(key, caption, stamps_prepare.frame(part), colours, proportions)


# sentences and tasks


@pytest.mark.parametrize(
    "text, caption",
    [
        ("A frog.\nde.utf8=Ein Frosch.\n", "A frog."),
        ("\ufeff A  frog. \r\nde.utf8=Ein Frosch.\r\n", "A frog."),
        ("A frog: x=y", "A frog: x=y"),
        ("\nde.utf8=Ein Frosch.\n", ""),
        ("de.utf8=Ein Frosch.\n", ""),
        ("zh_TW.utf8=\u86d9\n", ""),
        ("sr@latin.utf8=\u017daba.\n", ""),
        ("", ""),
        (None, ""),
        (b"A \xff frog.\n", ""),
        (b"A frog.\nfr.utf8=\xff\n", "A frog."),
    ],
)
def test_the_first_line_is_the_english_sentence(tmp_path, text, caption):
    path = tmp_path / "frog.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert stamps_prepare.sentence(path) == caption


@pytest.mark.parametrize(
    "key, task",
    [
        ("animals/birds/crow", "animals"),
        ("sports/football", "home and leisure"),
        ("symbols/chess/pawn", "symbols"),
        ("symbols/alphabets/english/a", "alphabets"),
        ("animals", None),
        ("animalsandmore/x", None),
    ],
)
def test_the_deepest_folder_says_the_task(key, task):
    assert stamps_prepare.task_of(key) == task


# look-alikes and the border between train and val


def test_look_survives_scaling_and_mirroring_and_tells_drawings_apart():
    one, wide = drawn(1), drawn(1).resize((240, 120))
    members = [
        stamp("a", one, "a"),
        stamp("b", one.resize((70, 70), Image.Resampling.LANCZOS), "b"),
        stamp("c", one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "c"),
        stamp("d", wide, "d"),  # of other proportions
        stamp("e", drawn(2), "e"),
    ]
    look_alike = stamps_prepare.LOOK_ALIKE
    assert stamps_prepare.near_pairs(members, look_alike, mirrored=True) == [(0, 1), (0, 2), (1, 2)]
    assert stamps_prepare.near_pairs(members, look_alike, mirrored=False) == [(0, 1)]


def test_of_copies_with_one_caption_the_first_stays():
    members = [
        stamp("animals/a", drawn(1), "A cat."),
        stamp("food/a", drawn(1), "a cat"),
        stamp("food/b", drawn(1), "A dog."),  # says something else
        stamp("food/c", drawn(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "A cat."),
    ]
    assert [s.key for s in stamps_prepare.without_copies(members)] == ["animals/a", "food/b", "food/c"]


def test_clusters_join_look_alikes_and_equal_captions():
    members = [
        stamp("animals/a", drawn(1), "A cat."),
        stamp("animals/b", drawn(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "A dog."),
        stamp("food/c", drawn(3), "a CAT"),
        stamp("food/d", drawn(4), "A pie."),
    ]
    a, b, c, d = stamps_prepare.clusters(members)
    assert a == b == c != d


def test_val_is_a_share_of_what_stands_alone_in_each_task():
    members = [stamp(f"{folder}/{i}", drawn(i), f"{folder} {i}") for folder in ("animals", "town") for i in range(20)]
    cluster = [0 if i < 10 else i for i in range(40)]
    val = stamps_prepare.val_keys(members, cluster)
    assert val == stamps_prepare.val_keys(members[::-1], cluster[::-1])
    assert Counter(key.split("/")[0] for key in val) == {"animals": 4, "town": 8}
    assert not val & {s.key for s in members[:10]}


# the whole


@pytest.fixture
def package(tmp_path):
    """A small stamps folder: four tasks of fifteen stamps and one of every kind that is left out."""
    root = tmp_path / "stamps"

    def add(key, text, picture=None, ending="png"):
        path = root / f"{key}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        elif picture is not None:
            picture.save(path)
        if text is not None:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")

    for n, folder in enumerate(("animals/birds", "symbols/alphabets/english", "symbols/chess", "household")):
        for i in range(15):
            sentence = f"A {chr(97 + i)}{n} thing."
            add(
                f"{folder}/{i}",
                f"{sentence}\nde.utf8=Ein Ding.\nja.utf8=\u3082\u306e\n",
                drawn(100 * n + i, mode="RGBA"),
            )
    add("animals/0_mirror", "A a0 thing.\n", drawn(900))
    add("animals/0_flip", None, drawn(901))
    add("animals/0_mirror_flip", None, drawn(902))
    add("animals/mute", None, drawn(903))
    add("animals/empty", "\nde.utf8=Ein Ding.\n", drawn(904))
    add("animals/gone", "A thing that went.\n")
    add("animals/torn", "A torn thing.\n", b"\x89PNG\r\n\x1a\n and no more")
    add("animals/blank", "A white thing.\n", Image.new("RGBA", (50, 50), "white"))
    add("animals/copy", "A a0 thing.\n", drawn(0))
    add("animals/again", "A a0 thing!\n", drawn(905))  # the caption of another
    add("elsewhere/x", "Something else.\n", drawn(906))
    add("household/vector", "A drawn thing.\n", b"<svg/>", "svg")
    add("household/bad_vector", "A badly drawn thing.\n", b"damaged", "svg")
    add("household/both", "A thing in both kinds.\n", drawn(907))
    add("household/both", None, b"damaged", "svg")
    (root / "animals/birds/0.ogg").write_bytes(b"a sound")
    (root / "animals/birds/0.dat").write_text("noflip\n")
    return root


@pytest.fixture
def rsvg(tmp_path, monkeypatch):
    """An rsvg-convert that draws the same picture for every SVG and fails for damaged ones."""
    folder = tmp_path / "bin"
    folder.mkdir()
    drawn(908).save(folder / "drawn.png")
    (folder / "rsvg-convert.py").write_text(
        "import pathlib, sys\n"
        "if '--version' in sys.argv: print('rsvg-convert version 0.1.2')\n"
        "elif b'<svg' not in sys.stdin.buffer.read(): sys.exit('no SVG')\n"
        "else: sys.stdout.buffer.write(pathlib.Path(__file__).with_name('drawn.png').read_bytes())\n"
    )
    program = folder / "rsvg-convert"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$0.py" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def lines_of(folder):
    return [json.loads(line) for line in (folder / "stream.jsonl").read_text("utf-8").splitlines()]


def test_the_whole_preparation(package, rsvg, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert stamps_prepare.main(["--root", str(package), "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["dropped"] == {
        "mirrored or flipped variant": 3,
        "no English sentence": 2,
        "unreadable image": 2,
        "no picture": 1,
        "in a folder of no task": 1,
        "blank picture": 1,
        "copy of another stamp": 1,
    }
    lines = lines_of(out)
    assert report["stamps"] == sum(report["dropped"].values()) + len(lines) == 74
    assert report["drawn from SVG"] == 1 and report["versions"]["rsvg-convert"] == "0.1.2"
    assert report["stream"]["train"] + report["stream"]["val"] == report["stream"]["captions"] == len(lines)
    assert report["equal captions"] == {
        "different captions": 62,
        "captions of several stamps": 1,
        "stamps that share theirs": 2,
        "of them alphabets": 0,
    }
    assert list(report["tasks"]) == ["alphabets", "animals", "home and leisure", "symbols"]
    assert {line["captions"][0] for line in lines} >= {"A a0 thing.", "A a0 thing!", "A drawn thing."}
    stream = jsonl(out / "stream.jsonl")
    assert [task.name for task in stream.tasks] == list(report["tasks"]) and stream.skipped == {}
    assert sum(len(task.val.keys) for task in stream.tasks) == report["stream"]["val"] > 20
    train = {clean_caption(line["captions"][0]) for line in lines if line["split"] == "train"}
    val = [clean_caption(line["captions"][0]) for line in lines if line["split"] == "val"]
    assert len(set(val)) == len(val) and not train & set(val)
    first = pixels(stream.tasks[0].val.load(0))
    assert first.shape[2] == 3 and (first[0] == 255).all()  # what was transparent is white


def test_the_same_package_gives_the_same_files(package, rsvg, tmp_path):
    for name in ("one", "two"):
        assert stamps_prepare.main(["--root", str(package), "--out", str(tmp_path / name)]) == 0
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("one", "two"))
    assert one == two and len(one) == 2 + len(lines_of(tmp_path / "one"))


def test_svgs_can_be_left_out(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "out"
    assert stamps_prepare.main(["--root", str(package), "--out", str(out), "--without-svg"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["dropped"]["SVG without PNG"] == 2 and report["drawn from SVG"] == 0
    assert "A thing in both kinds." in {line["captions"][0] for line in lines_of(out)}


def test_a_users_mistakes_are_one_sentence(package, rsvg, tmp_path, capsys, monkeypatch):
    def said(*arguments):
        assert stamps_prepare.main([str(a) for a in arguments]) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return message.splitlines()[-1]

    assert "apt-get install tuxpaint-stamps-default" in said("--root", tmp_path / "no", "--out", tmp_path / "x")
    assert "new or empty" in said("--root", package, "--out", package)
    (tmp_path / "empty").mkdir()
    assert "no usable stamp" in said("--root", tmp_path / "empty", "--out", tmp_path / "x")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in said("--root", package, "--out", tmp_path / "file" / "x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--without-svg" in said("--root", package, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_failure_leaves_nothing_behind(package, rsvg, tmp_path, monkeypatch):
    monkeypatch.setattr(stamps_prepare, "write", lambda *_: 1 / 0)
    out = tmp_path / "out" / "x"
    with pytest.raises(ZeroDivisionError):
        stamps_prepare.main(["--root", str(package), "--out", str(out)])
    assert list(out.parent.iterdir()) == []
