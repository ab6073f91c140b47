"""The report as a folder: pictures hold the runs' numbers, any name can be drawn, the page shows it all."""

import functools
import html.parser
import io
import json
import logging
import math
import statistics

import numpy as np
import pytest
from PIL import Image

from lpi_jax import report
from tests.support import handmade_runs
from tests.support.handmade_runs import TASKS

pytest.importorskip("matplotlib")  # an extra of its own

import matplotlib.figure

from lpi_jax.report import curves, lettering, losses

NASTY = (
    r"$\foo$",
    "a collection of forty letters and of more",
    "动物和植物",
    "\x1b[31mred\x1b[0m",
    "<b>bold</b>",
    "a|b_c",
    "100% {x}^2",
    "\ud800 half",
    "\U0001f98a",
    " ",
    "a collection of quite other letters and of more",
)


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run whose every recall follows from `base`."""
    return functools.partial(handmade_runs.make, tmp_path)


@pytest.fixture
def written(run, tmp_path):
    """The report of three seeds of LPI and one run with the task known."""
    directories = [run(f"a{seed}", base, seed=seed) for seed, base in enumerate((30, 32, 37))]
    directories.append(run("b", 55, task_id="oracle"))
    report.write(directories, tmp_path / "deep" / "out")
    return tmp_path / "deep" / "out", directories


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
        if self.open and {"td", "th"} & set(self.open):
            self.cells.append(data)


def test_the_page_shows_the_table_and_every_picture(written):
    out, directories = written
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert sorted(picture["src"] for picture in page.pictures) == sorted(path.name for path in out.glob("*.png"))
    assert all(len(picture["alt"]) > 20 for picture in page.pictures)
    assert "LPI intended, task known" in page.cells
    assert f"33.5 ± {statistics.stdev([30, 32, 37]):.1f}" in page.cells
    for cost in ("5,000 ± 0", "0.25 ± 0", "6 ± 0", "2.5 ± 0.0", "0.5 ± 0.0"):  # of three runs on three tasks
        assert cost in page.cells
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
    """The figures of a report, in the order in which they were drawn."""
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    report.write(directories, out)
    return figures


def test_the_heat_map_holds_the_mean_matrix_of_both_directions(run, tmp_path, monkeypatch):
    directories = [run("a", 30), run("b", 33, seed=1)]
    _, figure = drawn(monkeypatch, directories, tmp_path / "out")
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert [panel.get_title() for panel in panels] == ["image to text, n = 15", "text to image, n = 30"]
    for d, panel in enumerate(panels):
        shown = panel.get_images()[0].get_array().filled(np.nan)
        for s in range(3):
            for t in range(3):
                expected = 31.5 + d + 5 * t - 2 * (s - t) if t <= s else math.nan
                assert shown[s, t] == pytest.approx(expected, nan_ok=True)
        assert [label.get_text() for label in panel.get_xticklabels()] == list(TASKS)
        assert len(panel.texts) == 6  # a number in each cell that has one
    assert panels[0].get_images()[0].get_clim() == panels[1].get_images()[0].get_clim()


def test_the_curves_hold_the_mean_over_the_tasks_seen_and_zero_shot(run, tmp_path, monkeypatch):
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


def test_many_tasks_and_many_runs_still_make_a_picture(run, tmp_path):
    """Forty tasks, nine methods: no numbers in the cells, colours used again."""
    result = handmade_runs.with_tasks([f"task {t}" for t in range(40)])
    for entry in result["metrics"].values():
        entry["matrix"] = entry["frozen"]["matrix"] = [[50.0 + t - s for t in range(s + 1)] for s in range(40)]
    directories = [run(f"r{number}", result=result, train__lr=0.1 * (number + 1)) for number in range(9)]
    report.write(directories[:2], tmp_path / "out")
    (block,) = report.compare(directories)
    with Image.open(io.BytesIO(curves.curves(block))) as image:
        assert image.size[0] > image.size[1] > 300


def test_a_stream_of_one_task_has_a_report_too(run, tmp_path):
    result = handmade_runs.with_tasks(["fax"])
    for entry in result["metrics"].values():
        entry["matrix"] = entry["frozen"]["matrix"] = [[0.0]]
    directory = run("a", result=result)
    report.write([directory], tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_the_curves_show_the_higher_panel_whole(run, tmp_path, monkeypatch):
    higher = {name: entry for name, entry in handmade_runs.metrics(60).items() if name.startswith("text")}
    lopsided = handmade_runs.metrics(15) | higher
    figure, _ = drawn(monkeypatch, [run("a", result={"metrics": lopsided})], tmp_path / "out")
    for panel in figure.axes:
        bottom, top = panel.get_ylim()
        assert bottom == 0
        assert top > max(line.get_ydata().max() for line in panel.get_lines())
        assert top > 60


def test_the_same_colour_is_the_same_recall_in_all_heat_maps_of_a_report(run, tmp_path, monkeypatch):
    figures = drawn(
        monkeypatch, [run("a", 20), run("b", 60, task_id="oracle"), run("c", data__val=7)], tmp_path / "out"
    )
    images = [axes.get_images()[0] for figure in figures for axes in figure.axes if axes.get_images()]
    assert len(images) >= 6
    assert {image.get_clim() for image in images if image.get_clim()[1] != 1} == {(0, 71)}  # 60 + 1 + 2 * 5


def test_pictures_say_how_many_queries_there_are_and_what_a_guess_finds(run, tmp_path, monkeypatch):
    stages, heat_maps, routing = drawn(monkeypatch, [run("a", result=handmade_runs.known())], tmp_path / "out")
    assert [panel.get_title() for panel in stages.axes] == [
        "image to text, n = 15 at the end",
        "text to image, n = 30 at the end",
    ]
    (guess,) = [line for line in stages.axes[1].get_lines() if line.get_label() == "chance"]
    np.testing.assert_allclose(guess.get_ydata(), [6, 7.5, 9])
    assert [panel.get_title() for panel in heat_maps.axes[:2]] == [
        "image to text, n = 15\nchance at the end 8.0 %",
        "text to image, n = 30\nchance at the end 9.0 %",
    ]
    images, captions = routing.axes[:2]
    assert images.get_title() == "images, n = 15\n80.6 % right, mean over tasks"
    assert captions.get_title() == "captions, n = 30\n76.7 % right, mean over tasks"
    np.testing.assert_allclose(images.get_images()[0].get_array()[0], [75, 25, 0])
    np.testing.assert_allclose(captions.get_images()[0].get_array()[2], [0, 0, 75, 25])
    assert [label.get_text() for label in captions.get_xticklabels()] == [*TASKS, "none"]


@pytest.mark.parametrize("changes", [{"task_id": "oracle"}, {"method.name": "zero_shot"}])
def test_without_routing_there_is_no_picture_of_it(run, tmp_path, changes):
    report.write([run("a", result=handmade_runs.known(), **changes)], tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fonts", ["installed", "none but matplotlib's"])
def test_any_name_can_be_drawn(run, tmp_path, monkeypatch, caplog, fonts):
    """Warnings are errors here, and of a letter without a glyph matplotlib warns."""
    if fonts != "installed":
        monkeypatch.setattr(lettering, "_families", tuple)
    lettering._coverage.cache_clear()
    result = handmade_runs.with_tasks(NASTY)
    stream = {"name": r"动 $\foo$ <i>", "sha256": "0" * 64, "notes": {}}
    directory = run("a", result=result | {"stream": stream})
    lines = [{"step": 1 + i, "task_name": name, "loss": 2.0} for i, name in enumerate(NASTY)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with caplog.at_level(logging.WARNING):
        figures = drawn(monkeypatch, [directory], tmp_path / "out")
    assert caplog.messages == []
    lettering._coverage.cache_clear()
    assert len(figures) == 3
    shown = [label.get_text() for label in figures[1].axes[0].get_xticklabels()]
    assert [shown[i] for i in (0, 1, 3, 4, 9)] == [r"$\foo$", "task 2", "�[31mred�[0m", "<b>bold</b>", "task 10"]
    if fonts != "installed":
        assert shown[2] == "task 3"
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert page.open == []  # and `bold` is no tag
    assert {"动物和植物", "<b>bold</b>", "�[31mred�[0m", "� half"} <= set(page.cells)
    assert f"task 2 is {NASTY[1]}" in page.text
    assert not any(ord(letter) < 32 and letter != "\n" for letter in page.text)


def test_letters_that_another_installed_font_has_are_drawn_with_it(run, monkeypatch):
    """The font stands in for one of East Asia, which few machines have: it has letters that the usual font lacks."""
    other = "STIXGeneral"
    letters = lettering._letters(other) - lettering._letters(lettering.USUAL)
    name = "".join(sorted(letters))[:5]
    assert len(name) == 5
    monkeypatch.setattr(lettering, "_families", tuple)
    lettering._coverage.cache_clear()
    assert lettering.names([name]) == ["task 1"]
    monkeypatch.setattr(lettering, "_families", lambda: ("DejaVu Serif", other))
    lettering._coverage.cache_clear()
    assert lettering.names([name]) == [name]
    with lettering.drawn([name]):
        assert matplotlib.rcParams["font.family"][:2] == [lettering.USUAL, other]
    lettering._coverage.cache_clear()


def test_long_names_leave_room_for_the_cells(run, monkeypatch, tmp_path):
    names = ["the first of three tasks with a name of very many letters " * 3, "b" * 400, "c"]
    _, figure = drawn(monkeypatch, [run("a", result=handmade_runs.with_tasks(names))], tmp_path / "out")
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown == ["the first of…etters", "bbbbbbbbbbbbb…bbbbbb", "c"]
    width = figure.axes[0].get_window_extent().width / figure.dpi
    assert width > 1.5  # inches, for three columns


def test_the_users_own_style_does_not_change_the_pictures(run, tmp_path):
    directory = run("a")
    report.write([directory], tmp_path / "plain")
    with matplotlib.rc_context({"text.usetex": True, "font.family": ["nosuchfont"], "figure.facecolor": "black"}):
        report.write([directory], tmp_path / "styled")
        assert matplotlib.rcParams["text.usetex"] is True
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "styled" / path.name).read_bytes()


# ---- loss terms and the page -----------------------------------------------------------------------------------------


@pytest.fixture
def logged(run):
    """A run with metrics of three tasks, among them damaged lines."""
    directory = run("a", result=handmade_runs.known())
    position = {"epoch": 1, "pairs_per_second": 9.0, "data_wait": 0.1}
    lines = [
        json.dumps({"step": 1 + i, "task_name": TASKS[i // 4], **position, "loss": 5.0 - i / 4, "align": float(i)})
        for i in range(12)
    ]
    lines[5] = lines[5][:-9]  # cut short
    lines[6:6] = ["[" * 100_000, "null", '{"step": "7"}', '{"step": 1, "loss": 0}', "\x00", '{"step": 1e400}']
    lines.append(json.dumps({"step": 13, "task_name": "aerial", "loss": math.nan, "align": 10**400}))
    (directory / "metrics.jsonl").write_text("\n".join(lines))
    return directory


def test_loss_terms_are_read_and_damaged_lines_passed_over(logged):
    found = losses.read(logged)
    assert found.steps.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]
    assert found.terms.keys() == {"loss", "align"}
    expected = [5 - i / 4 for i in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)]
    np.testing.assert_array_equal(found.terms["loss"], [*expected, math.nan])
    assert losses.read(logged.parent) is None


def test_of_very_long_logs_only_what_can_be_seen_is_kept(logged, monkeypatch):
    monkeypatch.setattr(losses, "MOST_LINES", 5)
    monkeypatch.setattr(losses, "MOST_TERMS", 1)
    found = losses.read(logged)
    assert found.steps.tolist() == [1, 5, 10]
    assert found.terms["loss"].tolist() == [5.0, 4.0, 2.75]
    assert len(found.terms) == 1


def test_the_loss_curves_mark_where_tasks_end(logged, tmp_path, monkeypatch):
    *_, figure = drawn(monkeypatch, [logged], tmp_path / "out")
    panels = [axes for axes in figure.axes if axes.get_ylabel()]
    assert [panel.get_ylabel() for panel in panels] == ["loss", "align"]
    curve, *borders = panels[0].get_lines()
    assert curve.get_xdata()[-1] == 13
    assert [line.get_xdata()[0] for line in borders] == [4.5, 8.5]


def test_the_page_shows_every_task_and_where_the_numbers_come_from(run, tmp_path):
    record = {"started": "2026-11-25T10:20:30+00:00", "environment": {"commit": "0123456789abcdef+changes"}}
    directory = run("a", result=handmade_runs.known(), record=record, seed=7)
    report.write([directory], tmp_path / "out")
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    start = page.cells.index("aerial")
    recall, counts, routed = ["40.0", "30.0", "15.0", "41.0", "31.0", "16.0"], ["6", "12"], ["66.6", "75.0"]
    assert page.cells[start : start + 11] == ["aerial", *recall, *counts, *routed]
    start = page.cells.index(str(directory))
    assert page.cells[start + 1 : start + 6] == [
        "LPI intended",
        "7",
        "0",
        "0123456789ab+changes",
        "2026-11-25 10:20+00:00",
    ]


def test_a_stream_whose_name_has_no_ascii_letter_has_pictures_that_are_seen(run, tmp_path):
    stream = {"name": "动物", "sha256": "0" * 64, "notes": {}}
    report.write([run("a", method__name="zero_shot", result={"stream": stream})], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["stages.png", "zero-shot.png"]
