"""Results that no run of this version writes: one sentence says so, whatever is wrong with them."""

import copy
import functools

import pytest

from lpi_jax import report
from lpi_jax.errors import UserError
from tests.support import handmade_runs


@pytest.fixture
def run(tmp_path):
    """(name, base, changes by key) -> the directory of a run whose every value follows from `base`."""
    return functools.partial(handmade_runs.make, tmp_path)


def refusal(directory):
    with pytest.raises(UserError) as error:
        report.table([directory])
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- other schemas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (None, "no schema"),
        (1, "schema 1"),
        (3, "schema 3"),
        ("2", "schema 2"),
        (True, "schema True"),
        ([2], "schema [2]"),
    ],
)
def test_another_schema_names_the_version_that_reads_it(run, schema, told):
    directory = run("a", result={"schema": schema}, record={"environment": {"commit": "0123456789abcdef+changes"}})
    assert refusal(directory) == (
        f"{directory}/results.json has {told}, expected 2; version 0123456789abcdef+changes, which wrote it, reads it"
    )


def test_results_as_they_were_before_schemas_are_refused(run):
    directory = run("a")
    (directory / "results.json").write_text('{"method": "lpi", "task_id": "inferred", "recall": {}, "tasks": ["fax"]}')
    assert refusal(directory) == (
        f"{directory}/results.json has no schema, expected 2; the version that wrote it reads it"
    )


# ---- damage ----------------------------------------------------------------------------------------------------------


def metrics(change, name="image_to_text/R@1"):
    """Metrics of which one is changed."""
    entries = copy.deepcopy(handmade_runs.metrics())
    change(entries[name])
    return {"metrics": entries}


def helped(change, future=False):
    """The same of metrics with controls, and with tasks that are not learnt yet."""
    entries = handmade_runs.controlled()
    change(handmade_runs.with_future(entries)["image_to_text/R@1"] if future else entries["image_to_text/R@1"])
    return {"metrics": entries, "tasks_to_come": ["oil"] if future else []}


def control(**changes):
    """One control, described or measured otherwise."""
    return helped(lambda entry: entry["controls"]["own"].update(changes))


def bootstrap(**changes):
    return helped(lambda entry: entry["bootstrap"].update(changes))


def future(**changes):
    return helped(lambda entry: entry["future"].update(changes), future=True)


def routing(**changes):
    """Routing of which the pictures' part is changed."""
    parts = copy.deepcopy(handmade_runs.routing())
    parts["image"] |= changes
    return {"routing": parts}


def items(**changes):
    return {"items": handmade_runs.with_tasks()["items"] | changes}


ABOVE = {"metrics": handmade_runs.metrics(95)}  # 100 per cent
NO_NUMBER = {"metrics": handmade_runs.metrics(float("nan"))}


@pytest.mark.parametrize(
    "result",
    [
        ABOVE,
        NO_NUMBER,
        {"metrics": {}},
        {"metrics": handmade_runs.metrics(tasks=("fax", "comic"))},
        {
            "metrics": dict(zip(("a/b", "a b"), handmade_runs.metrics().values(), strict=False))  # one column
        },
        metrics(lambda entry: entry.pop("frozen")),
        metrics(lambda entry: entry.update(frozen=None)),
        metrics(lambda entry: entry.update(chance=3)),
        metrics(lambda entry: entry.update(label=3)),
        metrics(lambda entry: entry.update(label=" ")),
        metrics(lambda entry: entry.update(unit=None)),
        metrics(lambda entry: entry.update(higher_is_better="yes")),
        metrics(lambda entry: entry.update(side="text")),  # the others of its group are of pictures
        metrics(lambda entry: entry.update(group="image_to text")),
        metrics(lambda entry: entry.pop("forgetting")),
        metrics(lambda entry: entry.update(final_average=None), "image_to_text/R@5"),
        {"routed": "everywhere"},
        {"trains": 1},
        {"label": None},
        {"problem": 3},
        {"items": {}},
        items(image={"label": "images", "val": [4, 0, 6]}),
        items(image={"label": "images", "val": [4, 5]}),
        items(image={"label": "images", "val": [4, 5, 10**400]}),
        items(image={"val": [4, 5, 6]}),
        routing(confusion={"matrix": [[1]]}),
        routing(confusion={"matrix": [[-1] * 3] * 3}),
        routing(confusion={"matrix": [[1] * 3] * 3, "none": [1]}),
        routing(confusion=None),
        routing(among=None),
        routing(among=[50.0]),
        routing(among=[50.0, 101.0, 50.0]),
        routing(among=[50.0, "x", 50.0]),
        routing(matrix=[[1.0]]),
        routing(matrix=[[101.0], [1.0] * 2, [1.0] * 3]),
        {"routing": {"sound": handmade_runs.routing()["image"]}},
        metrics(lambda entry: entry.update(controls=[])),
        metrics(lambda entry: entry.update(controls=None)),
        metrics(lambda entry: entry.update(zero_shot_retention="all")),
        metrics(lambda entry: entry.update(gallery_growth=float("nan"))),
        helped(lambda entry: entry["controls"].pop("own")),  # the other metrics have it
        helped(lambda entry: entry["controls"].update(own=3)),
        helped(lambda entry: entry["controls"].update(chance=entry["controls"]["own"])),
        control(label=""),
        control(label=None),
        control(measures_method="yes"),
        control(forgetting=None),
        control(matrix=[[1.0]]),
        control(final_average="x"),
        bootstrap(interval=[1.0]),
        bootstrap(interval=[2.0, 1.0]),
        bootstrap(interval=None),
        bootstrap(over=[]),
        bootstrap(over={"own": []}),
        bootstrap(over={"own": [1.0, 0.0, float("inf")]}),
        bootstrap(over={"stranger": [1.0, 0.0, 2.0]}),
        helped(lambda entry: entry.update(bootstrap=[1])),
        future(matrix=[[1.0] * 4] * 2),
        future(matrix=[[1.0] * 3] * 3),
        future(matrix=3),
        future(matrix=[[101.0] * 4] * 3),
        future(frozen=None),
        future(frozen=[1.0]),
        future(last=None, transfer="x"),
        {"probes": [1]},
        {"probes": {"flags": {"image_to_text/R@1": 3}}},
        {"probes": {"flags": {"image_to_text/R@1": {"values": [1.0], "frozen": 1.0}}}},
        {"probes": {"flags": {"image_to_text/R@1": {"values": [1.0, 2.0, -3.0], "frozen": 1.0}}}},
        {"remarks": "one"},
        {"remarks": [3]},
        {"plain_tasks": 3},
        {"plain_tasks": {"count": -1, "names": []}},
        {"plain_tasks": {"count": 1, "names": [None]}},
        {"peak_memory_mb": 1e300},
        {"seconds": [{"training": float("inf")}]},
    ],
)
def test_what_no_run_writes_is_one_sentence(run, result):
    directory = run("a", result=result)
    assert refusal(directory).startswith(f"{directory} holds damaged results (")


OPTIONAL = ("probes", "remarks", "plain_tasks")


@pytest.mark.parametrize("key", sorted((*handmade_runs.results(30, "lpi", "intended", False), *OPTIONAL)))
@pytest.mark.parametrize("value", [None, 3, "x", [1], {}, {"x": None}])
def test_anything_else_in_its_place_is_a_table_or_one_sentence(run, key, value):
    directory = run("a", result={key: value})
    try:
        assert report.table([directory])
    except UserError as error:
        assert str(error).startswith(str(directory))
        assert "\n" not in str(error)


@pytest.mark.parametrize("part", ["controls", "own", "bootstrap", "over", "future", "chance", "frozen"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {}, {"x": None}, [[1e400]], True])
def test_any_part_of_a_metric_in_its_place_is_a_table_or_one_sentence(run, part, value):
    inside = {"own": "controls", "over": "bootstrap"}.get(part)
    result = helped(lambda entry: (entry[inside] if inside else entry).update({part: value}), future=True)
    directory = run("a", result=result)
    try:
        assert report.table([directory])
        assert report.table([directory], "json")
    except UserError as error:
        assert str(error).startswith(str(directory))
        assert "\n" not in str(error)
