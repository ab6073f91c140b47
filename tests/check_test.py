"""The check of a stream: its numbers are right, it goes on past bad pictures, and it writes only where it may."""

import io
import json
from collections import Counter
from threading import Lock

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from lpi_jax.data import check as checks
from lpi_jax.data.check import LISTED, TILES, Repeats, Sizes, Words, check, main, table, write
from lpi_jax.data.contact_sheet import COLUMNS, SIDE, Section, Tile, contact_sheet, file_name, thumbnail
from lpi_jax.data.jsonl import jsonl
from lpi_jax.data.pictures import BadImage
from lpi_jax.data.stream import Split, Stream, Task

ARABIC, HEBREW, EMOJI = "قطة حمراء على كرسي", "חתול אדום \u202eabc", "👩‍👩‍👧 🐱 🇦🇶 family"
HARD_TEXTS = [
    *(ARABIC, HEBREW, EMOJI, "漢字かな", "a\0b\x1b[31m\nc", "half \ud800 pair", "e" + "\u0301" * 50),
    *("x" * 1_000_000, " ", ""),
]


def photo(seed, height=40, width=60):
    """A smooth picture unlike those of other seeds."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def split(pictures, captions=None):
    captions = captions or [[f"picture {i}"] for i in range(len(pictures))]
    return Split(tuple(map(str, range(len(pictures)))), tuple(map(tuple, captions)), pictures.__getitem__)


def stream(*tasks):
    """Tasks are (name, train, val)."""
    return Stream("toys", tuple(Task(name, name, train, val) for name, train, val in tasks), "f" * 64)


def alike(train, val=None):
    """(exact, alike) in train, and (exact, alike) in val, of one task."""
    found = check(stream(("toys", split(train), split(val or [photo(999)]))), 30).tasks[0].repeats
    return (found.train_same, found.train_alike), (found.val_same, found.val_alike)


def recompressed(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=85)
    return np.asarray(Image.open(data))


def scaled(pixels):
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((width * 2, height * 2), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path):
    """(rows of (picture or bytes, captions, task, split)) -> a manifest and its pictures."""

    def make(rows):
        lines = []
        for number, (picture, captions, task, part) in enumerate(rows):
            name = f"{number}.png"
            if isinstance(picture, bytes):
                (tmp_path / name).write_bytes(picture)
            else:
                Image.fromarray(picture).save(tmp_path / name)
            lines.append({"image": name, "captions": captions, "task": task, "split": part})
        path = tmp_path / "stream.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return path

    return make


def damaged():
    """A JPEG whose header is sound: only decoding finds out."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(data, "JPEG")
    return data.getvalue()[:1500]


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_a_row_counts_pictures_captions_words_and_sizes():
    pictures = [photo(0, 10, 10), photo(1, 50, 20), photo(2, 30, 40), photo(3, 20, 30)]
    captions = [["A cat!"], ["a big-eyed red cat", "one two three four five six"], ["a dog"]]
    found = check(stream(("pets", split(pictures[:3], captions), split(pictures[3:], [["a cat, asleep", "x"]]))), 4)
    row = found.tasks[0]
    assert row.name == "pets"
    assert row.pictures == {"train": 3, "val": 1}
    assert row.captions == {"train": 4, "val": 2}
    assert row.words == Words(median=2.5, longest=6, too_long=2)  # 2, 5, 6, 2, 3, 1 words
    assert row.sizes == Sizes(smallest=(10, 10), median=(30, 20), largest=(40, 30))
    assert row.repeats == Repeats(0, 0, 0, 0, 0)
    assert row.cut is None
    assert row.bad == {}
    assert found.max_words == 4 and found.stream == "toys" and found.fingerprint == "f" * 64


def test_the_total_adds_the_tasks_up_and_takes_medians_of_all():
    one = ("one", split([photo(0, 8, 8)] * 1, [["a"]]), split([photo(1, 8, 9)], [["a b c"]]))
    two = ("two", split([photo(2, 9, 9), photo(3, 8, 10)], [["a b"], ["a b c d"]]), split([photo(4, 5, 5)], [["x"]]))
    found = check(stream(one, two), 2, count_cut=len)
    assert found.total.name == "all"
    assert found.total.pictures == {"train": 3, "val": 2}
    assert found.total.captions == {"train": 3, "val": 2}
    assert found.total.words == Words(median=2, longest=4, too_long=2)
    assert found.total.sizes == Sizes((5, 5), (9, 8), (9, 9))
    assert [row.cut for row in (*found.tasks, found.total)] == [2, 3, 5]


def test_every_picture_is_read_once():
    loads, lock = Counter(), Lock()

    def load(index):
        with lock:
            loads[index] += 1
        return photo(index)

    train = Split(tuple(map(str, range(40))), (("a cat",),) * 40, load)
    check(stream(("pets", train, split([photo(99)]))), 30)
    assert loads == dict.fromkeys(range(40), 1)


def test_captions_are_counted_as_cut_as_the_tower_would_cut_them(folder, tiny_clip, tmp_path):
    path = folder([(photo(0), ["red", "red " * 65], "toys", "train"), (photo(1), ["red " * 65], "toys", "val")])
    for method, words, length, cut in (
        ("lpi", 99, 16, 2),
        ("lpi", 99, 4, 0),
        ("lpi", 9, 16, 0),
        ("zero_shot", 99, 16, 0),
    ):
        more = {"method": method, "data.max_words": words, "prompt.length": length}
        flags = [f"--config.{key}={value}" for key, value in more.items()]
        assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out", *flags)) == 0
        assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] == cut


# ---- repeats ---------------------------------------------------------------------------------------------------------


def test_equal_pixels_are_found_whatever_the_file(folder, tmp_path):
    path = folder([(photo(i), [f"picture {i}"], "toys", part) for i, part in enumerate(["train", "train", "val"])])
    Image.fromarray(photo(0)).save(tmp_path / "1.png", compress_level=1)
    Image.fromarray(photo(0)).save(tmp_path / "2.png", "BMP")
    repeats = check(jsonl(path), 30).tasks[0].repeats
    assert (repeats.train_same, repeats.val_same) == (1, 1)
    assert (repeats.train_alike, repeats.val_alike) == (0, 0)


@pytest.mark.parametrize("change", [recompressed, scaled])
def test_a_recompressed_or_scaled_picture_looks_alike(change):
    pictures = [photo(i) for i in range(10)]
    assert alike([*pictures, change(pictures[3])]) == ((0, 1), (0, 0))
    assert alike(pictures, [change(pictures[3]), photo(50), pictures[4]]) == ((0, 0), (1, 1))


def test_pictures_of_the_same_shape_in_other_colours_do_not_look_alike():
    red, blue, dark = (np.full((20, 20, 3), colour, np.uint8) for colour in ([200, 0, 0], [0, 0, 200], [20, 20, 20]))
    assert alike([red, blue, dark, 255 - dark]) == ((0, 0), (0, 0))
    pictures = [photo(i) for i in range(60)]
    wide = np.full((10, 40, 3), 90, np.uint8)
    assert alike([wide, wide.swapaxes(0, 1)]) == ((0, 1), (0, 0))  # the same bytes in another shape
    mirrored = [picture[:, ::-1] for picture in pictures]
    blurred = [np.asarray(Image.fromarray(p).rotate(90, expand=True).filter(ImageFilter.BLUR)) for p in pictures]
    assert alike(pictures, [*mirrored, *blurred]) == ((0, 0), (0, 0))


def test_repeats_across_tasks_count_in_the_total_only():
    one = ("one", split([photo(0), photo(1)], [["a cat"], ["a dog"]]), split([photo(2)], [["a bird"]]))
    pictures = [photo(0), recompressed(photo(1)), photo(5)]
    two = ("two", split(pictures, [["x"], ["y"], ["A bird."]]), split([photo(1)], [["z"]]))
    found = check(stream(one, two), 30)
    assert [row.repeats for row in found.tasks] == [Repeats(0, 0, 0, 0, 0), Repeats(0, 0, 0, 1, 0)]
    assert found.total.repeats == Repeats(train_same=1, train_alike=1, val_same=1, val_alike=0, captions=1)


def test_captions_are_compared_as_they_are_read():
    train = split([photo(0), photo(1)], [["A red kite!", "same start here"], ["a blue kite"]])
    val = split([photo(2)], [["a red  kite", "a red kite?", "same start, there", "a green kite"]])
    assert check(stream(("toys", train, val)), 30).tasks[0].repeats.captions == 2
    assert check(stream(("toys", train, val)), 2).tasks[0].repeats.captions == 3  # "a red" twice and "same start"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_look_alikes_are_those_that_a_comparison_of_all_pairs_finds(seed, count):
    rng = np.random.default_rng(seed)
    signs, colours = [], []
    for _ in range(count):  # some are made from earlier ones by a few changes
        base = int(rng.integers(0, 2**63)) * 2 if not signs or rng.random() < 0.3 else signs[rng.integers(len(signs))]
        for bit in rng.integers(0, 64, rng.integers(0, 4)):
            base ^= 1 << int(bit)
        own = rng.integers(0, 256, 48) if not colours or rng.random() < 0.2 else colours[rng.integers(len(colours))]
        signs.append(base)
        colours.append(np.clip(own + rng.integers(-7, 8, 48), 0, 255))
    both = zip(signs, colours, strict=True)
    looks = [checks._Look((1, 1), b"", sign, bytes(own.astype(np.uint8))) for sign, own in both]

    def near(i, j):
        return (signs[i] ^ signs[j]).bit_count() <= 2 and np.abs(colours[i] - colours[j]).max() <= 8

    expected = [min(j for j in range(count) if near(i, j)) for i in range(count)]
    assert checks._first_alike(looks).tolist() == expected


# ---- bad pictures ----------------------------------------------------------------------------------------------------


def test_a_bad_picture_is_counted_and_named_and_the_check_goes_on(folder):
    rows = [(photo(i), [f"picture {i}"], "toys", "train") for i in range(4)]
    path = folder([*rows, (damaged(), ["no picture"], "toys", "train"), (photo(9), ["picture 9"], "toys", "val")])
    found = check(jsonl(path), 30)
    row = found.tasks[0]
    assert row.bad == found.total.bad == {"unreadable picture": 1}
    assert row.pictures == {"train": 5, "val": 1} and row.captions == {"train": 5, "val": 1}
    (message,) = found.bad
    assert message.startswith(f"{path}, line 5: ") and "4.png" in message
    assert found.tiles[0]["train"][4] == Tile(None, "no picture")
    assert row.sizes.largest == (60, 40)
    assert f"cannot be decoded: 1 unreadable picture\n  {message}" in table(found)


def test_only_the_first_bad_pictures_are_listed():
    def load(index):
        if index % 2:
            raise BadImage("missing file" if index < 20 else "unreadable picture", f"stream, line {index}:\nnot there")
        return photo(index)

    train = Split(tuple(map(str, range(70))), (("a cat",),) * 70, load)
    found = check(stream(("pets", train, split([photo(99)]))), 30)
    assert found.total.bad == {"missing file": 10, "unreadable picture": 25}
    assert found.bad == tuple(f"stream, line {index}: not there" for index in range(1, 2 * LISTED, 2))
    assert "cannot be decoded: 10 missing file, 25 unreadable picture\n" in table(found)
    assert table(found).endswith("  stream, line 39: not there\n  and 15 more")


def test_a_task_without_one_good_picture_has_a_row_too(tmp_path):
    def load(index):
        raise BadImage("missing file", "gone")

    gone = Split(("a",), (("a cat",),), load)
    found = check(stream(("pets", gone, gone)), 30)
    assert found.tasks[0].sizes is None and found.total.repeats == Repeats(0, 0, 0, 0, 1)
    assert len({len(line) for line in table(found).splitlines()[:3]}) == 1
    write(found, tmp_path)
    assert Image.open(io.BytesIO((tmp_path / "00-pets.png").read_bytes())).width > COLUMNS * SIDE


def test_what_the_stream_left_out_is_told(folder):
    rows = [(photo(0), ["a"], "toys", "train"), (photo(1), ["b"], "toys", "val"), (b"", ["c"], "toys", "train")]
    found = check(jsonl(folder(rows), on_bad_example="skip"), 30)
    assert found.skipped == {"unreadable picture": 1} and found.total.bad == {}
    assert table(found).endswith("left out when the stream was read: 1 unreadable picture")


# ---- table -----------------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_per_task_and_one_for_all():
    tasks = [(name, split([photo(i)]), split([photo(i + 50, 7, 5)])) for i, name in enumerate(["a", "bb", "ccc"])]
    lines = table(check(stream(*tasks), 30)).splitlines()
    total = "all 3 / 3 3 / 3 2 / 2 0 ? 5x7 5x7 60x40 0 + 0 0 + 0 3 0"
    assert lines[0].split() == " ".join(checks.HEADER).format(max_words=30).split()
    assert [line.split()[0] for line in lines[1:5]] == ["a", "bb", "ccc", "all"]
    assert lines[4].split() == total.split()
    assert len({len(line) for line in lines[:5]}) == 1


def test_a_task_name_cannot_steer_the_terminal():
    found = check(stream(("red\x1b[31m\n" + "x" * 999, split([photo(0)]), split([photo(1)]))), 30)
    line = table(found).splitlines()[1]
    assert line.startswith("red?[31m?xxx") and len(line) < 200


def test_a_progress_bar_for_many_pictures_only(capfd):
    check(stream(("pets", split([photo(0)]), split([photo(1)]))), 30)
    assert capfd.readouterr().err == ""
    check(stream(("pets", split([photo(0, 4, 4)] * 501), split([photo(1)]))), 30)
    assert "checking pictures" in capfd.readouterr().err


# ---- contact sheets --------------------------------------------------------------------------------------------------


def test_pictures_for_the_sheet_are_chosen_evenly_and_kept_small():
    pictures = [np.full((300, 200, 3), i, np.uint8) for i in range(121)]
    found = check(stream(("pets", split(pictures), split(pictures[:3]))), 30)
    tiles = found.tiles[0]
    assert len(tiles["train"]) == TILES and len(tiles["val"]) == 3
    chosen = [int(tile.picture[0, 0, 0]) for tile in tiles["train"]]
    assert chosen[0] == 0 and set(np.diff(chosen)) <= {10, 11}
    assert [tile.caption for tile in tiles["train"]] == [f"picture {i}" for i in chosen]
    assert all(tile.picture.shape == (SIDE, SIDE * 2 // 3, 3) for tile in tiles["train"])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (30, 20), (2000, 3000)])
def test_a_thumbnail_fits_whatever_the_shape(height, width):
    small = thumbnail(np.full((height, width, 3), 7, np.uint8))
    assert max(small.shape[:2]) == SIDE and min(small.shape[:2]) >= 1
    assert small.dtype == np.uint8 and (small == 7).all()


def test_a_sheet_shows_its_pictures_in_rows():
    tiles = [Tile(np.full((SIDE, SIDE, 3), (i, 200, 50), np.uint8), f"picture {i}") for i in range(8)]
    sheet = Image.open(io.BytesIO(contact_sheet("pets", [Section("train", tiles), Section("val", tiles[:1])])))
    shown = Counter(tuple(pixel) for row in np.asarray(sheet) for pixel in row.tolist())
    assert [shown[i, 200, 50] for i in range(8)] == [2 * SIDE * SIDE] + [SIDE * SIDE] * 7
    assert sheet.width < (COLUMNS + 1) * SIDE
    first, last = (np.argwhere((np.asarray(sheet) == (i, 200, 50)).all(-1))[0] for i in (1, 7))
    assert first[1] == last[1] and last[0] > first[0]  # the eighth stands below the second


@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_any_text_can_be_drawn(text):
    tile = Tile(np.zeros((9, 9, 3), np.uint8), text)
    sheet = Image.open(io.BytesIO(contact_sheet(text, [Section(text, [tile, Tile(None, text)])])))
    plain = Image.open(io.BytesIO(contact_sheet("a", [Section("b", [tile, tile])])))
    assert sheet.size == plain.size


def test_a_caption_is_wrapped_and_cut_under_its_own_picture():
    sheet = contact_sheet("pets", [Section("train", [Tile(np.zeros((SIDE, SIDE, 3), np.uint8), "kite " * 90)])])
    dark = np.asarray(Image.open(io.BytesIO(sheet)).convert("L")) < 128
    below = dark[-60:]
    assert below.any() and not below[:, SIDE + 20 :].any()
    assert not dark[-8:].any()
    whole, longer = (contact_sheet("pets", [Section("train", [Tile(None, "x" * n)])]) for n in (75, 76))
    assert whole != longer  # what is cut ends in an ellipsis


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a/b\\c", "CON\0", "قطة", "", "x" * 9999, "a\nb.png"])
def test_a_task_name_cannot_leave_the_folder(tmp_path, name):
    assert file_name(3, name).isascii() and len(file_name(3, name)) < 80
    out = tmp_path / "deep" / "out"
    task = (name, split([photo(0)]), split([photo(1)]))
    write(check(stream(task, task), 30), out)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 and {path.parent for path in files} == {out}
    assert all(not path.name.startswith(".") for path in files)


def test_the_json_holds_the_numbers_and_names_the_sheets(tmp_path):
    found = check(stream(("pets/cats", split([photo(0)] * 2), split([photo(1)]))), 30, count_cut=len)
    write(found, tmp_path)
    numbers = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"check.json", "00-pets-cats.png"}
    row = {
        "name": "pets/cats",
        "pictures": {"train": 2, "val": 1},
        "captions": {"train": 2, "val": 1},
        "words": {"median": 2, "longest": 2, "too_long": 0},
        "cut": 3,
        "sizes": {"smallest": [60, 40], "median": [60, 40], "largest": [60, 40]},
        "repeats": {"train_same": 1, "train_alike": 0, "val_same": 0, "val_alike": 0, "captions": 1},
        "bad": {},
    }
    whole = {"stream": "toys", "fingerprint": "f" * 64, "skipped": {}, "max_words": 30, "bad": []}
    tasks = [row | {"sheet": "00-pets-cats.png"}]
    assert numbers == whole | {"tasks": tasks, "total": row | {"name": "all"}}


# ---- the command -----------------------------------------------------------------------------------------------------


def preset(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("from lpi_jax import config\n\n\nget_config = config.intended\n")
    return path


def command(config, path, backbone, out, *more):
    given = [f"--config={config}", "--config.data.name=jsonl", f"--config.data.path={path}", f"--out={out}"]
    return ["check", *given, f"--config.backbone={backbone}", *more]


ROWS = [(photo(0), ["a cat"], "pets", "train"), (photo(1), ["a dog"], "pets", "val")]


def test_the_command_prints_the_table_and_writes_the_files(folder, tiny_clip, tmp_path, capfd):
    path = folder(ROWS)
    assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out")) == 0
    out, err = capfd.readouterr()
    assert err == ""
    told = table(check(jsonl(path), 30, lambda _: 0))
    assert out == f"{told}\n\nWritten: {tmp_path}/out/check.json and 1 contact sheets\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "00-pets.png"}


def test_drawn_pictures_have_the_backbones_size(tiny_clip, tmp_path):
    few = ["--config.data.domains=fax", "--config.data.train=3", "--config.data.val=2"]
    config, out = preset(tmp_path), tmp_path / "out"
    assert main(["check", f"--config={config}", f"--config.backbone={tiny_clip}", "--out", str(out), *few]) == 0
    assert json.loads((out / "check.json").read_text())["total"]["sizes"]["largest"] == [32, 32]


@pytest.mark.parametrize(("mode", "status"), [("error", 2), ("skip", 0)])
def test_bad_pictures_decide_the_exit_status(folder, tiny_clip, tmp_path, capfd, mode, status):
    path = folder([*ROWS, (damaged(), ["a hole"], "pets", "train")])
    more = f"--config.data.on_bad_example={mode}"
    assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out", more)) == status
    out, err = capfd.readouterr()
    assert "1 unreadable picture" in out and err == ""
    assert (f"{path}, line 3: " in out) == (mode == "error")  # otherwise it was left out before
    assert (tmp_path / "out" / "check.json").exists()


@pytest.mark.parametrize(("mode", "status"), [("error", 2), ("skip", 0)])
def test_pictures_that_break_after_the_stream_was_read_are_told_too(
    folder, tiny_clip, tmp_path, monkeypatch, capfd, mode, status
):
    read = checks._stream

    def read_then_break(config):
        found = read(config)
        (tmp_path / "1.png").write_bytes(b"")
        return found

    monkeypatch.setattr(checks, "_stream", read_then_break)
    more = f"--config.data.on_bad_example={mode}"
    assert main(command(preset(tmp_path), folder(ROWS), tiny_clip, tmp_path / "out", more)) == status
    assert f"  {tmp_path}/stream.jsonl, line 2: {tmp_path}/1.png: " in capfd.readouterr().out


def test_a_line_that_is_no_example_ends_in_one_sentence(folder, tiny_clip, tmp_path, capfd):
    path = folder([*ROWS, (photo(2), [], "pets", "train")])
    before = {*tmp_path.rglob("*")}
    config = preset(tmp_path)
    assert main(command(config, path, tiny_clip, tmp_path / "out")) == 2
    message = "captions is an empty list; expected one caption or more"
    assert capfd.readouterr() == ("", f"error: {path}, line 3: {message}\n")
    assert {*tmp_path.rglob("*")} == before | {config}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out"], "--out is missing; --help explains it"),
        (["--out="], "--out is missing; --help explains it"),
        (["--outt=runs/a"], "--outt is not a flag; did you mean --out? --help lists all"),
        (["--config.data.trian=3"], "config has no key 'data.trian'; the closest is 'data.train'"),
        (["stray"], "the argument 'stray' was not expected; every flag begins with --"),
        (["--out=experiment.py"], "--out is experiment.py, which cannot be written: File exists"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_sentence(tmp_path, tiny_clip, monkeypatch, capfd, flags, message):
    monkeypatch.chdir(tmp_path)
    before = {preset(tmp_path)}
    assert main(["check", "--config=experiment.py", f"--config.backbone={tiny_clip}", *flags]) == 2
    assert capfd.readouterr() == ("", f"error: {message}\n")
    assert {*tmp_path.rglob("*")} == before


def test_help_explains_the_command(capfd):
    assert main(["check", "--help"]) == 0
    assert capfd.readouterr() == (checks.USAGE, "")


def test_a_backbone_in_the_hubs_cache_is_used(folder, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tiny_clip))
    assert main(command(preset(tmp_path), folder(ROWS), "somebody/clip", tmp_path / "out")) == 0
    assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] == 0


@pytest.mark.parametrize("backbone", ["nobody/no-such-clip", "no/such/folder/at/all", "~nobody-here/clip", "x" * 9999])
def test_a_backbone_that_is_not_here_is_not_fetched(folder, tmp_path, monkeypatch, capfd, backbone):
    asked = []

    def fetch(name, local_files_only=False):
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert main(command(preset(tmp_path), folder(ROWS), backbone, tmp_path / "out")) == 0
    assert all(asked)
    out, err = capfd.readouterr()
    assert err.startswith("cut captions are not counted, drawn pictures are 224 pixels wide: ")
    assert err.endswith(f"{backbone} is not on this machine\n")
    assert out.splitlines()[1].split()[11] == "?"
    assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] is None


def test_a_terminal_that_knows_few_letters_shows_question_marks(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", shown)
    checks._say("chat – 猫 \udcff")
    shown.flush()
    assert shown.buffer.getvalue() == b"chat ? ? ?\n"
