"""What stands beside a method in every report: the frozen backbone with the same help, intervals, tasks to come."""

import csv
import functools
import io
import json
import re
import statistics

import pytest

from lpi_jax import report
from lpi_jax.report import known
from tests.support import handmade_runs
from tests.support.handmade_runs import controlled

PRIOR, TOLD = "zero-shot with a prior", "zero-shot, in the true task's items"
MINE = "LPI intended, in the true task's items"


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run whose every recall follows from `base`."""
    return functools.partial(handmade_runs.make, tmp_path)


@pytest.fixture
def helped(run):
    """The same, of a run with controls; names: of which."""

    def make(name, base=30, names=tuple(handmade_runs.CONTROLS), result=None, **changes):
        return run(name, base, result={"metrics": controlled(base, names=names)} | (result or {}), **changes)

    return make


def tables(text):
    """The tables of a Markdown report without their head rows: lists of rows, which are lists of cells."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line[:1] == "|"]
        if lines:
            found.append([[cell.strip() for cell in line.strip("|").split("|")] for line in lines[3:]])
    return found


def page(directories, out):
    pytest.importorskip("matplotlib")
    report.write(directories, out)
    return (out / "index.html").read_text(encoding="utf-8")


def cells(html):
    return re.findall("<t[dh][^>]*>(.*?)</t[dh]>", html)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_every_control_has_a_row_with_its_final_average_and_its_forgetting(helped):
    compared, _ = tables(report.table([helped("a")]))
    assert [row[:4] for row in compared] == [
        ["chance", "1", "incremental", "5.2"],
        ["chance", "1", "final", "5.5"],
        ["zero-shot", "1", "incremental", "20.2"],
        ["zero-shot", "1", "final", "20.5"],
        [PRIOR, "1", "final", "24.5"],
        [TOLD, "1", "final", "34.5"],
        ["LPI intended", "1", "incremental", "30.2"],
        ["LPI intended", "1", "final", "30.5"],
        [MINE, "1", "final", "42.5"],
    ]
    forgetting = {row[0]: row[9] for row in compared if row[2] == "final"}
    assert forgetting == {
        "chance": "-2.5 / -2.5",
        "zero-shot": "-2.0 / -3.0",
        PRIOR: "-1.0 / -1.0",
        TOLD: "0.0 / 0.0",
        "LPI intended": "-2.0 / -3.0",
        MINE: "-0.5 / -0.5",
    }


def test_forgetting_is_told_apart_from_the_growth_of_what_is_searched(helped):
    text = report.table([helped("a")])
    assert "| forgetting, I→T / T→I |  |  | zero-shot kept |" in text
    assert "| all | real | growth | I→T / T→I |" in text
    rows = {row[0]: row[9:13] for row in tables(text)[0] if row[2] == "final"}
    assert rows["LPI intended"] == ["-2.0 / -3.0", "-0.5 / -0.5", "-1.5 / -2.5", "90 / 90"]
    assert rows["zero-shot"] == ["-2.0 / -3.0", "0.0 / 0.0", "-2.0 / -3.0", ""]
    assert rows[PRIOR] == ["-1.0 / -1.0", "", "", ""]
    legend = " ".join(text.split())
    assert "negative = forgot; all = real + growth: what is lost where every item is searched among those" in legend
    assert "a method with an addition: the method, given more." in legend


def test_results_from_before_there_were_controls_have_one_column_of_forgetting(run, helped):
    text = report.table([run("a")])
    assert "| forgetting | zero-shot kept | routed right |" in text
    assert "with an addition" not in text
    assert "[low, high]" not in text
    (compared, of_one) = tables(report.table([run("b", 40, train__lr=0.5), helped("c")]))
    older = next(row for row in compared if row[0].startswith("LPI") and row[2] == "final")
    assert older[9:12] == ["-2.0 / -3.0", "", ""]
    assert {row[0] for row in of_one} == {"LPI intended (train.lr=0.05)"}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({"tasks": ["fax"]}, ""), ({"trains": False}, ""), ({}, "90 / –")],
)
def test_retention_is_shown_where_there_is_something_to_retain(run, changes, kept):
    entries = handmade_runs.metrics()
    entries["text_to_image/R@1"]["zero_shot_retention"] = None
    result = {"metrics": entries} | changes
    if "tasks" in changes:
        result = handmade_runs.with_tasks(["fax"])
    assert tables(report.table([run("a", result=result)]))[0][-1][10] == kept


# ---- several methods -------------------------------------------------------------------------------------------------


def test_what_all_methods_have_alike_is_shown_once_and_the_rest_says_whose_it_is(helped):
    """Both have the same prior and the same true tasks; only one knows a third control."""
    both, third = (
        helped("a", names=("frozen_prior", "own_frozen")),
        controlled(30, names=("frozen_prior", "own_frozen")),
    )
    for entry in third.values():
        entry["controls"] = {"filtered": entry["controls"]["frozen_prior"] | {"label": "zero-shot, filtered"}} | {
            name: control for name, control in entry["controls"].items() if name != "frozen_prior"
        }
        del entry["bootstrap"]
    directories = [both, helped("b", result={"metrics": third}, train__lr=0.5)]
    (compared, _) = tables(report.table(directories))
    one, two = "LPI intended (train.lr=0.05)", "LPI intended (train.lr=0.5)"
    assert [row[0] for row in compared if row[2] == "final"] == [
        *("chance", "zero-shot", TOLD),
        *(f"{PRIOR} ({one})", one),
        *(f"zero-shot, filtered ({two})", two),
    ]


def test_numbers_that_several_methods_have_alike_are_shown_before_the_first(run, helped):
    same = helped("a"), helped("b", train__lr=0.5), run("c", method__rank=8)
    compared = tables(report.table(same))[0]
    names = [row[0] for row in compared if row[2] == "final"]
    (first,) = [name for name in names if name.startswith(TOLD)]
    assert first.count("LPI intended (") == 2  # both that know it, and not the third
    assert names.index(first) < names.index(next(name for name in names if name.startswith("LPI")))
    other = tables(report.table([helped("d"), helped("e", 32, train__lr=0.5)]))[0]
    assert sum(row[0].startswith(PRIOR) for row in other) == 2  # other numbers, each before its own method
    assert [row[0].split(" (")[0] for row in other if row[2] == "final"] == [
        *("chance", "zero-shot"),
        *(PRIOR, TOLD, "LPI intended", "LPI intended"),
        *(PRIOR, TOLD, "LPI intended", "LPI intended"),
    ]


def test_a_zero_shot_run_in_the_true_tasks_items_is_the_control_of_all(helped):
    own = controlled(20)
    for entry in own.values():
        del entry["controls"]["frozen_prior"], entry["bootstrap"]["over"]["frozen_prior"]
        entry["controls"]["own"] = entry["controls"]["own_frozen"] | {
            "label": "in the true task's items",
            "measures_method": True,
        }
    zero = helped("a", 20, result={"metrics": own}, method__name="zero_shot")
    method = controlled(30)
    for name, entry in method.items():
        entry["controls"]["own_frozen"] = own[name]["controls"]["own_frozen"]
    compared, intervals = tables(report.table([zero, helped("b", result={"metrics": method})]))
    assert [row[0] for row in compared if row[2] == "final"] == [
        *("chance", "zero-shot", TOLD),
        *(f"{PRIOR} (LPI intended)", "LPI intended", MINE),
    ]
    assert [row[:2] for row in intervals][:2] == [["zero-shot", ""], ["LPI intended", ""]]


# ---- how well it is known --------------------------------------------------------------------------------------------


def test_one_runs_intervals_are_a_table_of_their_own(helped):
    text = report.table([helped("a")])
    assert "#### How well this is known\n\n| method | minus | image to text |  | text to image |  |" in text
    _, intervals = tables(text)
    assert [row[:4] for row in intervals] == [
        ["LPI intended", "", "30.5 [27.5, 35.5]", "60.5 [57.5, 65.5]"],
        ["LPI intended", "zero-shot", "+10.0 [+6.0, +13.0]", "+10.0 [+6.0, +13.0]"],
        ["LPI intended", PRIOR, "+6.0 [+2.0, +9.0]", "+6.0 [+2.0, +9.0]"],
        ["LPI intended", TOLD, "-4.0 [-8.0, +1.0]", "-4.0 [-8.0, +1.0]"],
        ["LPI intended", "itself, in the true task's items", *["-12.0 [-15.0, -10.0]"] * 2],
    ]
    assert "[low, high]: 95 % of a bootstrap over the items, not over trainings" in " ".join(text.split())
    assert r"-4.0 [-8.0, +1.0]".replace("-", "$-$") in report.table([helped("b")], "latex")


@pytest.mark.parametrize(
    ("items", "low", "high", "difference", "told"),
    [
        # Half-widths 4 and 4 of the average, 3.5 and 3.5 of the difference: sqrt(32) / 2 and sqrt(24.5) / 2.
        (("1", "2"), "29.7", "35.3", "[+7.5, +12.5]", "as of independent runs"),
        # On the same items nothing is gained by a second training: 4 and 3.5.
        (("1", "1"), "28.5", "36.5", "[+6.5, +13.5]", "with their mean half-width"),
    ],
)
def test_runs_are_pooled_as_their_items_allow(helped, items, low, high, difference, told):
    runs = [
        helped(f"a{seed}", base, seed=seed, record={"stream": stream * 64})
        for seed, (base, stream) in enumerate(zip((30, 34), items, strict=True))
    ]
    text = report.table(runs)
    _, intervals = tables(text)
    assert intervals[0][2] == f"32.5 ± {statistics.stdev([30, 34]):.1f} [{low}, {high}]"
    assert intervals[1][2] == f"+10.0 ± 0.0 {difference}"
    assert told in " ".join(text.split())
    assert tables(text)[0][-2][3] == f"32.5 ± {statistics.stdev([30, 34]):.1f}"


def test_two_of_three_runs_on_the_same_items_count_as_dependent(helped):
    runs = [
        helped(f"a{seed}", seed=seed, record={"stream": stream * 64}) for seed, stream in enumerate(("1", "1", "2"))
    ]
    ((group,),) = [block.groups for block in report.compare(runs)]
    found = known.average(group, group.runs[0].metrics[0])
    assert found.high - found.low == pytest.approx(2 * ((4 + 4) ** 2 + 4**2) ** 0.5 / 3)


def test_csv_and_json_have_every_bound(helped):
    directory = helped("a")
    rows = list(csv.DictReader(io.StringIO(report.table([directory], "csv"))))
    (mine,) = [row for row in rows if (row["kind"], row["average"]) == ("measured", "final")]
    assert [float(mine[f"image_to_text R@5 {bound}"]) for bound in ("low", "high")] == [47.5, 55.5]
    over = [float(mine[f"text_to_image R@10 over own_frozen{bound}"]) for bound in ("", " low", " high")]
    assert over == [-4, -8, 1]
    assert float(mine["image_to_text real forgetting"]) == -0.5
    assert float(mine["text_to_image gallery growth"]) == -2.5
    assert float(mine["text_to_image zero-shot kept"]) == 90
    (prior,) = [row for row in rows if row["kind"] == "frozen_prior"]
    assert (prior["method"], prior["of"], prior["average"]) == (PRIOR, "LPI intended", "final")
    assert float(prior["image_to_text R@1"]) == 24.5
    assert prior["image_to_text R@1 low"] == ""
    (block,) = json.loads(report.table([directory], "json"))
    (found,) = [row for row in block["rows"] if (row["kind"], row["average"]) == ("measured", "final")]
    assert found["known"]["image_to_text R@5"]["over"]["own"] == {"mean": -12, "std": None, "low": -15, "high": -10}
    assert (found["known"]["image_to_text R@5"]["low"], found["known"]["image_to_text R@5"]["high"]) == (47.5, 55.5)
    assert block["methods"][0]["tasks"][2]["image_to_text zero-shot with a prior R@1"]["mean"] == 34.0


def test_the_legend_says_which_seeds_were_varied(helped):
    runs = [helped(f"a{seed}", seed=seed, data__seed=seed) for seed in range(3)]
    assert "over runs. 3 runs: seeds 0, 1, 2; data seeds 0, 1, 2." in " ".join(report.table(runs).split())
    trained = [helped(f"b{seed}", seed=seed, method__rank=8) for seed in (4, 5)]
    legend = " ".join(report.table(trained).split())
    assert "over runs. 2 runs: seeds 4, 5; data seed 0." in legend
    both = " ".join(report.table([*runs, *trained]).split())
    assert "LPI intended (method.rank=8): 2 runs: seeds 4, 5; data seed 0." in both
    assert "±" not in report.table(runs[:1])


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_has_controls_intervals_and_remarks(helped, tmp_path):
    result = {"remarks": ["task <a> is alone"], "plain_tasks": {"count": 1, "names": ["comic"]}}
    html = page([helped("a", result=result)], tmp_path / "out")
    assert {PRIOR, MINE.replace("'", "&#x27;"), "30.5 [27.5, 35.5]", f"{PRIOR} R@1"} <= set(cells(html))
    assert "<h4>How well this is known</h4>" in html
    listed = re.findall("<li>(.*?)</li>", html)
    assert listed == [
        "task &lt;a&gt; is alone",
        "the prompts of 1 of 3 tasks did not beat the frozen backbone on held-out items: comic",
    ]
    start = cells(html).index("aerial")
    assert cells(html)[start + 1 : start + 7] == ["40.0", "30.0", "34.0", "44.0", "52.0", "15.0"]


def test_remarks_of_some_of_several_runs_say_of_which(helped, tmp_path):
    put_aside = {"plain_tasks": {"count": 0, "names": []}}
    runs = [
        helped("a", result={"remarks": ["both", "one"]} | put_aside),
        helped("b", result={"remarks": ["both"]} | put_aside, seed=3),
    ]
    assert re.findall("<li>(.*?)</li>", page(runs, tmp_path / "out")) == [
        "both",
        "seed 0; data seed 0: one",
        "the prompts of every task beat the frozen backbone on held-out items",
    ]


def test_tasks_not_learnt_yet_and_items_of_no_task_are_shown_where_they_were_measured(helped, tmp_path):
    measured = {"metrics": handmade_runs.with_future(controlled()), "tasks_to_come": ["oil"]}
    directory = helped("a", result=measured | {"probes": handmade_runs.probes()})
    html = page([directory], tmp_path / "out")
    shown = cells(html)
    start = shown.index("Transfer")
    assert shown[start + 6 : start + 20] == [
        *("zero-shot", "20.0", "20.0", "20.0", "21.0", "21.0", "21.0"),
        *("LPI intended, 3 of 4 tasks", "32.5", "32.5", "33.5", "33.5", "33.5", "34.5"),
    ]
    start = shown.index("flags")
    assert shown[start + 1 : start + 7] == ["30.0", "29.0", "27.0"] * 2
    (block,) = json.loads(report.table([directory], "json"))
    final = {row["kind"]: row["values"] for row in block["rows"] if row["average"] == "final"}
    assert final["measured"]["image_to_text R@5 transfer"]["mean"] == 52.5
    assert final["frozen"]["image_to_text R@5 last"]["mean"] == 40
    assert block["methods"][0]["probes"]["flags"]["text_to_image R@1"]["values"][1] == {"mean": 28, "std": None}
    assert "image_to_text R@1 average" in report.table([directory], "csv").splitlines()[0]
    assert "Transfer" not in page([helped("b")], tmp_path / "other")


def test_a_report_of_results_without_any_of_it_has_none_of_it(run, tmp_path):
    html = page([run("a")], tmp_path / "out")
    assert html.count("<h4>") == html.count("<h4>What it cost") == 1
    assert "<li>" not in html
