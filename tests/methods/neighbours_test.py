"""Holds `lpi_jax.methods.neighbours` against votes counted by hand and against the NumPy reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.methods import neighbours
from lpi_jax.methods.base import PLAIN, Assigned
from lpi_jax.methods.routing import Options
from tests.reference import neighbours as reference

FEW = settings(max_examples=20, deadline=None, derandomize=True)
CLOSE = {"rtol": 0, "atol": 1e-6}


def unit_rows(seed, count, width=6, middle=0.0):
    rows = middle + np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def angles(*degrees):
    """[N, 2] float32 unit vectors at these angles."""
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], 1).astype(np.float32)


def learnt(tasks, options):
    state = {}
    for items in tasks:
        state = neighbours.learnt(state, items, options)
    return state


def options(**given):
    return Options(rule="knn", **given)


# The nearest other item of the own task lies 10, 10, 20, 20 degrees away; 5 and 5.
HAND = [angles(0, 10, 30, 50), angles(90, 95)]


def test_the_nearest_training_items_vote():
    all_vote = options(neighbours=3, none=1.0)
    found = neighbours.posterior(learnt(HAND, all_vote), angles(5, 68, 92), all_vote)
    # Nearest to 5 degrees: 0, 10, 30; to 68: 50, 90, 95; to 92: 90, 95, 50.
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0]], **CLOSE)
    assert found.dtype == np.float32


def test_behind_the_mean_of_the_tasks_reaches_an_item_belongs_to_none():
    """At `none` of 0 a task's reach is the least distance of two of its items: 10 and 5 degrees."""
    strict = options(neighbours=1, none=0.0)
    state = learnt(HAND, strict)
    np.testing.assert_allclose(state["reach"], 1 - np.cos(np.radians([10, 5])), atol=1e-6)
    border = np.degrees(np.arccos(1 - state["reach"].mean()))  # about 8 degrees
    found = neighbours.posterior(state, angles(95 + border - 0.1, 95 + border + 0.1, 180), strict)
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(Assigned.of_posterior(found).ids, [1, PLAIN, PLAIN])


def test_with_a_share_of_one_every_item_belongs_to_a_task():
    for_all = options(none=1.0)
    found = neighbours.posterior(learnt(HAND, for_all), angles(180, 270), for_all)
    np.testing.assert_array_equal(found[:, -1], [0, 0])


@FEW
@given(
    seed=st.integers(0, 99),
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    count=st.integers(1, 20),
    none=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)
def test_the_posterior_is_the_references(seed, counts, count, none):
    given = options(neighbours=count, none=none)
    tasks = [unit_rows([seed, task], number, middle=0.5 * task) for task, number in enumerate(counts)]
    items = np.concatenate([unit_rows([seed, 99], 10), -tasks[0][:1]])
    found = neighbours.posterior(learnt(tasks, given), items, given)
    np.testing.assert_allclose(found, reference.posterior(tasks, items, count, none), **CLOSE)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 30, 31, 1024])
def test_nothing_depends_on_the_chunks(monkeypatch, chunk):
    tasks, items, usual = [unit_rows(0, 30), unit_rows(1, 31, middle=0.5)], unit_rows(2, 31), options()
    state = learnt(tasks, usual)
    expected = neighbours.posterior(state, items, usual)
    assert len(set(expected.argmax(1))) > 1
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    again = learnt(tasks, usual)
    for name, part in state.items():
        np.testing.assert_allclose(again[name], part, **CLOSE)
    np.testing.assert_allclose(neighbours.posterior(again, items, usual), expected, **CLOSE)


def test_every_item_is_kept_with_its_task():
    state = learnt(HAND, options())
    np.testing.assert_array_equal(state["items"], np.concatenate(HAND))
    np.testing.assert_array_equal(state["tasks"], [0, 0, 0, 0, 1, 1])
    assert state["reach"].shape == (2,)


def test_where_there_are_fewer_items_than_may_vote_all_vote():
    many = options(neighbours=99, none=1.0)
    np.testing.assert_allclose(neighbours.posterior(learnt(HAND, many), angles(0), many), [[4 / 6, 2 / 6, 0]], **CLOSE)


def test_no_items_have_no_posteriors():
    assert neighbours.posterior(learnt(HAND, options()), np.zeros((0, 2), np.float32), options()).shape == (0, 3)
