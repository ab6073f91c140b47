"""Own data in every form: captions, NULs, images that come again, descriptions, fingerprints."""

import pytest

from lpi_jax.check.command import table as told
from lpi_jax.check.survey import survey
from lpi_jax.data import builder
from lpi_jax.data.arrange import combined
from lpi_jax.data.images import SAMPLE, WHOLE, ImageInFile, ImageInside
from lpi_jax.errors import UserError
from lpi_jax.main import main
from tests.support.own_data import FORMS, GOOD, Row, encoded
from tests.support.pixels import shades
from tests.support.sources import table
from tests.support.splits import captions_of


@pytest.fixture(params=FORMS)
def write(request, tmp_path):
    return lambda rows: FORMS[request.param](tmp_path, rows)


# ---- NUL -------------------------------------------------------------------------------------------------------------

WITH_NUL = {
    "caption": Row(3, "a c\0t"),
    "caption in a list": Row(3, '["a cat", "a c\\u0000t"]'),
    "task": Row(3, "a cat", "ca\0ts"),
    "split": Row(3, "a cat", "cats", "train\0"),
    "description": Row(3, "a cat", description="all ab\0ut cats"),
}


@pytest.mark.parametrize("place", WITH_NUL)
def test_a_nul_in_any_text_is_a_bad_example_of_its_own_kind(write, place):
    read = write([*GOOD, WITH_NUL[place], Row(4, "the last")])
    with pytest.raises(UserError, match="holds a NUL character") as caught:
        read()
    assert "\0" not in str(caught.value) and "\n" not in str(caught.value)
    stream = read(on_bad_example="skip")
    assert stream.skipped == {"NUL character": 1}
    assert [task.name for task in stream.tasks] == ["cats"]
    assert shades(stream.tasks[0].train) == [1, 4]
    assert captions_of(stream.tasks[0].train) == (("a cat",), ("the last",))


def test_two_rows_that_lost_text_between_them_give_no_image_its_neighbours_caption(tmp_path):
    lines = ["image,caption,task,split", "1.png,one,cats,train", "2.png,two,cats,train", "3.png,three,cats,train"]
    whole = "\n".join([*lines, "4.png,four,cats,val"]).encode()
    for number in range(1, 5):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    lost = whole.replace(b"two,cats,train\n3.png,", bytes(len(b"two,cats,train\n3.png,")))  # as after a power cut
    (tmp_path / "table.csv").write_bytes(lost)
    with pytest.raises(UserError, match="line 3: the row holds a NUL character"):
        table(tmp_path / "table.csv")
    (task,) = table(tmp_path / "table.csv", on_bad_example="skip").tasks
    assert (task.train.keys, captions_of(task.train)) == (("1.png",), (("one",),))


# ---- lists written as text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, captions",
    [
        ("['a cat', \"the cat's tail\"]", ("a cat", "the cat's tail")),
        ('["a cat", "caf\\u00e9"]', ("a cat", "café")),
        ("[a sketch] of a cat", ("[a sketch] of a cat",)),
        ("[a sketch of a cat]", ("[a sketch of a cat]",)),
    ],
)
def test_a_list_written_as_text_is_its_captions_and_a_bracket_is_no_list(write, cell, captions):
    assert captions_of(write([*GOOD, Row(3, cell)])().tasks[0].train) == (("a cat",), captions)


@pytest.mark.parametrize("cell", ["['a cat' 'the cat']", "['a cat', None]", "['a cat', 'the c", '[["a cat"]]', "[]"])
def test_what_looks_like_a_list_and_cannot_be_read_is_never_a_caption(write, cell):
    read = write([*GOOD, Row(3, cell)])
    with pytest.raises(UserError, match="list") as caught:
        read()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    stream = read(on_bad_example="skip")
    assert stream.skipped == {"no captions" if cell == "[]" else "unreadable list": 1}
    assert captions_of(stream.tasks[0].train) == (("a cat",),)


# ---- images that come again ------------------------------------------------------------------------------------------


def test_one_line_per_caption_makes_one_image_with_all_of_them_in_their_order(write):
    rows = [
        *GOOD,
        Row(1, "a second"),
        Row(3, "a dog"),
        Row(1, "a cat"),
        Row(1, "A cat"),
        Row(2, "a fourth", split="val"),
    ]
    for mode in ("error", "skip"):
        stream = write(rows)(on_bad_example=mode)
        (task,) = stream.tasks
        assert captions_of(task.train) == (("a cat", "a second", "A cat"), ("a dog",)) and shades(task.train) == [1, 3]
        assert captions_of(task.val) == (("another cat", "a fourth"),) and shades(task.val) == [2]
        assert stream.skipped == {} and stream.notes["images"] == 3


@pytest.mark.parametrize("again", [Row(1, "x", split="val"), Row(1, "x", "dogs")])
def test_an_image_in_another_task_or_split_is_a_bad_example(write, again):
    rows = [*GOOD, Row(7, "a dog", "dogs"), Row(8, "a dog", "dogs", "val"), again, Row(1, "a second")]
    read = write(rows)
    with pytest.raises(UserError, match="stands already in"):
        read()
    stream = read(on_bad_example="skip")
    assert stream.skipped == {"repeated image": 1}
    assert captions_of(stream.tasks[0].train) == (("a cat", "a second"),)


def test_a_later_lines_empty_caption_is_counted_and_its_image_kept(write):
    stream = write([*GOOD, Row(1, " ... "), Row(1, "a second")])(on_bad_example="skip")
    assert stream.skipped == {"empty caption": 1} and captions_of(stream.tasks[0].train) == (("a cat", "a second"),)


# ---- descriptions ----------------------------------------------------------------------------------------------------


def test_descriptions_that_differ_are_told_with_both_texts_and_the_first_counts(write):
    rows = [
        Row(1, "a cat", description="Cats, of all kinds"),
        Row(2, "another cat", split="val", description="cats of all kinds."),
        Row(3, "a cat", description="dogs"),
        Row(3, "a third", description="birds"),
        Row(4, "a dog", "dogs"),
        Row(5, "a dog", "dogs", "val", description="dogs"),
    ]
    stream = write(rows)()
    assert [task.description for task in stream.tasks] == ["Cats, of all kinds", "dogs"]
    (remark,) = stream.remarks
    assert remark.startswith("the descriptions of task 'cats' differ: 'Cats, of all kinds' (")
    assert " counts, not 'dogs' (" in remark and remark.endswith("), nor 1 others")
    assert remark in told(survey(stream, 30))
    assert combined([stream], ["own"]).remarks == (f"own: {remark}",)


def test_tasks_whose_names_are_nearly_the_same_are_told(write):
    rows = [
        Row(n, "x", task, split)
        for n, (task, split) in enumerate((t, s) for t in ("toys", "Toys ") for s in ("train", "val"))
    ]
    assert write(rows)().remarks == ("tasks 'toys' and 'Toys ' are two, although their names are nearly the same",)


def test_a_description_of_punctuation_is_a_bad_example_and_the_next_one_counts(write):
    rows = [*GOOD, Row(3, "x", description=" ... "), Row(4, "y", description="all about cats")]
    with pytest.raises(UserError, match=r"description ' \.\.\. ' is empty once it is cleaned of punctuation"):
        write(rows)()
    stream = write(rows)(on_bad_example="skip")
    assert stream.skipped == {"empty description": 1} and shades(stream.tasks[0].train) == [1, 3, 4]
    assert stream.tasks[0].description == "all about cats"


def test_a_name_of_punctuation_needs_a_description(write):
    rows = [Row(1, "x", "***"), Row(2, "y", "***", "val")]
    for mode in ("error", "skip"):
        with pytest.raises(UserError, match=r"task '\*\*\*' has no description, and its name is empty once"):
            write(rows)(on_bad_example=mode)
    assert write([rows[0], rows[1]._replace(description="stars")])().tasks[0].description == "stars"


@pytest.fixture
def start(tmp_path, tiny_clip, compiled, capfd):
    """(rows, paint) -> status, stderr and folder of a small run on them."""

    def run(rows, paint=encoded):
        FORMS["JSON Lines"](tmp_path, rows, paint)
        config = tmp_path / "experiment.py"
        config.write_text("from lpi_jax import config\n\n\nget_config = config.intended\n")
        own = {
            "data.name": "jsonl",
            "data.path": tmp_path / "stream.jsonl",
            "method.name": "zero_shot",
            "eval.batch": 32,
        }
        flags = [f"--config.{key}={value}" for key, value in {"backbone": tiny_clip, **own}.items()]
        status = main(["main", f"--config={config}", f"--workdir={tmp_path / 'run'}", *flags])
        return status, capfd.readouterr().err, tmp_path / "run"

    return run


def test_a_run_refuses_names_without_words_before_it_claims_its_folder(start):
    status, err, folder = start([Row(1, "x", "?!"), Row(3, "x", "?!"), Row(2, "y", "?!", "val")])
    assert status == 2 and err.splitlines()[-1].startswith("error: ") and "task '?!' has no description" in err
    assert not folder.exists()


def test_a_run_tells_which_description_counts_and_is_not_resumed_on_other_pixels(start):
    rows = [Row(n, f"number {n}", split="val" if n < 4 else "train", description=f"kind {n % 2}") for n in range(20)]
    status, err, folder = start(rows)
    assert status == 0 and "note: the descriptions of task 'cats' differ: 'kind 0' (" in err
    before = (folder / "results.json").read_bytes()
    status, err, _ = start(rows, lambda shade: encoded(shade + 100))
    assert status == 2 and "stream" in err.splitlines()[-1]
    assert (folder / "results.json").read_bytes() == before


# ---- fingerprints ----------------------------------------------------------------------------------------------------

MANY = [Row(n, f"number {n}", split="val" if n == 0 else "train") for n in range(6)]


@pytest.mark.parametrize("form", FORMS)
def test_the_fingerprint_follows_pixels_at_equal_size_but_not_the_folder(tmp_path, form):
    def fingerprint(name, paint=encoded):
        (tmp_path / name).mkdir()
        return FORMS[form](tmp_path / name, MANY, paint)().fingerprint

    assert len(encoded(0)) == len(encoded(10))
    one = fingerprint("one")
    assert fingerprint("elsewhere") == one
    assert fingerprint("changed", lambda shade: encoded(10 if shade == 3 else shade)) != one


def test_of_a_small_picture_every_byte_counts(tmp_path):
    read, prints = FORMS["JSON Lines"](tmp_path, GOOD), set()
    for place in (None, 5_000, WHOLE // 2 - 5_000, WHOLE - 5_000):
        content = bytearray(encoded(1).ljust(WHOLE, b"\0"))  # what stands behind a PNG's end is not decoded
        if place is not None:
            content[place] ^= 0xFF
        (tmp_path / "1.png").write_bytes(content)
        path = str(tmp_path / "1.png")
        assert ImageInFile(path).sample() == content == ImageInside(path, 0, len(content), "x").sample()
        prints.add(read().fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize("place", [60, (WHOLE + 400_000) // 2, -1])
def test_a_large_picture_is_looked_into_at_its_head_middle_and_tail(tmp_path, place):
    read = FORMS["JSON Lines"](tmp_path, GOOD)
    content = bytearray(encoded(1).ljust(WHOLE + 400_000, b"\0"))  # what stands behind a PNG's end is not decoded
    (tmp_path / "1.png").write_bytes(content)
    first = read().fingerprint
    content[place] ^= 0xFF
    (tmp_path / "1.png").write_bytes(content)
    sample = ImageInFile(str(tmp_path / "1.png")).sample()
    assert len(sample) == 3 * SAMPLE and sample == ImageInside(str(tmp_path / "1.png"), 0, len(content), "x").sample()
    assert place == 60 or read().fingerprint != first
    assert place != 60 or sample[:SAMPLE] != encoded(1).ljust(SAMPLE, b"\0")


def test_of_many_pictures_a_fixed_sample_is_looked_into(tmp_path, monkeypatch):
    read = FORMS["JSON Lines"](tmp_path, MANY)
    monkeypatch.setattr(builder, "_SAMPLED", 3)
    first = read().fingerprint
    (tmp_path / "1.png").write_bytes(encoded(11))
    assert read().fingerprint == first  # between two that are looked into
    (tmp_path / "2.png").write_bytes(encoded(12))
    assert read().fingerprint != first
