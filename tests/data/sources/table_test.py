"""Tables, CSV and Parquet: what is read, what each kind of bad row says, and that damage never mixes rows."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpi_jax.config import command_line
from lpi_jax.data.formats.csv_file import MAX_LINE
from lpi_jax.data.sources import registry
from lpi_jax.errors import UserError
from tests.support.pixels import pixels, shades
from tests.support.sealed import sealed
from tests.support.sources import table
from tests.support.splits import captions_of
from tests.support.tables import (
    GOOD,
    HEADER,
    SPREAD,
    columns_of,
    csv_of,
    damaged,
    encoded,
    outcome,
    parquet_of,
    write_folder,
)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.mark.parametrize("write", ["csv", "parquet"])
def test_tasks_splits_captions_and_images(folder, write):
    columns = columns_of(caption=["a cat", "another cat", "a dog", "another dog"])
    path = csv_of(folder, GOOD) if write == "csv" else parquet_of(folder, columns)
    stream = table(path)
    assert [task.name for task in stream.tasks] == ["cats", "dogs"] and stream.name == path.name
    cats, dogs = stream.tasks
    assert cats.train.keys == ("img/1.png",) and captions_of(cats.train) == (("a cat",),)
    assert shades(cats.train) + shades(cats.val) + shades(dogs.train) + shades(dogs.val) == [1, 2, 3, 4]
    assert stream.skipped == {} and stream.notes == {"path": str(path), "images": 4}
    assert pixels(cats.train.load(0)).shape == (4, 6, 3)


def test_both_kinds_of_table_give_equal_streams(folder):
    columns = columns_of(caption=["a cat", "another cat", "a dog", "another dog"])
    one, other = table(csv_of(folder, GOOD)), table(parquet_of(folder, columns))
    assert one.fingerprint == other.fingerprint and captions_of(one.tasks[0].train) == captions_of(other.tasks[0].train)


def test_rows_of_one_image_are_its_captions_wherever_they_stand(folder):
    lines = [
        *GOOD,
        "img/1.png,a second,cats,train",
        "./img/../img/1.png,a third,cats,train",
        "img/3.png,one,dogs,train",
    ]
    stream = table(csv_of(folder, lines))
    assert stream.tasks[0].train.keys == ("img/1.png",)
    assert captions_of(stream.tasks[0].train) == (("a cat", "a second", "a third"),)
    assert captions_of(stream.tasks[1].train) == (("a dog", "one"),) and stream.notes["images"] == 4


def test_the_same_image_in_another_task_or_split_is_a_bad_example(folder):
    for line, where in [
        ("img/1.png,x,cats,val", r"line 6: image 'img/1.png' stands already in line 2, in the other split \(train\)"),
        ("img/1.png,x,dogs,train", "line 6: image 'img/1.png' stands already in line 2$"),
    ]:
        path = csv_of(folder, [*GOOD, line])
        with pytest.raises(UserError, match=where):
            table(path)
        stream = table(path, on_bad_example="skip")
        assert stream.skipped == {"repeated image": 1} and captions_of(stream.tasks[0].train) == (("a cat",),)


def test_csv_as_spreadsheets_write_it(folder):
    lines = [
        'img/1.png,"a ""red"" kite,\r\nseen twice",cats,train',
        "",
        *GOOD[1:],
        ",,,",
        "img/5.png,עפיפון 🪁,cats,train",
    ]
    path = csv_of(folder, lines, ending="\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    cats = table(path).tasks[0]
    assert captions_of(cats.train) == (('a "red" kite,\r\nseen twice',), ("עפיפון 🪁",))
    with pytest.raises(UserError, match="line 4: task is empty"):  # the caption above took two lines, one was blank
        table(csv_of(folder, [lines[0], "img/5.png,x,,train"]))


def test_columns_in_any_order_and_of_any_name(folder):
    lines = ["cats,train,x,img/1.png,one,all about cats", "cats,val,x,img/2.png,two,"]
    path = csv_of(folder, lines, header="domain,part,unused,file,said,about")
    named = {"image": "file", "caption": "said", "task": "domain", "split": "part", "description": "about"}
    (cats,) = table(path, **named).tasks
    assert (cats.name, cats.description, captions_of(cats.train)) == ("cats", "all about cats", (("one",),))


@pytest.mark.parametrize("write", [csv_of, parquet_of])
def test_a_missing_column_names_file_and_closest(folder, write):
    if write is csv_of:
        path, where = csv_of(folder, [], header="image,Captions,task,split"), ", line 1"
    else:
        path, where = parquet_of(folder, {"image": [], "Captions": [], "task": [], "split": []}), ""
    with pytest.raises(UserError) as caught:
        table(path)
    assert str(caught.value) == (
        f"{path}{where}: there is no column 'caption';"
        " the closest is 'Captions', of 'image', 'Captions', 'task', 'split'"
    )
    with pytest.raises(UserError, match="there is no column 'when'"):
        table(path, caption="Captions", time="when")


def test_a_column_that_stands_twice_is_an_error(folder):
    with pytest.raises(UserError, match="line 1: column 'task' stands 2 times"):
        table(csv_of(folder, [], header="image,caption,task,split,task"))
    twice = pa.table([[], [], [], [], []], names=["image", "caption", "task", "split", "task"])
    with pytest.raises(UserError, match="column 'task' stands 2 times"):
        table(parquet_of(folder, twice))


@pytest.mark.parametrize(
    "times, expected",
    [
        (["3", "9", "1e0", "9"], ["dogs", "cats"]),
        (["2026-03-02", "2026-03-03", "2026-03-01T23:00:00", "2027-01-01"], ["dogs", "cats"]),
        (["2026-03-02T00:00:00+02:00", "2027-01-01", "2026-03-01T23:00:00Z", "2027-01-01"], ["cats", "dogs"]),
        (["-1", "5", "-1", "4"], ["cats", "dogs"]),  # equal: as they appear
    ],
)
def test_tasks_arrive_in_the_order_of_their_earliest_time(folder, times, expected):
    path = csv_of(folder, [f"{line},{time}" for line, time in zip(GOOD, times, strict=True)], header=f"{HEADER},when")
    assert [task.name for task in table(path, time="when").tasks] == expected
    assert [task.name for task in table(path, time="when", task_order=["cats", "dogs"]).tasks] == ["cats", "dogs"]
    assert [task.name for task in table(path).tasks] == ["cats", "dogs"]


def test_fingerprint_follows_values_images_and_order_but_not_the_folder(folder, tmp_path_factory):
    first = table(csv_of(folder, GOOD)).fingerprint
    assert first == table(csv_of(folder, GOOD), on_bad_example="skip").fingerprint and len(first) == 64
    found = {first}
    found.add(table(csv_of(folder, [*GOOD[:-1], "img/4.png,another,dogs,val"])).fingerprint)
    found.add(table(csv_of(folder, GOOD), task_order=["dogs", "cats"]).fingerprint)
    found.add(table(csv_of(folder, [*GOOD, "img/5.png,another,dogs,val"])).fingerprint)
    elsewhere = tmp_path_factory.mktemp("else") / "where"
    folder.rename(elsewhere)
    assert table(elsewhere / "table.csv").fingerprint in found
    (elsewhere / "img/1.png").write_bytes(encoded(1) + b"longer")
    found.add(table(csv_of(elsewhere, GOOD)).fingerprint)
    assert len(found) == 5
    found |= {
        table(parquet_of(elsewhere, columns_of(image=[encoded(n + k) for n in range(4)]))).fingerprint for k in (1, 2)
    }
    assert len(found) == 7


BAD = [
    ("wrong number of values", "img/5.png,x,cats", "the row has 3 values; expected 4"),
    ("wrong number of values", "img/5.png,x, y,cats,train", "the row has 5 values; expected 4"),
    ("empty cell", ",x,cats,train", "image is empty; expected text"),
    ("empty cell", "img/5.png,x, ,train", "task is empty"),
    ("empty cell", "img/5.png,x,cats,", "split is empty"),
    ("unknown split", "img/5.png,x,cats,test", "split is 'test'; expected 'train' or 'val'"),
    ("empty caption", "img/5.png,,cats,train", "caption '' is empty"),
    ("empty caption", "img/5.png, ... ,cats,train", r"caption ' \.\.\. ' is empty once it is cleaned"),
    ("not UTF-8", b"img/5.png,caf\xe9,cats,train", "caption holds bytes that are not UTF-8"),
    ("not UTF-8", b"img/\xff.png,x,cats,train", "image holds bytes that are not UTF-8"),
    ("not UTF-8", b"img/5.png,x,\xed\xa0\x80,train", "task holds bytes that are not UTF-8"),
    ("missing file", "img/no.png,x,cats,train", "there is no such file"),
    ("missing file", "img,x,cats,train", "not a regular file"),
    ("NUL character", "im\0g,x,cats,train", "the row holds a NUL character"),
    ("unreadable image", "img/empty.png,x,cats,train", "not an image in a known format"),
    ("unreadable image", "img/text.jpg,x,cats,train", "not an image in a known format"),
    ("unreadable image", "img/cut.png,x,cats,train", "img/cut.png: "),
    ("repeated image", "img/2.png,x,cats,train", "stands already in line 3"),
]


@pytest.mark.parametrize("kind, bad, message", BAD, ids=[f"{kind}-{i}" for i, (kind, _, _) in enumerate(BAD)])
def test_a_bad_row_is_one_clear_sentence_or_is_counted(folder, kind, bad, message):
    path = csv_of(folder, [*GOOD, bad, "img/9.png,the last,cats,train"])
    with pytest.raises(UserError, match=message) as caught:
        table(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 6: ") and "\n" not in text and len(text) < 500
    stream = table(path, on_bad_example="skip")
    assert stream.skipped == {kind: 1} and stream.tasks[0].train.keys == ("img/1.png", "img/9.png")


@pytest.mark.parametrize(
    "times, message",
    [
        (["1", "2", "soon", "4"], "line 4: time is 'soon'; expected a finite number or an ISO date"),
        (["1", "2", "", "4"], "line 4: time is ''"),
        (["1", "2", "nan", "4"], "line 4: time is 'nan'"),
        (["1", "2", "1e999", "4"], "line 4: time is '1e999'"),
        (["1", "2", "2026-01-01", "4"], "line 4: time is '2026-01-01', a date; rows before have a number"),
        (
            ["2026-01-01", "2026-01-01", "2026", "2027-01-01"],
            "line 4: time is '2026', a number; rows before have a date",
        ),
    ],
)
def test_a_time_that_is_none_is_a_bad_row(folder, times, message):
    lines = [f"{line},{time}" for line, time in zip(GOOD, times, strict=True)]
    path = csv_of(folder, [*lines, f"img/5.png,x,dogs,train,{times[1]}"], header=f"{HEADER},when")
    with pytest.raises(UserError, match=message):
        table(path, time="when")
    assert table(path, time="when", on_bad_example="skip").skipped == {"bad time": 1}


def test_a_mistake_in_the_quoting_ends_the_file_in_every_mode(folder):
    """Behind it rows cannot be told apart: to go on would pair captions with other rows' images."""
    lines = [*GOOD, 'img/5.png,"x" y,cats,train', "img/6.png,z,cats,train"]
    for bad, message in [
        (lines, "line 6: from here on this is not CSV"),
        ([*GOOD, 'img/5.png,"x,cats,train'], "line 6: "),
    ]:
        path = csv_of(folder, bad)
        for mode in ("error", "skip"):
            with pytest.raises(UserError, match=message) as caught:
                table(path, on_bad_example=mode)
            assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "rows, said",
    [
        (['img/5.png,"x,cats,train', "img/6.png,z,cats,train"], "a quote in this row is never closed"),
        (
            ['img/5.png,"x,cats,train', '"img/6.png",z,cats,train'],
            "a quote in this row is not closed before line 9: .*",
        ),
        (['img/5.png,"x,cats,train', *["img/6.png,z,cats,train"] * 9_000], "a quote .* before line .*field larger.*"),
        (['img/5.png,"x" y,cats,train', "img/6.png,z,cats,train"], "',' expected after '\"'"),
    ],
)
def test_a_quote_that_is_not_closed_is_told_with_the_line_of_its_row(folder, rows, said):
    path = csv_of(folder, ['img/1.png,"a kite,\nseen twice",cats,train', *GOOD[1:], "", *rows])
    with pytest.raises(UserError, match=rf"^{path}, line 8: from here on this is not CSV \({said}\)$"):
        table(path)


STRAY = [
    ['img/5.png,"a cat,cats,train', 'img/6.png,another 5",cats,train'],
    ['img/5.png,"a cat,cats,train', "img/6.png,another,cats,val", 'img/7.png,a third",cats,train'],
    ['img/5.png,"a cat, seen,cats,train', 'img/6.png,another 5",cats,train'],  # five values, joined to four
]


@pytest.mark.parametrize("rows", STRAY, ids=range(len(STRAY)))
@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_stray_quote_that_a_later_one_closes_swallows_no_row_unsaid(folder, rows, name, ending):
    lines = [HEADER, *GOOD, *rows, "img/9.png,the last,cats,train"]
    if name.endswith("tsv"):
        lines = [line.replace(",", "\t") for line in lines]
    path = csv_of(folder, lines[1:], header=lines[0], ending=ending, name=name)
    with pytest.raises(UserError) as caught:
        table(path)
    said = "a value holds the end of one row and the beginning of the next; expected quotes in pairs"
    assert str(caught.value) == f"{path}, line 6: {said}"
    stream = table(path, on_bad_example="skip")
    assert stream.skipped == {"stray quote": 1} and stream.tasks[0].train.keys == ("img/1.png", "img/9.png")


def test_a_stray_quote_is_found_wherever_the_split_stands(folder):
    for header, first, second in [
        ("split,image,task,caption", 'train,img/5.png,cats,"a cat', 'train,img/6.png,cats,another 5"'),
        ("image,split,caption,task", 'img/5.png,train,"a cat,cats', 'img/6.png,val,another 5",cats'),
        ("caption,image,split,task", '"a cat,img/5.png,train,cats', 'another 5",img/6.png,train,cats'),
    ]:
        with pytest.raises(UserError, match="line 2: a value holds the end of one row"):
            table(csv_of(folder, [first, second], header=header))


def test_captions_of_several_lines_may_say_train(folder):
    captions = ["a bus, train, and\ncars", "train\nand val", "by train, val, and\rothers"]
    lines = [f'img/{n}.png,"{caption}",cats,train' for n, caption in enumerate(captions, start=5)]
    assert captions_of(table(csv_of(folder, [*GOOD, *lines])).tasks[0].train)[1:] == tuple((one,) for one in captions)


@pytest.mark.parametrize("sign, called, spelt", [(";", "';'", "';'"), ("\t", "a tab", "tab")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_header_with_another_separator_names_the_remedy(folder, sign, called, spelt, quote):
    lines = [sign.join(f"{quote}{cell}{quote}" for cell in line.split(",")) for line in [HEADER, *GOOD]]
    path = csv_of(folder, lines[1:], header=lines[0])
    remedy = f"expected commas, or --config.data.separator={spelt}"
    with pytest.raises(UserError, match=rf"seems to separate columns by {called}; {remedy}$") as caught:
        table(path)
    assert str(caught.value).startswith(f"{path}, line 1: the header {lines[0]!r} ")
    stream = table(path, separator=spelt.strip("'"))
    assert stream.fingerprint == table(csv_of(folder, GOOD)).fingerprint


@pytest.mark.parametrize("name", ["table.tsv", "table.TSV", "table.tab"])
def test_a_table_called_tsv_is_separated_by_tabs(folder, name):
    lines = ["img/1.png\ta cat; black, small\tcats\ttrain", *(line.replace(",", "\t") for line in GOOD[1:])]
    path = csv_of(folder, lines, header=HEADER.replace(",", "\t"), name=name)
    assert captions_of(table(path).tasks[0].train) == (("a cat; black, small",),)
    assert (
        table(path, separator="\\t").fingerprint == table(path, separator="\t").fingerprint == table(path).fingerprint
    )
    with pytest.raises(UserError, match=r"by a tab; expected ';', or --config.data.separator=tab"):
        table(path, separator=";")
    with pytest.raises(UserError, match=r"by commas; expected a tab, or --config.data.separator=,"):
        table(csv_of(folder, GOOD, name=name))


@pytest.mark.parametrize("wrong", ["::", "comma", "x", '"', " ", "\n", "\0"])
def test_a_separator_that_is_none_is_refused(folder, wrong):
    with pytest.raises(UserError, match=r"config.data.separator is .*, expected one sign such as ';', or tab"):
        table(csv_of(folder, GOOD), separator=wrong)


def test_a_separator_reaches_the_table_from_the_command_line(folder):
    path = csv_of(folder, [line.replace(",", ";") for line in GOOD], header=HEADER.replace(",", ";"))
    own = Path(__file__).parents[3] / "configs" / "own_data_lpi.py"
    flags = [f"--config={own}", "--workdir=x", "--config.data.name=table", f"--config.data.path={path}"]
    config, _ = command_line.parse([*flags, "--config.data.separator=;"])
    assert [task.name for task in registry.stream(config.data.to_dict(), 32).tasks] == ["cats", "dogs"]
    with pytest.raises(UserError, match=r"separator is ';', but .*table.parquet is Parquet, which has none"):
        table(parquet_of(folder, columns_of()), separator=";")


def test_other_separators_beside_commas_are_text(folder):
    path = csv_of(folder, [f"{line},x;y" for line in GOOD], header=f"{HEADER},a;b\tc")
    assert captions_of(table(path).tasks[0].train) == (("a cat",),)


@pytest.mark.parametrize(
    "size, message", [(MAX_LINE, "line 6: the line has more than"), (200_000, "line 6: .*field larger")]
)
def test_endless_lines_and_values_are_refused(folder, size, message):
    path = csv_of(folder, [*GOOD, f"img/5.png,{'x' * size},cats,train"])
    with pytest.raises(UserError, match=message):
        table(path, on_bad_example="skip")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_task_with_one_example_is_an_error(folder, split):
    other = {"train": "val", "val": "train"}[split]
    with pytest.raises(UserError, match=f"task 'birds' has no {other} images; expected at least one"):
        table(csv_of(folder, [*GOOD, f"img/5.png,x,birds,{split}"]))


def test_no_file_empty_files_folders_damaged_files_and_wrong_arguments(folder):
    for path, found in [
        (
            folder / "no.csv",
            "there is no such file; expected a table, a CSV or Parquet file or a folder of Parquet files",
        ),
        (folder, r"there is no file \*.parquet in this folder; expected a table, CSV or Parquet"),
    ]:
        with pytest.raises(UserError, match=f"{path}: {found}$"):
            table(path)
    (folder / "empty.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty.csv, line 1: there is no column 'image'; there is none at all"):
        table(folder / "empty.csv")
    with pytest.raises(UserError, match="nothing in it names a task"):
        table(csv_of(folder, []))
    (folder / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"bad.parquet, after row 0: the file cannot be read as Parquet"):
        table(folder / "bad.parquet")
    with pytest.raises(UserError, match="on_bad_example is 'ignore'"):
        table(csv_of(folder, GOOD), on_bad_example="ignore")
    with pytest.raises(UserError, match="task_order leaves out 'dogs'"):
        table(csv_of(folder, GOOD), task_order=["cats"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_csv_ends_in_a_user_error_or_a_stream(folder, data):
    lines = [f'img/{n}.png,"{sealed(n)}",{task},{split}' for n, (task, split) in enumerate(SPREAD, start=1)]
    path = folder / "fuzz.csv"
    path.write_bytes(damaged(data, "\n".join([HEADER, *lines]).encode()))
    for _ in outcome(path):
        pass  # a damaged path names another image: in plain text nobody can tell
