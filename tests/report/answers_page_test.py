"""What runs keep of single items is on the page: their answers before and after, whatever stands in them."""

import base64
import functools
import html.parser
import io
import json

import numpy as np
import pytest
from PIL import Image

from lpi_jax import report
from lpi_jax.errors import UserError
from tests.support import handmade_runs

pytest.importorskip("matplotlib")  # an extra of its own

import matplotlib.figure

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run whose every value follows from `base`."""
    return functools.partial(handmade_runs.make, tmp_path)


def encoded(colour=(200, 30, 30), size=(150, 90), form="PNG"):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, form)
    return base64.b64encode(data.getvalue()).decode()


def sample(task=0, **changes):
    """An item of a task that was answered wrong before and right after."""
    return {
        "task": task,
        "sample": f"item {task}",
        "question": f"What is {task}?",
        "references": [f"the answer {task}"],
        "before": {"text": f"frozen {task}", "points": 0.0},
        "after": {"text": f"learnt {task}", "points": 100.0},
        "chosen": [{"task": 2, "score": 0.41234}, {"task": task, "score": 0.25}],
        "picture": encoded(),
        **changes,
    }


def keep(directory, *samples, tasks=3):
    (directory / "answers.json").write_text(json.dumps({"tasks": tasks, "samples": list(samples)}), encoding="utf-8")
    return directory


class Page(html.parser.HTMLParser):
    """The rows of the tables as lists of texts, pictures as their attributes, all tags, and the classes of marks."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.pictures, self.tags, self.open, self.marks = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attributes))
        elif tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "span":
            self.marks.append(dict(attributes)["class"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def page_of(out):
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert sorted(picture["src"] for picture in page.pictures) == sorted(path.name for path in out.glob("*.png"))
    return page


def test_items_are_shown_task_by_task_with_both_answers_and_whether_they_are_right(run, tmp_path):
    partly = sample(2, after={"text": "", "points": 30.0}, chosen=[], references=["yes", "no", "yes"])
    report.write([keep(run("a"), sample(1), partly, sample(0, picture=None))], tmp_path / "out")
    page = page_of(tmp_path / "out")
    start = page.rows.index(["", "question", "counts as right", "before", "after", "answered with"])
    assert page.rows[start + 1 : start + 7] == [
        ["fax"],
        [
            "no picture",
            "What is 0?",
            "the answer 0",
            "✗ wrongfrozen 0",
            "✓ rightlearnt 0",
            "aerial 0.412\nfax 0.250 (its own)",
        ],
        ["comic"],
        [
            "",
            "What is 1?",
            "the answer 1",
            "✗ wrongfrozen 1",
            "✓ rightlearnt 1",
            "aerial 0.412\ncomic 0.250 (its own)",
        ],
        ["aerial"],
        ["", "What is 2?", "yes (× 2)\nno", "✗ wrongfrozen 2", "≈ 30 % rightnothing", "no task"],
    ]
    assert page.marks == ["wrong", "right", "wrong", "right", "wrong", "right"]
    for picture in page.pictures[-2:]:
        assert "What is" in picture["alt"]
        with Image.open(tmp_path / "out" / picture["src"]) as image:
            assert image.size == (150, 90)
            assert image.convert("RGB").getpixel((5, 5)) == (200, 30, 30)


def test_whatever_stands_in_texts_is_text(run, tmp_path):
    answer = {"text": f"{SCRIPT}\n\x1b[31mred", "points": 100}
    told = {"question": f'"><img src=x onerror=alert(1)>{SCRIPT}\nA. one', "references": [SCRIPT]}
    told |= {"sample": SCRIPT, "before": answer, "after": answer}
    report.write([keep(run("a", result={"tasks": [SCRIPT, "b", "c"]}), sample(0, **told))], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "script" not in page.tags
    (row,) = [row for row in page.rows if len(row) == 6 and "onerror" in row[1]]
    assert row[1].endswith(f"{SCRIPT}\nA. one")
    assert row[2] == SCRIPT
    assert row[3] == row[4] == f"✓ right{SCRIPT}\n�[31mred"
    assert row[5].startswith("c 0.412")


@pytest.mark.parametrize("tasks", [None, 2])
def test_a_run_without_answers_or_with_those_of_another_stage_has_no_such_part(run, tasks, tmp_path):
    directory = run("a") if tasks is None else keep(run("a"), sample(), tasks=tasks)
    report.write([directory], tmp_path / "out")
    assert "Answers" not in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob("answers*"))


def test_of_several_seeds_one_run_is_shown_and_named(run, tmp_path):
    directories = [
        run("a", seed=3),
        keep(run("b", 31, seed=4), sample(chosen=[])),
        keep(run("c", 32, seed=5), sample()),
    ]
    report.write(directories, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "of 3 runs the one with seed 4; data seed 0" in text
    assert "answered with" not in text
    assert len(list((tmp_path / "out").glob("answers*.png"))) == 1


def test_two_kinds_of_runs_have_images_of_their_own(run, tmp_path):
    first = keep(run("a"), sample())
    second = keep(run("b", 55, task_id="oracle"), sample(picture=encoded((0, 0, 255))))
    report.write([first, second], tmp_path / "out")
    colours = set()
    for path in (tmp_path / "out").glob("answers*.png"):
        with Image.open(path) as image:
            colours.add(image.convert("RGB").getpixel((5, 5)))
    assert colours == {(200, 30, 30), (0, 0, 255)}
    page_of(tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"tasks": "3", "samples": []},
        {"tasks": 3},
        {"tasks": 3, "samples": {}},
        {"tasks": 3, "samples": [3]},
        *(
            {"tasks": 3, "samples": [sample(**changes)]}
            for changes in (
                {"task": 3},
                {"task": -1},
                {"task": "0"},
                {"question": None},
                {"question": ["x"]},
                {"references": "x"},
                {"references": [1]},
                {"before": "x"},
                {"before": {"text": "x"}},
                {"after": {"text": 3, "points": 1}},
                {"after": {"text": "x", "points": 101}},
                {"after": {"text": "x", "points": float("nan")}},
                {"chosen": None},
                {"chosen": [1]},
                {"chosen": [{"task": 7, "score": 0.1}]},
                {"chosen": [{"task": 1, "score": "x"}]},
                {"picture": 3},
                {"picture": "../../../etc/passwd"},
                {"picture": "ünicode"},
                {"picture": base64.b64encode(b"GIF89a").decode()},
                {"picture": encoded(form="GIF")},
                {"picture": encoded(size=(1000, 1000))},
                {"picture": encoded(size=(90, 90))[:80]},
            )
        ),
    ],
)
def test_what_no_run_writes_is_one_sentence(run, content, tmp_path):
    directory = run("a")
    (directory / "answers.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        report.write([directory], tmp_path / "out")
    assert str(refused.value).startswith(f"{directory}/answers.json holds damaged answers (")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    assert report.table([directory])  # which asks for none of it


def test_a_file_that_is_no_json_is_named(run, tmp_path):
    directory = run("a")
    (directory / "answers.json").write_bytes(b"{\xff")
    with pytest.raises(UserError, match=r"answers\.json is damaged \(.*\); expected JSON$"):
        report.write([directory], tmp_path / "out")


# ---- several tasks chosen --------------------------------------------------------------------------------------------


def test_where_items_went_tells_of_all_tasks_chosen(run, tmp_path, monkeypatch):
    routing = handmade_runs.routing()
    routing["image"]["among"] = [75.0, 100.0, 80.0]
    directory = run("a", result={"routing": routing})
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    report.write([directory], tmp_path / "out")
    page = page_of(tmp_path / "out")
    head = next(row for row in page.rows if "own among chosen" in row)
    assert head[-2:] == ["routed right", "own among chosen"]
    (row,) = [row for row in page.rows if len(row) > 6 and row[1] == "aerial"]
    assert row[-3:] == ["66.6", "75.0", "80.0"]
    titles = {
        axes.get_title(): axes.get_xlabel()
        for figure in figures
        for axes in figure.axes
        if "right," in axes.get_title()
    }
    images = next(title for title in titles if title.startswith("images"))
    captions = next(title for title in titles if title.startswith("captions"))
    assert images.endswith(f"{np.mean([75, 100, 80]):.1f} % with their own among those chosen")
    assert (titles[images], titles[captions]) == ("best of those chosen", "routed to")
    assert captions.count("\n") == 1


def test_runs_of_which_only_one_knows_tell_nothing_of_all_tasks_chosen(run):
    routing = handmade_runs.routing()
    routing["image"]["among"] = [75.0, 100.0, 80.0]
    (block,) = report.compare([run("a", result={"routing": routing}), run("b", 31, seed=1)])
    assert block.groups[0].among("image") == []
    assert block.groups[0].runs[0].among == {"image": [75.0, 100.0, 80.0]}
