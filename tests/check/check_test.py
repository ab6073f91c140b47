"""The check of a stream: the table and the files say what was found, and it writes only where it may."""

import io
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

from lpi_jax.check import command as checks
from lpi_jax.check.command import main, table, write
from lpi_jax.check.survey import survey
from lpi_jax.data.contact_sheet import COLUMNS, SIDE, Section, Tile, contact_sheet, file_name, thumbnail
from tests.support.pixels import pixels
from tests.support.sources import jsonl
from tests.support.survey_streams import damaged, gone, half_gone, loaded, manifest, photo, split, stream

ARABIC, HEBREW, EMOJI = "قطة حمراء على كرسي", "חתול אדום \u202eabc", "👩‍👩‍👧 🐱 🇦🇶 family"
HARD_TEXTS = [
    *(ARABIC, HEBREW, EMOJI, "漢字かな", "a\0b\x1b[31m\nc", "half \ud800 pair", "e" + "\u0301" * 50),
    *("x" * 1_000_000, " ", ""),
]


# ---- table -----------------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_per_task_and_one_for_all():
    tasks = [(name, split([photo(i)]), split([photo(i + 50, 7, 5)])) for i, name in enumerate(["a", "bb", "ccc"])]
    lines = table(survey(stream(*tasks), 30)).splitlines()
    total = "all 3 / 3 3 / 3 2 / 2 0 ? 5x7 5x7 60x40 0 + 0 0 + 0 3 0"
    assert lines[0].split() == " ".join(checks.HEADER).format(max_words=30).split()
    assert [line.split()[0] for line in lines[1:5]] == ["a", "bb", "ccc", "all"]
    assert lines[4].split() == total.split()
    assert len({len(line) for line in lines[:5]}) == 1


def test_a_task_name_cannot_steer_the_terminal():
    found = survey(stream(("red\x1b[31m\n" + "x" * 999, split([photo(0)]), split([photo(1)]))), 30)
    line = table(found).splitlines()[1]
    assert line.startswith("red?[31m?xxx") and len(line) < 200


def test_bad_images_are_listed_below_the_table():
    told = table(survey(half_gone(), 30))
    assert "\n\nbad by kind\n  pets: 10 missing file, 25 unreadable image\n\nthe bad ones\n  stream, line 1: " in told
    assert told.endswith("  stream, line 39: not there\n  and 15 more")


def test_few_bad_images_are_listed_whole():
    train = loaded(lambda index: gone(index) if index == 4 else photo(index), [["a cat"]] * 5)
    told = table(survey(stream(("pets", train, split([photo(9)]))), 30))
    assert told.endswith("\n\nbad by kind\n  pets: 1 missing file\n\nthe bad ones\n  stream, line 4: not there")


def test_what_the_stream_left_out_is_told(tmp_path):
    rows = [(photo(0), ["a"], "toys", "train"), (photo(1), ["b"], "toys", "val"), (b"", ["c"], "toys", "train")]
    found = survey(jsonl(manifest(tmp_path, rows), on_bad_example="skip"), 30)
    told = table(found)
    assert "\n\nbad by kind\n  toys: 1 unreadable image\n\nthe bad ones\n" in told
    assert "stream.jsonl, line 3: " in told.splitlines()[-1]
    assert told.splitlines()[1].split()[-1] == "1"


def test_a_task_without_one_good_image_has_a_line_and_a_sheet(tmp_path):
    nothing = loaded(gone, [["a cat"]])
    found = survey(stream(("pets", nothing, nothing)), 30)
    assert len({len(line) for line in table(found).splitlines()[:3]}) == 1
    write(found, tmp_path)
    assert Image.open(io.BytesIO((tmp_path / "00-pets.png").read_bytes())).width > COLUMNS * SIDE


# ---- contact sheets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (30, 20), (2000, 3000)])
def test_a_thumbnail_fits_whatever_the_shape(height, width):
    small = thumbnail(Image.new("RGB", (width, height), (7, 7, 7)))
    assert max(small.size) == SIDE and min(small.size) >= 1
    assert (pixels(small) == 7).all()


def test_a_sheet_shows_its_images_in_rows():
    tiles = [Tile(Image.new("RGB", (SIDE, SIDE), (i, 200, 50)), f"image {i}") for i in range(8)]
    sheet = Image.open(io.BytesIO(contact_sheet("pets", [Section("train", tiles), Section("val", tiles[:1])])))
    shown = Counter(tuple(pixel) for row in np.asarray(sheet) for pixel in row.tolist())
    assert [shown[i, 200, 50] for i in range(8)] == [2 * SIDE * SIDE] + [SIDE * SIDE] * 7
    assert sheet.width < (COLUMNS + 1) * SIDE
    first, last = (np.argwhere((np.asarray(sheet) == (i, 200, 50)).all(-1))[0] for i in (1, 7))
    assert first[1] == last[1] and last[0] > first[0]  # the eighth stands below the second


@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_any_text_can_be_drawn(text):
    tile = Tile(Image.new("RGB", (9, 9)), text)
    sheet = Image.open(io.BytesIO(contact_sheet(text, [Section(text, [tile, Tile(None, text)])])))
    plain = Image.open(io.BytesIO(contact_sheet("a", [Section("b", [tile, tile])])))
    assert sheet.size == plain.size


def test_a_caption_is_wrapped_and_cut_under_its_own_image():
    sheet = contact_sheet("pets", [Section("train", [Tile(Image.new("RGB", (SIDE, SIDE)), "kite " * 90)])])
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
    write(survey(stream(task, task), 30), out)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 and {path.parent for path in files} == {out}
    assert all(not path.name.startswith(".") for path in files)


def test_the_json_holds_the_numbers_and_names_the_sheets(tmp_path):
    found = survey(stream(("pets/cats", split([photo(0)] * 2), split([photo(1)]))), 30, count_cut=len)
    write(found, tmp_path)
    numbers = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"check.json", "00-pets-cats.png"}
    row = {
        "name": "pets/cats",
        "images": {"train": 2, "val": 1},
        "captions": {"train": 2, "val": 1},
        "words": {"median": 2, "longest": 2, "too_long": 0},
        "cut": 3,
        "sizes": {"smallest": [60, 40], "median": [60, 40], "largest": [60, 40]},
        "repeats": {"train_same": 1, "train_alike": 0, "val_same": 0, "val_alike": 0, "captions": 1},
        "bad": {},
    }
    whole = {"stream": "toys", "fingerprint": "f" * 64, "max_words": 30, "unplaced": {}, "bad": [], "remarks": []}
    tasks = [row | {"sheet": "00-pets-cats.png"}]
    assert numbers == whole | {"tasks": tasks, "total": row | {"name": "all"}}


def test_contact_sheets_of_an_earlier_check_are_removed_and_nothing_else(tmp_path):
    def checked(*names):
        write(survey(stream(*((name, split([photo(0)]), split([photo(1)])) for name in names)), 30), tmp_path)
        return {path.name for path in tmp_path.iterdir()}

    checked("pets", "toys", "food")
    own = {"02-mine.png", "00-pets.jpg", "notes.txt", "01-toys.png.bak"}
    for name in own:
        (tmp_path / name).write_text("mine")
    assert checked("food", "toys") == own | {"check.json", "00-food.png", "01-toys.png"}
    assert all((tmp_path / name).read_text() == "mine" for name in own)
    assert checked("food") == own | {"check.json", "00-food.png"}


@pytest.mark.parametrize(
    "record",
    [
        *("", "[]", '{"tasks": 3}', '{"tasks": [{}]}', '{"tasks": [{"sheet": 7}]}', "[" * 100_000),
        '{"tasks": [{"sheet": "../00-pets.png"}, {"sheet": "notes.txt"}, {"sheet": "/etc/00-x.png"}]}',
    ],
    ids=range(7),
)
def test_a_damaged_record_of_an_earlier_check_costs_nothing(tmp_path, record):
    out = tmp_path / "out"
    out.mkdir()
    own = [tmp_path / "00-pets.png", out / "notes.txt", out / "00-pets.png"]
    for path in own:
        path.write_text("mine")
    (out / "check.json").write_text(record)
    write(survey(stream(("toys", split([photo(0)]), split([photo(1)]))), 30), out)
    assert all(path.read_text() == "mine" for path in own)
    assert (out / "00-toys.png").exists()


# ---- the command -----------------------------------------------------------------------------------------------------


def preset(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("from lpi_jax import config\n\n\nget_config = config.intended\n")
    return path


def command(config, path, backbone, out, *more):
    given = [f"--config={config}", "--config.data.name=jsonl", f"--config.data.path={path}", f"--out={out}"]
    return ["check", *given, f"--config.backbone={backbone}", *more]


ROWS = [(photo(0), ["a cat"], "pets", "train"), (photo(1), ["a dog"], "pets", "val")]


def test_the_command_prints_the_table_and_writes_the_files(tiny_clip, tmp_path, capfd):
    path = manifest(tmp_path, ROWS)
    fitting = [f"--config.{key}" for key in ("train.batch=1", "method.length=0", "method.layers=0", "method.depth=0")]
    assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out", *fitting)) == 0
    out, err = capfd.readouterr()
    assert err == ""
    told = table(survey(jsonl(path), 30, lambda _: 0))
    assert out == f"{told}\n\nWritten: {tmp_path}/out/check.json and 1 contact sheets\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "00-pets.png"}


def test_captions_are_counted_as_cut_as_the_tower_would_cut_them(tiny_clip, tmp_path):
    path = manifest(
        tmp_path, [(photo(0), ["red", "red " * 65], "toys", "train"), (photo(1), ["red " * 65], "toys", "val")]
    )
    for method, words, length, cut in (
        ("lpi", 99, 16, 2),
        ("lpi", 99, 4, 0),
        ("lpi", 9, 16, 0),
        ("lpi", 99, 20, 2),  # which has no room in the image tower
        ("zero_shot", 99, 16, 0),
    ):
        more = {"method.name": method, "data.max_words": words, "method.length": length}
        flags = [f"--config.{key}={value}" for key, value in more.items()]
        assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out", *flags)) == 0
        assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] == cut


def test_the_backbones_tensors_are_not_needed(tiny_clip, tmp_path, capfd):
    shutil.copytree(tiny_clip, tmp_path / "clip", ignore=shutil.ignore_patterns("*.safetensors"))
    path = manifest(tmp_path, ROWS)
    assert main(command(preset(tmp_path), path, tmp_path / "clip", tmp_path / "out")) == 0
    assert capfd.readouterr().err == ""
    assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] == 0


def test_drawn_images_have_the_backbones_size(tiny_clip, tmp_path):
    few = ["--config.data.domains=fax", "--config.data.train=3", "--config.data.val=2"]
    config, out = preset(tmp_path), tmp_path / "out"
    assert main(["check", f"--config={config}", f"--config.backbone={tiny_clip}", "--out", str(out), *few]) == 0
    assert json.loads((out / "check.json").read_text())["total"]["sizes"]["largest"] == [32, 32]


@pytest.mark.parametrize(("mode", "status"), [("error", 2), ("skip", 0)])
def test_bad_images_decide_the_exit_status(tiny_clip, tmp_path, capfd, mode, status):
    path = manifest(tmp_path, [*ROWS, (damaged(), ["a hole"], "pets", "train")])
    more = f"--config.data.on_bad_example={mode}"
    assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out", more)) == status
    out, err = capfd.readouterr()
    assert "1 unreadable image" in out and err == ""
    assert f"{path}, line 3: " in out
    assert (tmp_path / "out" / "check.json").exists()


@pytest.mark.parametrize(("mode", "status"), [("error", 2), ("skip", 0)])
def test_images_that_break_after_the_stream_was_read_are_told_too(
    tiny_clip, tmp_path, monkeypatch, capfd, mode, status
):
    read = checks._stream

    def read_then_break(*arguments):
        found = read(*arguments)
        (tmp_path / "1.png").write_bytes(b"")
        return found

    monkeypatch.setattr(checks, "_stream", read_then_break)
    more = f"--config.data.on_bad_example={mode}"
    assert main(command(preset(tmp_path), manifest(tmp_path, ROWS), tiny_clip, tmp_path / "out", more)) == status
    assert f"  {tmp_path}/stream.jsonl, line 2: {tmp_path}/1.png: " in capfd.readouterr().out


@pytest.mark.parametrize(("mode", "status"), [("error", 2), ("skip", 0)])
def test_lines_that_are_no_examples_are_all_told(tiny_clip, tmp_path, capfd, mode, status):
    path = manifest(tmp_path, [*ROWS, (photo(2), [], "pets", "train"), (photo(3), ["!"], "pets", "val")])
    more = f"--config.data.on_bad_example={mode}"
    assert main(command(preset(tmp_path), path, tiny_clip, tmp_path / "out", more)) == status
    out, err = capfd.readouterr()
    assert "bad by kind\n  pets: 1 no captions, 1 empty caption\n" in out and err == ""
    assert f"  {path}, line 3: captions is an empty list; expected one caption or more\n" in out
    assert f"  {path}, line 4: caption '!' is empty once it is cleaned of punctuation\n" in out
    assert json.loads((tmp_path / "out" / "check.json").read_text())["tasks"][0]["bad"] == {
        "no captions": 1,
        "empty caption": 1,
    }


def test_the_bad_ones_of_each_of_several_streams_are_told(tiny_clip, tmp_path, capfd):
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(str(manifest(tmp_path / name, [*ROWS, (photo(2), ["!"], "pets", "val")])))
    streams = tuple({"name": "jsonl", "path": path, "on_bad_example": "error"} for path in paths)
    more = ["--config.data.name=multi", "--config.data.path=", f"--config.data.streams={streams}"]
    assert main(command(preset(tmp_path), "", tiny_clip, tmp_path / "out", *more)) == 2
    out, err = capfd.readouterr()
    assert err == "" and "  jsonl/pets: 1 empty caption\n  jsonl 2/pets: 1 empty caption\n" in out
    assert all(f"  {path}, line 3: caption '!' is empty" in out for path in paths)


def test_a_stream_that_cannot_be_read_ends_in_one_sentence(tiny_clip, tmp_path, capfd):
    path = manifest(tmp_path, [(photo(2), [], "pets", "train"), *ROWS[1:]])
    before = {*tmp_path.rglob("*")}
    config = preset(tmp_path)
    assert main(command(config, path, tiny_clip, tmp_path / "out")) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1) and f"(the first: {path}, line 1: captions is an empty list; " in err
    assert {*tmp_path.rglob("*")} == before | {config}


def test_sizes_are_the_sources_where_a_run_would_read_a_cache(tiny_clip, tmp_path):
    more = [f"--config.data.cache_dir={tmp_path / 'cache'}", "--config.data.cache_side=32"]
    assert main(command(preset(tmp_path), manifest(tmp_path, ROWS), tiny_clip, tmp_path / "out", *more)) == 0
    assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["sizes"]["largest"] == [60, 40]
    assert not (tmp_path / "cache").exists()


def test_letters_of_many_scripts_are_drawn_and_not_boxed():
    def drawn(text):
        return contact_sheet("pets", [Section("train", [Tile(None, text)])])

    for script in ("ÄÖÜß", "Жук", "λόγος", "חתול", "قطة"):
        assert len({drawn(script), drawn(script[::-1]), drawn("\uffff" * len(script))}) == 3


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


def test_a_backbone_in_the_hubs_cache_is_used(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tiny_clip))
    assert main(command(preset(tmp_path), manifest(tmp_path, ROWS), "somebody/clip", tmp_path / "out")) == 0
    assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] == 0


@pytest.mark.parametrize("backbone", ["nobody/no-such-clip", "no/such/folder/at/all", "x" * 9999])
def test_a_backbone_that_is_not_here_is_not_fetched(tmp_path, monkeypatch, capfd, backbone):
    asked = []

    def fetch(name, local_files_only=False):
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert main(command(preset(tmp_path), manifest(tmp_path, ROWS), backbone, tmp_path / "out")) == 0
    assert all(asked)
    out, err = capfd.readouterr()
    assert err.startswith("cut captions are not counted, drawn images are 224 pixels wide: ")
    assert err.endswith(f"{backbone} is not on this machine; a run would have to fetch it\n")
    assert out.splitlines()[1].split()[11] == "?"
    assert json.loads((tmp_path / "out" / "check.json").read_text())["total"]["cut"] is None


def test_samples_of_instructions_are_told_by_their_questions_and_images_alone():
    from lpi_jax.data.questions.source import Options, build
    from lpi_jax.problems.instruction.assemble import texts

    questions = build(Options(tasks=("count", "presence"), train=10, val=5, image_size=32))
    told = table(survey(questions, None, said=texts)).splitlines()
    assert told[0].split()[:6] == ["task", "images", "captions", "words", "over", "-"]
    assert re.match(r"count +8 / 4 +10 / 5 +\d+ / \d+ +- ", told[1])  # every fifth is asked without an image
    assert re.match(r"presence +10 / 5 +10 / 5 ", told[2])
