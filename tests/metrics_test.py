"""Holds the continual averages of `lpi_jax.metrics` against the slow NumPy oracle."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lpi_jax import metrics
from tests.reference import continual

FEW = settings(max_examples=25, deadline=None, derandomize=True)

NAMES = {
    "incremental_average": continual.incremental_average,
    "final_average": continual.final_average,
    "forgetting": continual.forgetting,
    "chaudhry_forgetting": continual.forgetting_chaudhry,
    "backward_transfer": continual.backward_transfer,
}


def lower_triangle(values):
    matrix = np.array(values, np.float64)
    matrix[np.triu_indices(len(matrix), 1)] = np.nan
    return matrix


@pytest.mark.parametrize("tasks", [1, 2, 5, 12])
@FEW
@given(data=st.data())
def test_averages_are_the_oracles_and_never_read_above_the_diagonal(tasks, data):
    matrix = lower_triangle(data.draw(hnp.arrays(np.float64, (tasks, tasks), elements=st.floats(0, 100))))
    for name, slow in NAMES.items():
        assert getattr(metrics, name)(matrix) == pytest.approx(slow(matrix), abs=1e-9), name


def test_averages_of_a_worked_stream():
    matrix = lower_triangle([[50, 0, 0], [60, 40, 0], [30, 50, 20]])
    assert metrics.summary(matrix) == pytest.approx(
        {
            "incremental_average": (140 / 3 + 45 + 20) / 3,
            "final_average": 100 / 3,
            "forgetting": -10,
            "chaudhry_forgetting": 10,
            "backward_transfer": -5,
        }
    )


def test_one_task_forgets_nothing():
    values = metrics.summary(np.array([[42.0]]))
    assert values == {name: 42.0 if "average" in name else 0.0 for name in NAMES}
    assert all(isinstance(value, float) for value in values.values())
    assert not any(np.signbit(value) for value in values.values())  # no "-0.0" in a table


def test_forward_transfer_and_retention_compare_tasks_not_yet_learnt_with_zero_shot():
    before, zero_shot = np.array([np.nan, 30.0, 50.0]), np.array([np.nan, 40.0, 40.0])
    assert metrics.forward_transfer(before, zero_shot) == pytest.approx((-10 + 10) / 2)
    assert metrics.zero_shot_retention(before, zero_shot) == pytest.approx(100.0)
    assert metrics.zero_shot_retention(before / 2, zero_shot) == pytest.approx(50.0)
    assert metrics.forward_transfer(before[:1], zero_shot[:1]) == 0.0


def test_where_nothing_could_be_retained_retention_is_not_a_number():
    assert np.isnan(metrics.zero_shot_retention(np.array([3.0]), np.array([4.0])))
    assert np.isnan(metrics.zero_shot_retention(np.array([3.0, 1.0]), np.array([4.0, 0.0])))


def test_mtils_averages_of_a_worked_stream():
    """Zheng et al. 2023: three tasks, of which task 1 is seen once before it is learnt, and task 2 twice."""
    matrix = np.array([[90.0, 30.0, 20.0], [80.0, 70.0, 24.0], [60.0, 65.0, 95.0]])
    assert metrics.transfer(matrix) == pytest.approx((30 + (20 + 24) / 2) / 2)
    assert metrics.average(matrix) == pytest.approx((230 / 3 + 55 + 139 / 3) / 3)
    assert metrics.last(matrix) == pytest.approx(220 / 3)


def test_before_the_stream_ends_mtils_averages_are_of_the_stages_so_far():
    matrix = np.array([[90.0, 30.0, 20.0], [80.0, 70.0, 24.0]])
    assert metrics.transfer(matrix) == pytest.approx((30 + 22) / 2)
    assert metrics.transfer(matrix[:1]) == pytest.approx((30 + 20) / 2)
    assert (metrics.average(matrix[:1]), metrics.last(matrix[:1])) == pytest.approx((140 / 3, 140 / 3))
    assert np.isnan(metrics.transfer(matrix[:1, :1]))


@FEW
@given(st.data())
def test_mtils_averages_are_the_references(data):
    stages, more = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 2))
    tasks = max(stages + more, 2)
    matrix = data.draw(hnp.arrays(np.float64, (stages, tasks), elements=st.floats(0, 100)))
    for name in ("transfer", "average", "last"):
        fast, slow = getattr(metrics, name), getattr(continual, name)
        assert fast(matrix) == pytest.approx(slow(matrix.tolist()), abs=1e-9), name


def test_of_a_metric_of_which_less_is_better_nothing_lost_is_no_negative_zero():
    values = metrics.summary(np.array([[4.0, np.nan], [4.0, 3.0]]), higher_is_better=False)
    assert values["forgetting"] == 0.0
    assert not any(np.signbit(value) for value in values.values())


def test_losing_everything_is_a_forgetting_of_all_points_in_both_signs():
    matrix = lower_triangle([[100, 0], [0, 100]])
    signs = functools.partial(pytest.approx, abs=1e-12)
    assert metrics.forgetting(matrix) == signs(-100)
    assert metrics.chaudhry_forgetting(matrix) == signs(100)


def test_of_a_metric_of_which_less_is_better_losing_is_a_rise():
    matrix = lower_triangle([[50, 0, 0], [60, 40, 0], [30, 50, 20]])
    found, plain = metrics.summary(matrix, higher_is_better=False), metrics.summary(matrix)
    for name, slow in NAMES.items():
        averaged = name.endswith("_average")
        assert found[name] == pytest.approx(slow(matrix) if averaged else -slow(-matrix)), name
        if averaged or "forgetting" in name:  # what looks for the best value depends on which way is up
            assert (found[name] == plain[name]) == averaged
