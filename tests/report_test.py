"""Reports: tables and pictures hold the runs' numbers, and only runs that differ in their seeds are averaged."""

import csv
import html.parser
import io
import json
import math
import re
import shutil
import statistics
import sys

import numpy as np
import pytest
from PIL import Image

from lpi_jax import config as configs
from lpi_jax import report
from lpi_jax.errors import UserError
from lpi_jax.report import main

TASKS = ("fax", "comic", "aerial")
FINAL_ONLY = ("-2.0 / -3.0", "70.0 / 80.0", "3.0", "1030")  # forgetting, routing, minutes, memory
DIRECTIONS = ("image_to_text", "text_to_image")


def recall(base):
    """The part of the results for one kind: k and direction shift all numbers, so that none can be mistaken."""
    found = {}
    for d, direction in enumerate(DIRECTIONS):
        found[direction] = {}
        for k, shift in (("1", 0), ("5", 20), ("10", 30)):
            matrix = [[base + d + shift + 5 * t - 2 * (s - t) for t in range(s + 1)] for s in range(len(TASKS))]
            found[direction][k] = {
                "matrix": matrix,
                "incremental_average": base + d + shift + 0.25,
                "final_average": base + d + shift + 0.5,
                "forgetting": -2.0 - d,
            }
    return found


def results(base, method, preset, oracle):
    return {
        "method": method,
        "preset": preset,
        "task_id": "oracle" if oracle else "inferred",
        "stream": {"name": "scenes", "sha256": "0" * 64, "notes": {}},
        "tasks": list(TASKS),
        "tasks_to_come": [],
        "protocol": "After each task, <everything> is searched.",
        "recall": recall(base),
        "zero_shot": recall(base - 10),
        "routing_accuracy": {"image": {"final_average": base + 40.0}, "text": {"final_average": base + 50.0}},
        "parameters": {"backbone_sha256": "b" * 64},
        "seconds": [{"training": 50.0, "evaluation": 10.0}] * len(TASKS),
        "peak_memory_mb": 1000 + base,
    }


@pytest.fixture
def drawing():
    """For what needs matplotlib, an extra of its own."""
    pytest.importorskip("matplotlib")


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run whose every recall follows from `base`."""

    def make(name, base=30, preset="intended", result=None, **changes):
        config = configs.preset(preset)
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        found = results(base, config.method, config.preset, config.task_id == "oracle") | (result or {})
        directory = tmp_path / name
        directory.mkdir()
        record = {"config": config.to_dict(), "stream": f"{config.seed:064d}", "backbone": "b" * 64}
        (directory / "config.json").write_text(json.dumps(record))
        (directory / "results.json").write_text(json.dumps(found))
        return directory

    return make


def rows(text):
    """The table's rows as lists of cells, without its two header lines."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in found if row[0] not in ("method", "---")]


# ---- one run ---------------------------------------------------------------------------------------------------------


def test_the_table_of_a_run_holds_its_numbers(run):
    text = report.table([run("a")])
    assert text.splitlines()[0] == "| " + " | ".join(report.HEADER) + " |"
    assert rows(text) == [
        ["zero-shot", "1", "incremental", "20.2", "40.2", "50.2", "21.2", "41.2", "51.2", "", "", "", ""],
        ["zero-shot", "1", "final", "20.5", "40.5", "50.5", "21.5", "41.5", "51.5", "", "", "", ""],
        ["LPI intended", "1", "incremental", "30.2", "50.2", "60.2", "31.2", "51.2", "61.2", "", "", "", ""],
        ["LPI intended", "1", "final", "30.5", "50.5", "60.5", "31.5", "51.5", "61.5", *FINAL_ONLY],
    ]
    assert text.endswith(report.LEGEND)


def test_a_real_run_is_understood(drawing, finished_run, tmp_path, capsys):
    assert main(["report", f"--out={tmp_path / 'out'}", str(finished_run.directory)]) == 0
    text = capsys.readouterr().out
    found = finished_run.results
    final = found["recall"]["text_to_image"]["5"]["final_average"]
    assert rows(text)[3][:3] == ["LPI intended", "1", "final"]
    assert rows(text)[3][7] == f"{final:.1f}"
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["text_to_image R@5"]) == final
    assert float(last["image routed right"]) == found["routing_accuracy"]["image"]["final_average"]
    assert float(last["minutes"]) == pytest.approx(sum(sum(s.values()) for s in found["seconds"]) / 60)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"preset": "released"}, "LPI released"),
        ({"task_id": "oracle"}, "LPI intended, task known"),
        ({"result": {"tasks_to_come": ["oil", "neon"]}}, "LPI intended, 3 of 5 tasks"),
    ],
)
def test_a_row_says_what_it_is(run, changes, label):
    frozen = "zero-shot, random crops" if changes.get("preset") == "released" else "zero-shot"
    assert [row[0] for row in rows(report.table([run("a", **changes)]))] == [frozen] * 2 + [label] * 2


def test_a_zero_shot_run_is_its_own_zero_shot_row(run):
    found = rows(report.table([run("a", method="zero_shot"), run("b", 50)]))
    assert [row[0] for row in found] == ["zero-shot"] * 2 + ["LPI intended"] * 2
    assert found[1][3] == "30.5"  # its own, not what run b measured


# ---- several runs ----------------------------------------------------------------------------------------------------


def test_seeds_become_mean_and_sample_deviation(run):
    directories = [run(f"a{seed}", base, seed=seed, data__seed=seed) for seed, base in enumerate((30, 32, 37))]
    found = rows(report.table(directories))
    assert len(found) == 4
    deviation = statistics.stdev([30, 32, 37])
    assert found[3][:4] == ["LPI intended", "3", "final", f"33.5 ± {deviation:.1f}"]
    assert found[1][:4] == ["zero-shot", "3", "final", f"23.5 ± {deviation:.1f}"]
    assert found[3][9] == "-2.0 ± 0.0 / -3.0 ± 0.0"


@pytest.mark.parametrize(
    "harmless", [{"devices": 8}, {"train__log_every": 3}, {"train__checkpoint_every": 7}, {"data__cache_mb": 1}]
)
def test_what_changes_no_number_does_not_separate_runs(run, harmless):
    assert {row[1] for row in rows(report.table([run("a"), run("b", seed=1, **harmless)]))} == {"2"}


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({"train__lr": 0.5}, "LPI intended (train.lr=0.05)", "LPI intended (train.lr=0.5)"),
        ({"prompt__rank": 8}, "LPI intended (prompt.rank=4)", "LPI intended (prompt.rank=8)"),
        (
            {"train__optimizer_args__momentum": 0.5},
            "LPI intended (train.optimizer_args.momentum=0.9)",
            "LPI intended (train.optimizer_args.momentum=0.5)",
        ),
        ({"task_id": "oracle"}, "LPI intended", "LPI intended, task known"),
    ],
)
def test_runs_that_differ_in_more_than_seeds_are_told_apart(run, changes, first, second):
    found = rows(report.table([run("a", 30), run("b", 50, seed=1, **changes)]))
    assert [row[0] for row in found] == ["zero-shot"] * 2 + [first] * 2 + [second] * 2
    assert {row[1] for row in found} == {"1"}
    assert [row[3] for row in found[3::2]] == ["30.5", "50.5"]


def test_the_frozen_backbone_is_shown_as_measured_on_clean_pictures(run):
    found = rows(report.table([run("a", 50, preset="released"), run("b", 30)]))
    assert [row[0] for row in found[:4]] == ["zero-shot"] * 2 + ["zero-shot, random crops"] * 2
    assert [found[1][3], found[3][3]] == ["20.5", "40.5"]  # by run b first, although run a comes first


def test_other_galleries_are_another_table(run):
    directories = [run("a"), run("b", 40, data__val=7), run("c", 50, eval__gallery="task")]
    text = report.table(directories)
    titles = re.findall("^### (.+)$", text, re.MULTILINE)
    assert titles == [
        "scenes (data.val=100, eval.gallery=union)",
        "scenes (data.val=7, eval.gallery=union)",
        "scenes (data.val=100, eval.gallery=task)",
    ]
    assert len(rows(text)) == 12


def test_a_file_is_told_apart_by_its_contents_and_not_by_its_path(run):
    same = run("a", data__name="jsonl", data__path="x"), run("b", data__name="jsonl", data__path="y", data__seed=1)
    assert {row[1] for row in rows(report.table(same))} == {"2"}
    other = run("c", data__name="jsonl", data__path="x", seed=1)  # `run` lets the stream's hash follow the seed
    assert len(re.findall("^### ", report.table([same[0], other]), re.MULTILINE)) == 2


def test_a_run_named_twice_counts_once(run):
    directory = run("a")
    assert report.table([directory, str(directory), f"{directory}/"]) == report.table([directory])


def test_a_copy_of_a_run_is_no_second_seed(run, tmp_path):
    first = run("a")
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(UserError, match=rf"^{first} and {tmp_path}/copy are the same run .*seeds 0 and 0"):
        report.table([first, tmp_path / "copy"])


# ---- the folder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(drawing, run, tmp_path):
    """The report of three seeds of LPI and one run with the task known."""
    directories = [run(f"a{seed}", base, seed=seed) for seed, base in enumerate((30, 32, 37))]
    directories.append(run("b", 55, task_id="oracle"))
    report.write(directories, tmp_path / "deep" / "out")
    return tmp_path / "deep" / "out", directories


def test_a_report_is_tables_pictures_and_a_page(written):
    out, directories = written
    assert sorted(path.name for path in out.iterdir()) == [
        "index.html",
        "scenes-lpi-intended-task-known.png",
        "scenes-lpi-intended.png",
        "scenes-stages.png",
        "table.csv",
        "table.md",
    ]
    assert (out / "table.md").read_text(encoding="utf-8") == report.table(directories)


def test_the_csv_has_every_digit(written):
    with open(written[0] / "table.csv", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["stream"], row["method"], row["runs"], row["average"]) for row in found[2:4]] == [
        ("scenes", "LPI intended", "3", "incremental"),
        ("scenes", "LPI intended", "3", "final"),
    ]
    assert float(found[3]["image_to_text R@1"]) == pytest.approx(33.5)
    assert float(found[3]["image_to_text R@1 std"]) == statistics.stdev([30, 32, 37])
    assert float(found[3]["text_to_image R@10"]) == pytest.approx(64.5)
    assert float(found[3]["text_to_image forgetting"]) == -3.0
    assert float(found[3]["minutes"]) == 3.0
    assert float(found[3]["peak_memory_mb"]) == 1033
    assert found[5]["image_to_text R@1 std"] == ""  # one run has no deviation
    assert found[0]["minutes"] == ""


class Page(html.parser.HTMLParser):
    """Sources of the pictures, texts of the table's cells, and all tags that are open."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.cells, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.pictures.append(dict(attributes))
        elif tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_the_page_shows_the_table_and_every_picture(written):
    out, directories = written
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert sorted(picture["src"] for picture in page.pictures) == sorted(path.name for path in out.glob("*.png"))
    assert all(len(picture["alt"]) > 20 for picture in page.pictures)
    assert "LPI intended, task known" in page.cells
    assert f"33.5 ± {statistics.stdev([30, 32, 37]):.1f}" in page.cells
    assert "After each task, <everything> is searched." in page.text
    assert all(str(directory) in page.text for directory in directories)


def test_pictures_are_pictures_and_the_same_for_the_same_runs(written, tmp_path):
    out, directories = written
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) >= 300
        assert pixels.std() > 10
        assert (pixels[0] == 255).all()  # nothing is cut off at the edges
        assert (pixels[:, 0] == 255).all()
        assert (pixels[:, -1] == 255).all()
    report.write(directories, tmp_path / "again")
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def drawn(monkeypatch, directories, out):
    """The figures of a report, by file name."""
    import matplotlib.figure

    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    report.write(directories, out)
    return figures


def test_the_heat_map_holds_the_mean_matrix_of_both_directions(drawing, run, tmp_path, monkeypatch):
    directories = [run("a", 30), run("b", 33, seed=1)]
    _, figure = drawn(monkeypatch, directories, tmp_path / "out")
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert [panel.get_title() for panel in panels] == ["image to text", "text to image"]
    for d, panel in enumerate(panels):
        shown = panel.get_images()[0].get_array().filled(np.nan)
        for s in range(3):
            for t in range(3):
                expected = 31.5 + d + 5 * t - 2 * (s - t) if t <= s else math.nan
                assert shown[s, t] == pytest.approx(expected, nan_ok=True)
        assert [label.get_text() for label in panel.get_xticklabels()] == list(TASKS)
        assert len(panel.texts) == 6  # a number in each cell that has one
    assert panels[0].get_images()[0].get_clim() == panels[1].get_images()[0].get_clim()


def test_the_curves_hold_the_mean_over_the_tasks_seen_and_zero_shot(drawing, run, tmp_path, monkeypatch):
    directories = [run("a", 30), run("b", 33, seed=1)]
    figure, _ = drawn(monkeypatch, directories, tmp_path / "out")
    for d, panel in enumerate(figure.axes):
        lines = {line.get_label(): line for line in panel.get_lines()}
        assert lines.keys() == {"LPI intended (mean of 2 runs)", "zero-shot (frozen backbone)"}
        for line, base in zip(lines.values(), (31.5, 21.5), strict=True):
            # Row s of the matrix is base + d + 5 t - 2 (s - t).
            expected = [base + d, base + d + (5 - 2) / 2, base + d + (5 - 2 + 10 - 4) / 3]
            np.testing.assert_allclose(line.get_xydata(), np.c_[[1, 2, 3], expected])
        (band,) = panel.collections
        (first,) = [v for v in band.get_paths()[0].vertices if v[0] == 1][:1]
        assert abs(first[1] - (31.5 + d)) == pytest.approx(statistics.stdev([30, 33]))


def test_many_tasks_and_many_runs_still_make_a_picture(drawing, run, tmp_path):
    """Forty tasks, nine methods: no numbers in the cells, colours used again."""
    tasks = [f"task {t}" for t in range(40)]
    matrix = [[50.0 + t - s for t in range(s + 1)] for s in range(40)]
    directories = []
    for number in range(9):
        directory = run(f"r{number}", train__lr=0.1 * (number + 1))
        found = json.loads((directory / "results.json").read_text())
        found["tasks"] = tasks
        for kind in ("recall", "zero_shot"):
            for direction in DIRECTIONS:
                found[kind][direction]["1"]["matrix"] = matrix
        (directory / "results.json").write_text(json.dumps(found))
        directories.append(directory)
    report.write(directories[:2], tmp_path / "out")
    from lpi_jax import plots

    (block,) = report.compare(directories)
    with Image.open(io.BytesIO(plots.curves(block))) as image:
        assert image.size[0] > image.size[1] > 300


def test_a_stream_of_one_task_has_a_report_too(drawing, run, tmp_path):
    directory = run("a")
    found = json.loads((directory / "results.json").read_text())
    found["tasks"] = ["fax"]
    for kind in ("recall", "zero_shot"):
        for direction in DIRECTIONS:
            found[kind][direction]["1"]["matrix"] = [[0.0]]
    (directory / "results.json").write_text(json.dumps(found))
    report.write([directory], tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


# ---- mistakes --------------------------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "results.json cannot be read (No such file or directory); expected the directory"),
        (lambda path: path.write_text('{"method": "lpi",'), "results.json is damaged ("),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "results.json is damaged ("),
        (lambda path: path.write_text("{}"), "holds damaged results (KeyError: 'recall'); expected config.json and"),
        (lambda path: path.write_text("[]"), "holds damaged results (TypeError"),
        (lambda path: path.write_text("null"), "holds damaged results (TypeError"),
        (lambda path: path.with_name("config.json").unlink(), "config.json cannot be read"),
        (lambda path: path.with_name("config.json").write_text("{}"), "holds damaged results (KeyError: 'config')"),
    ],
)
def test_damaged_results_are_one_sentence(run, capsys, tmp_path, damage, message):
    directory = run("a")
    damage(directory / "results.json")
    found = refused(capsys, f"--out={tmp_path / 'out'}", run("good", seed=1), directory)
    assert found.startswith(str(directory))
    assert message in found
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["recall", "zero_shot", "routing_accuracy", "seconds", "tasks", "parameters", "stream"])
@pytest.mark.parametrize("value", [None, 3, "x", [1]])
def test_a_result_with_something_wrong_in_it_is_one_sentence(run, capsys, key, value):
    directory = run("a", result={key: value})
    assert refused(capsys, directory).startswith(f"{directory} holds damaged results (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run is named; expected python -m lpi_jax.report [--out=DIR] WORKDIR"),
        (["--out=x"], "no run is named"),
        (["--out"], "--out has no value; expected --out=DIR"),
        (["--out=", "a"], "--out has no value"),
        (["--ot=x", "a"], "--ot=x is not a flag; did you mean --out=DIR?"),
        (["nosuch"], "nosuch/results.json cannot be read (No such file or directory); expected the directory of a run"),
    ],
)
def test_wrong_arguments_are_one_sentence(capsys, arguments, message):
    assert refused(capsys, *arguments).startswith(message)


def test_help_is_not_a_mistake(capsys):
    assert main(["report", "--help"]) == 0
    assert "--out=DIR" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(drawing, run, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert refused(capsys, "--out", out, run("a")) == f"--out is {out}, which cannot be written: Not a directory"


def test_without_matplotlib_the_extra_is_named_and_nothing_written(run, capsys, tmp_path, monkeypatch):
    directory = run("a")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = refused(capsys, f"--out={tmp_path / 'out'}", directory)
    assert message == "pictures need matplotlib; install it with pip install 'lpi_jax[experiments]'"
    assert not (tmp_path / "out").exists()
    assert main(["report", str(directory)]) == 0  # the table needs none
