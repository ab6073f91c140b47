"""A problem that the package does not know: every output follows from what its results say of themselves."""

import csv
import functools
import io
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pytest

import lpi_jax.report
from lpi_jax import report
from tests.support import handmade_runs

BOTH = ("accuracy", "log loss")


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run of retrieval."""
    return functools.partial(handmade_runs.make, tmp_path)


@pytest.fixture
def cards(run):
    """(name, metrics, base, changes by key) -> the directory of a run of the invented problem."""

    def make(name, names=BOTH, base=32, result=None, **changes):
        return run(name, result=handmade_runs.invented(names, base) | (result or {}), **changes)

    return make


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_no_file_of_the_report_knows_a_problem_or_a_method():
    known = re.compile(
        r"\b(?:image|text)_\w+|\bimages?\b|\bcaptions?\b|recall|R@|\blpi\b|LPI|zero_shot\b|config\.method"
    )
    for path in Path(lpi_jax.report.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("from lpi_jax.data.images import read_image\n", "")
        assert known.findall(text) == [], path.name


# ---- one metric ------------------------------------------------------------------------------------------------------


def test_one_metric_is_a_table(cards):
    text = report.table([cards("a", ["accuracy"])])
    assert cells(text) == [
        [
            "method",
            "runs",
            "average",
            "cards, n = 15",
            "forgetting",
            "zero-shot kept",
            "routed right",
            "min",
            "peak MB",
        ],
        ["---"] * 9,
        ["", "", "", "accuracy", "C", "C", "cards", "", ""],
        ["zero-shot", "1", "incremental", "22.2", "", "", "", "", ""],
        ["zero-shot", "1", "final", "22.5", "-2.0", "", "", "", ""],
        ["Shuffle twice", "1", "incremental", "32.2", "", "", "", "", ""],
        ["Shuffle twice", "1", "final", "32.5", "-2.0", "90", "", "3.0", "1030"],
    ]
    assert "accuracy in per cent over" in text
    assert "forgetting: points of accuracy, negative = forgot." in text


def test_a_guess_routing_and_a_told_task_are_shown_where_they_are_known(cards):
    entry = handmade_runs.metric(32, 5, label="accuracy", group="cards", short="C", side="card")
    sent = {"card": handmade_runs.routing()["image"] | {"label": "cards"}}
    known = {"metrics": {"accuracy": entry}, "routed": "inferred", "routing": sent}
    directories = [cards("a", result=known), cards("b", result=known | {"routed": "given", "routing": {}})]
    lines = cells(report.table(directories))
    assert [line[:5] for line in lines[3:5]] == [
        ["chance", "1", "incremental", "5.2", ""],
        ["chance", "1", "final", "5.5", ""],
    ]
    assert lines[8][0::6] == ["Shuffle twice", "80.5"]
    assert lines[10][0::6] == ["Shuffle twice, task known", "given"]


# ---- two metrics, one a loss -----------------------------------------------------------------------------------------


def test_a_loss_in_another_unit_has_digits_and_a_sign_of_its_own(cards):
    text = report.table([cards("a"), cards("b", base=40, seed=1)])
    lines = cells(text)
    assert lines[0][3:6] == ["cards, n = 15", "surprise, n = 15", "forgetting"]
    assert lines[2][3:6] == ["accuracy", "log loss", "C / S"]
    deviation = statistics.stdev([32, 40])
    assert lines[6][3:6] == [f"36.5 ± {deviation:.1f}", "5 ± 0.707", "-2.0 ± 0.0 / 0.25 ± 0"]
    legend = " ".join(text.split())
    assert "accuracy in per cent, log loss in nats over all tasks" in legend
    assert "forgetting: points of accuracy, negative = forgot / nats of log loss, positive = forgot." in legend


def test_csv_json_and_latex_hold_both(cards):
    directories = [cards("a"), cards("b", base=40, seed=1)]
    (*_, last) = csv.DictReader(io.StringIO(report.table(directories, "csv")))
    assert (last["cards n"], last["surprise n"]) == ("15", "15")
    assert (float(last["accuracy"]), float(last["log loss"]), float(last["surprise forgetting"])) == (36.5, 5.0, 0.25)
    assert float(last["log loss std"]) == pytest.approx(statistics.stdev([4, 5]))
    (block,) = json.loads(report.table(directories, "json"))
    assert block["n"] == {"cards": 15, "surprise": 15}
    assert block["methods"][0]["tasks"][2] == {
        "task": "aerial",
        "accuracy": {"mean": 46.0, "std": pytest.approx(statistics.stdev([32, 40]))},
        "zero-shot accuracy": {"mean": 36.0, "std": pytest.approx(statistics.stdev([32, 40]))},
        "log loss": {"mean": 14.5, "std": pytest.approx(statistics.stdev([4, 5]))},
        "zero-shot log loss": {"mean": 4.5, "std": pytest.approx(statistics.stdev([4, 5]))},
        "card items": {"mean": 6, "std": 0.0},
    }
    text = report.table(directories, "latex")
    assert r"\begin{tabular}{lrrrrrrrrr}" in text
    assert r"\multicolumn{1}{c}{surprise, n = 15}" in text
    assert "\n\n" not in text


def test_other_problems_and_other_metrics_are_other_tables(run, cards):
    directories = [run("a"), cards("b"), cards("c", ["accuracy"]), cards("d", result={"problem": "dice"})]
    text = report.table(directories)
    assert re.findall("^### (.+)$", text, re.MULTILINE) == [
        "scenes (problem=retrieval)",
        "scenes (problem=cards, metrics=accuracy + log loss)",
        "scenes (problem=cards, metrics=accuracy)",
        "scenes (problem=dice)",
    ]
    legend = " ".join(text.split())
    assert "R@1, R@5, R@10, accuracy in per cent, log loss in nats over" in legend
    assert "negative = forgot; points of accuracy, negative = forgot / nats of log loss" in legend
    counts = [list(row)[6:10] for row in csv.DictReader(io.StringIO(report.table(directories, "csv")))]
    assert counts[0] == ["image_to_text n", "text_to_image n", "cards n", "surprise n"]


def test_metrics_of_another_unit_or_sense_are_another_table(cards):
    metric = handmade_runs.invented()["metrics"]["accuracy"]
    for number, change in enumerate(({"unit": "points"}, {"higher_is_better": False}, {"label": "right"})):
        other = {"metrics": {"accuracy": metric | change}}
        directories = [cards(f"a{number}", ["accuracy"], 30), cards(f"b{number}", result=other, seed=1)]
        assert len(report.compare(directories)) == 2


# ---- page and pictures -----------------------------------------------------------------------------------------------


def drawn(monkeypatch, directories, out):
    """The figures of a report, in the order in which they were drawn."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    figures, save = [], figure.savefig
    monkeypatch.setattr(figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    report.write(directories, out)
    return figures


def test_one_metric_is_a_page_and_pictures(cards, tmp_path, monkeypatch):
    curves, heat_map = drawn(monkeypatch, [cards("a", ["accuracy"])], tmp_path / "out")
    (panel,) = curves.axes
    assert panel.get_title() == "cards, n = 15 at the end"
    assert panel.get_ylabel() == "mean accuracy over these tasks, per cent"
    panel, bar = heat_map.axes
    assert (panel.get_title(), panel.get_xlabel()) == ("cards, n = 15", "accuracy on task")
    assert bar.get_ylabel() == "accuracy, per cent"
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert '<th colspan="2">cards</th><th colspan="1">n</th>' in page
    assert "scenes, Shuffle twice: accuracy of every task after every stage" in page
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "scenes-stages.png",
        "scenes-shuffle-twice.png",
    }


def test_metrics_that_are_not_alike_have_axes_and_colours_of_their_own(cards, tmp_path, monkeypatch):
    curves, heat_maps = drawn(monkeypatch, [cards("a")], tmp_path / "out")
    assert [panel.get_ylabel() for panel in curves.axes] == [
        "mean accuracy over these tasks, per cent",
        "mean log loss over these tasks, nats",
    ]
    tops = [panel.get_ylim()[1] for panel in curves.axes]
    assert tops[1] < tops[0] / 2
    accuracy, loss = [axes.get_images()[0] for axes in heat_maps.axes if axes.get_images()]
    assert (accuracy.get_cmap().name, loss.get_cmap().name) == ("Blues", "Blues_r")  # dark is good
    assert accuracy.get_clim() == (0, 42)
    assert loss.get_clim() == (0, 14)
    labels = [axes.get_ylabel() for axes in heat_maps.axes if not axes.get_images()]
    assert labels == ["accuracy, per cent", "log loss, nats"]
    best, worst = heat_maps.axes[1].texts[0], heat_maps.axes[1].texts[-1]
    assert (best.get_text(), best.get_color()) == ("4", "white")
    assert (worst.get_text(), worst.get_color()) == ("14", "black")


def test_values_below_zero_are_inside_the_pictures(cards, tmp_path, monkeypatch):
    above = handmade_runs.metric(20, label="gain", group="hearts", short="H", side="card", unit="")
    below = handmade_runs.metric(-20, label="gain", group="spades", short="S", side="card", unit="")
    directory = cards("a", result={"metrics": {"hearts/gain": above, "spades/gain": below}})
    curves, heat_map = drawn(monkeypatch, [directory], tmp_path / "out")
    for panel in curves.axes:  # which share their axis
        assert panel.get_ylim()[0] < min(line.get_ydata().min() for line in panel.get_lines())
    assert [panel.get_ylabel() for panel in curves.axes] == ["mean gain over these tasks", ""]
    assert heat_map.axes[0].get_images()[0].get_clim() == (-24, 30)
    assert heat_map.axes[2].get_ylabel() == "gain"
    assert "forgetting: change of gain, hearts / spades, negative = forgot." in " ".join(
        report.table([directory]).split()
    )
    assert np.isnan(heat_map.axes[0].get_images()[0].get_array().filled(np.nan)[0, 1])


def test_nasty_words_of_a_problem_stay_inside_their_cells(cards, tmp_path):
    pytest.importorskip("matplotlib")
    nasty = r"动 $\foo$ <i>a|b</i> " + "\x1b[31m" + "x" * 60
    entry = handmade_runs.metric(30, 5, label=nasty, group=nasty, short=nasty, side="card") | {"unit": nasty}
    result = {"metrics": {nasty: entry}, "items": {"card": {"label": nasty, "val": [4, 5, 6]}}, "label": nasty}
    directory = cards("a", result=result)
    report.write([directory], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<i>" not in page
    assert "\x1b" not in page
    assert {
        len(re.findall(r"(?<!\\)\|", line)) for line in report.table([directory]).splitlines() if line[:1] == "|"
    } == {10}
    for form in ("csv", "json", "latex"):
        assert "\x1b" not in report.table([directory], form)
