"""Reports: tables and pictures hold the runs' numbers, and only runs that differ in their seeds are averaged."""

import csv
import functools
import io
import json
import re
import shutil
import statistics
import subprocess
import sys

import pytest

from lpi_jax import report
from lpi_jax.errors import UserError
from lpi_jax.report.command import main
from tests.support import handmade_runs

FINAL_ONLY = ("-2.0 / -3.0", "90 / 90", "70.0 / 80.0", "3.0", "1030")  # forgetting, retention, routing, minutes, memory


@pytest.fixture
def drawing():
    """For what needs matplotlib, an extra of its own."""
    pytest.importorskip("matplotlib")


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run whose every recall follows from `base`."""
    return functools.partial(handmade_runs.make, tmp_path)


def rows(text):
    """The table's rows as lists of cells, without its three header lines."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in found if row[0] not in ("", "method", "---")]


# ---- one run ---------------------------------------------------------------------------------------------------------


def test_the_table_of_a_run_holds_its_numbers(run):
    text = report.table([run("a")])
    assert text.splitlines()[:3] == [
        "| method | runs | average | image to text, n = 15 |  |  | text to image, n = 30 |  |  |"
        " forgetting | zero-shot kept | routed right | min | peak MB |",
        "| " + " | ".join(["---"] * 14) + " |",
        "|  |  |  | R@1 | R@5 | R@10 | R@1 | R@5 | R@10 | I→T / T→I | I→T / T→I | images / captions |  |  |",
    ]
    assert rows(text) == [
        ["zero-shot", "1", "incremental", "20.2", "40.2", "50.2", "21.2", "41.2", "51.2", "", "", "", "", ""],
        ["zero-shot", "1", "final", "20.5", "40.5", "50.5", "21.5", "41.5", "51.5", "-2.0 / -3.0", "", "", "", ""],
        ["LPI intended", "1", "incremental", "30.2", "50.2", "60.2", "31.2", "51.2", "61.2", "", "", "", "", ""],
        ["LPI intended", "1", "final", "30.5", "50.5", "60.5", "31.5", "51.5", "61.5", *FINAL_ONLY],
    ]
    legend = " ".join(text.split("\n\n")[1].split())
    assert legend.startswith("R@1, R@5, R@10 in per cent over all tasks seen so far; n: items after the last task. ")
    assert "forgetting: points of R@1, image to text / text to image, negative = forgot. " in legend
    assert "routed right: per cent of images / captions sent to their own task after the last one" in legend
    assert "chance" not in legend  # nobody knows it
    assert "chance: what a guess finds. " in report.table([run("b", result=handmade_runs.known())])


def test_a_real_run_is_understood(drawing, finished_run, tmp_path, capsys):
    assert main(["report", f"--out={tmp_path / 'out'}", str(finished_run.directory)]) == 0
    text = capsys.readouterr().out
    results = finished_run.results
    final = results["metrics"]["text_to_image/R@5"]["final_average"]
    (row,) = [row for row in rows(text) if row[:3] == ["LPI intended", "1", "final"]]
    assert row[9] == f"{final:.1f}"
    helped = [row[0] for row in rows(text) if row[0].startswith("zero-shot") and row[2] == "final"]
    assert helped == [
        "zero-shot",
        "zero-shot, in the routed task's items",
        "zero-shot with the routing prior",
        "zero-shot, in the true task's items",
    ]
    assert rows(text)[-1][:2] == ["LPI intended", "itself, in the true task's items"]  # of the table of intervals
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as file:
        (last,) = [row for row in csv.DictReader(file) if (row["kind"], row["average"]) == ("measured", "final")]
    assert float(last["text_to_image R@5"]) == final
    assert float(last["image routed right"]) == results["routing"]["image"]["final_average"]
    assert float(last["minutes"]) == pytest.approx(sum(sum(s.values()) for s in results["seconds"]) / 60)
    known = results["metrics"]["text_to_image/R@1"]["bootstrap"]
    assert [float(last[f"text_to_image R@1 {bound}"]) for bound in ("low", "high")] == known["interval"]
    assert float(last["text_to_image R@1 over frozen"]) == known["over"]["frozen"][0]


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
    found = rows(report.table([run("a", method__name="zero_shot"), run("b", 50)]))
    assert [row[0] for row in found] == ["zero-shot"] * 2 + ["LPI intended"] * 2
    assert found[1][3] == "30.5"  # its own, not what run b measured


def test_what_a_guess_finds_is_in_the_table(run):
    text = report.table([run("a", result=handmade_runs.known())])
    assert rows(text)[:2] == [
        ["chance", "1", "incremental", "5.2", "25.2", "35.2", "6.2", "26.2", "36.2", "", "", "", "", ""],
        ["chance", "1", "final", "5.5", "25.5", "35.5", "6.5", "26.5", "36.5", "", "", "", "", ""],
    ]
    assert rows(text)[5][11] == "80.5 / 76.7"


@pytest.mark.parametrize(
    ("changes", "routed"),
    [({}, "70.0 / 80.0"), ({"task_id": "oracle"}, "given"), ({"method.name": "zero_shot"}, "")],
)
def test_only_what_was_routed_has_a_routing_figure(run, changes, routed):
    directory = run("a", **changes)
    assert rows(report.table([directory]))[-1][11] == routed
    (last,) = list(csv.DictReader(io.StringIO(report.table([directory], "csv"))))[-1:]
    assert (last.get("image routed right", "") != "") == (not changes)


def test_names_cannot_leave_their_cell(run):
    stream = {"name": "a|b\n<script> *c* \x1b[31m", "sha256": "0" * 64, "notes": {}}
    text = report.table([run("a"), run("b", result={"stream": stream})])
    (title,) = [line for line in text.splitlines() if line.startswith("### a")]
    assert title == r"### a\|b \<script> \*c\* �[31m"
    named = run("c", method__length=5, method__similarity="x|y", seed=1)
    table = report.table([run("d"), named])
    assert r"method.similarity=x\|y" in table
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line[:1] == "|"} == {15}


# ---- formats ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def several(run):
    """Two seeds and one run with the task known."""
    known = handmade_runs.known
    record = {"started": "2026-11-25T10:20:30+00:00", "environment": {"commit": "0123456789abcdef+changes"}}
    first = run("a", 30, result=known(30), record=record)
    return [first, run("b", 33, result=known(33), seed=1), run("c", 50, result=known(50), task_id="oracle")]


def test_json_holds_everything(several):
    (block,) = json.loads(report.table(several, "json"))
    assert block["stream"] == "scenes"
    assert block["n"] == {"image_to_text": 15, "text_to_image": 30}
    assert [(row["method"], row["average"]) for row in block["rows"]] == [
        (method, average)
        for method in ("chance", "zero-shot", "LPI intended", "LPI intended, task known")
        for average in ("incremental", "final")
    ]
    final = block["rows"][5]["values"]
    assert final["image_to_text R@1"] == {"mean": 32.0, "std": pytest.approx(statistics.stdev([30, 33]))}
    assert final["minutes"] == {"mean": 3.0, "std": 0.0}
    assert [row["routing"] for row in block["rows"][5::2]] == ["inferred", "given"]
    lpi, oracle = block["methods"]
    assert lpi["tasks"][2] == {
        "task": "aerial",
        "image_to_text R@1": {"mean": 41.5, "std": pytest.approx(statistics.stdev([30, 33]))},
        "image_to_text zero-shot R@1": {"mean": 31.5, "std": pytest.approx(statistics.stdev([30, 33]))},
        "image_to_text chance R@1": {"mean": 15.0, "std": 0.0},
        "text_to_image R@1": {"mean": 42.5, "std": pytest.approx(statistics.stdev([30, 33]))},
        "text_to_image zero-shot R@1": {"mean": 32.5, "std": pytest.approx(statistics.stdev([30, 33]))},
        "text_to_image chance R@1": {"mean": 16.0, "std": 0.0},
        "image items": {"mean": 6.0, "std": 0.0},
        "image routed right": {"mean": 66.6, "std": 0.0},
        "text items": {"mean": 12.0, "std": 0.0},
        "text routed right": {"mean": 75.0, "std": 0.0},
    }
    assert lpi["routing_confusion"]["text"] == [[12, 2, 2, 0], [4, 16, 0, 0], [0, 0, 18, 6]]  # both runs, and none
    assert oracle["routing_confusion"] == {}
    assert lpi["runs"] == [
        {"run": str(several[0]), "seed": 0, "data_seed": 0, "commit": "0123456789abcdef+changes"}
        | {"started": "2026-11-25 10:20+00:00"},
        {"run": str(several[1]), "seed": 1, "data_seed": 0, "commit": "", "started": ""},
    ]


def test_latex_has_the_cells_of_the_table(run, several):
    text = report.table([*several, run("d", 40, method__similarity=r"a_b&c%$\foo${}")], "latex")
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrrrrrrrrr}"
    assert r"\multicolumn{3}{c}{image to text, n = 15}" in text
    assert r"\cmidrule(lr){4-6}\cmidrule(lr){7-9}" in text
    assert r"method.similarity=a\_b\&c\%\$\textbackslash{}foo\$\{\}" in text
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 10
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {13}
    deviation = statistics.stdev([30, 33])
    assert rf"LPI intended (method.similarity=text) & 2 & final & 32.0 $\pm$ {deviation:.1f} &" in body[5]
    assert "$-$2.0 $\\pm$ 0.0 / $-$3.0 $\\pm$ 0.0" in body[5]


@pytest.mark.parametrize("form", ["markdown", "csv", "json", "latex"])
def test_the_format_is_chosen_on_the_command_line(several, capsys, form):
    assert main(["report", f"--format={form}", *map(str, several)]) == 0
    assert capsys.readouterr().out == report.table(several, form) + "\n"


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
        ({"method__rank": 8}, "LPI intended (method.rank=4)", "LPI intended (method.rank=8)"),
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
        "table.json",
        "table.md",
        "table.tex",
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
        (lambda path: path.unlink(), "has no finished task yet; expected a run with results"),
        (lambda path: path.write_text('{"method.name": "lpi",'), "results.json is damaged ("),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "results.json is damaged ("),
        (lambda path: path.write_text('{"schema": 2}'), "holds damaged results (KeyError: 'tasks'); expected config."),
        (
            lambda path: path.write_text("{}"),
            "results.json has no schema, expected 2; the version that wrote it reads it",
        ),
        (lambda path: path.write_text("[" * 100_000), "results.json is damaged ("),
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


@pytest.mark.parametrize(
    "key", ["metrics", "routing", "routed", "trains", "items", "seconds", "tasks", "parameters", "stream"]
)
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
        (["--format=html", "a"], "--format is 'html'; expected one of markdown, csv, json, latex"),
        (["--format"], "--format has no value; expected --format=markdown|csv|json|latex"),
        (["--ot=x", "a"], "--ot=x is not a flag; did you mean --format=markdown|csv|json|latex or --out=DIR?"),
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


def test_without_matplotlib_the_extra_is_named_and_nothing_written(run, tmp_path):
    directory, out = run("a"), tmp_path / "out"
    without = "import sys; sys.modules['matplotlib'] = None; from lpi_jax.report import main; sys.exit(main(sys.argv))"

    def started(*arguments):
        command = [sys.executable, "-c", without, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = started(f"--out={out}", directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: pictures need matplotlib; install it with pip install 'lpi_jax[experiments]'\n"
    assert not out.exists()
    assert started(directory).stdout == report.table([directory]) + "\n"  # the table needs none
