"""Holds `lpi_jax.methods.lda` against the NumPy reference, which sees all items at once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.methods import lda
from lpi_jax.methods.base import PLAIN, Assigned
from lpi_jax.methods.routing import Options
from tests.reference import discriminant as reference

FEW = settings(max_examples=20, deadline=None, derandomize=True)
CLOSE = {"rtol": 0, "atol": 1e-5}
USUAL = Options(rule="lda", shrinkage=0.003, none=0.99)


def gaussians(seed, counts, width, apart=2.0):
    """Items of tasks drawn from the model itself: one covariance, a mean each. (count) -> [count, width] by task."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) / np.sqrt(width) + 0.3 * np.eye(width)
    means = apart * rng.normal(size=(len(counts), width)) / np.sqrt(width)

    def draw(numbers):
        return [
            ((mean + rng.normal(size=(number, width))) @ mixing).astype(np.float32)
            for mean, number in zip(means, numbers, strict=True)
        ]

    return draw(counts), draw


def learnt(tasks, options=USUAL):
    state = {}
    for items in tasks:
        state = lda.learnt(state, items, options)
    return state


@FEW
@given(
    seed=st.integers(0, 99),
    counts=st.lists(st.integers(8, 30), min_size=1, max_size=4),
    width=st.sampled_from([1, 2, 5]),
    shrinkage=st.sampled_from([0.003, 0.3, 1.0]),
    none=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_the_posterior_is_the_formula_computed_from_all_items_at_once(seed, counts, width, shrinkage, none):
    options = Options(rule="lda", shrinkage=shrinkage, none=none)
    tasks, draw = gaussians(seed, counts, width)
    items = np.concatenate([*draw([3] * len(counts)), 9 * draw([1] * len(counts))[0]])
    found = lda.posterior(learnt(tasks, options), items, options)
    assert (found.shape, found.dtype) == ((len(items), len(counts) + 1), np.float32)
    np.testing.assert_allclose(found, reference.posterior(tasks, items, shrinkage, none), **CLOSE)


def test_the_sums_are_those_of_all_items_in_whatever_order_the_tasks_came():
    tasks, draw = gaussians(0, [30, 5, 12, 20], 6)
    items, options = np.concatenate(draw([10] * 4)), Options(rule="lda", none=1.0)
    first = learnt(tasks, options)
    np.testing.assert_allclose(first["scatter"], reference.scatter_of(tasks), rtol=0, atol=1e-9)
    usual = lda.posterior(first, items, options)
    for order in map(list, itertools.permutations(range(4))):
        other = learnt([tasks[number] for number in order], options)
        np.testing.assert_allclose(other["scatter"], first["scatter"], rtol=0, atol=1e-9)
        for name in ("means", "counts"):
            np.testing.assert_allclose(other[name], first[name][order], rtol=0, atol=1e-9)
        np.testing.assert_allclose(lda.posterior(other, items, options), usual[:, [*order, 4]], **CLOSE)


def test_with_a_border_too_another_order_changes_nothing_between_the_tasks():
    """How far the border lies is measured when a task is the newest, and depends on those before it a little."""
    tasks, draw = gaussians(1, [300, 200, 250], 4)
    items = np.concatenate(draw([20] * 3))
    one, other = (
        lda.posterior(learnt([tasks[number] for number in order]), items, USUAL)[:, np.argsort([*order, 3])]
        for order in ([0, 1, 2], [2, 0, 1])
    )
    np.testing.assert_allclose(one[:, 3], other[:, 3], atol=0.03)
    between = [part[:, :3] / part[:, :3].sum(1, keepdims=True) for part in (one, other)]
    np.testing.assert_allclose(*between, **CLOSE)


@pytest.mark.parametrize("shrinkage", [0.0, 0.003, 1.0])
@pytest.mark.parametrize("none", [0.99, 1.0])
@pytest.mark.parametrize(
    "tasks",
    [
        pytest.param([(10, 64)] * 3, id="fewer items than dimensions"),
        pytest.param([(10, 512)] * 2, id="far fewer"),
        pytest.param([(1, 8)], id="one item"),
        pytest.param([(1, 8), (1, 8), (5, 8)], id="tasks of one item"),
        pytest.param([(7, 1), (9, 1)], id="one dimension"),
    ],
)
def test_of_few_items_the_posterior_is_finite_and_sums_to_one(tasks, none, shrinkage):
    options, rng = Options(rule="lda", shrinkage=shrinkage, none=none), np.random.default_rng(0)
    drawn = [rng.normal(size=shape).astype(np.float32) for shape in tasks]
    found = lda.posterior(learnt(drawn, options), np.concatenate([*drawn, drawn[0] + 1]), options)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert found.min() >= 0
    if none == 1:
        assert not found[:, -1].any()


@pytest.mark.parametrize("shrinkage", [0.0, 0.003])
def test_items_that_are_all_alike_belong_to_their_task(shrinkage):
    options = Options(rule="lda", shrinkage=shrinkage)
    point = np.full((5, 3), 0.5, np.float32)
    found = lda.posterior(learnt([point, point + 1], options), np.concatenate([point, point + 1]), options)
    np.testing.assert_array_equal(Assigned.of_posterior(found).ids, np.repeat([0, 1], 5))


def test_about_one_in_a_hundred_training_items_lies_beyond_the_border():
    tasks, _ = gaussians(2, [2000, 3000, 2500], 5, apart=9.0)
    ids = [Assigned.of_posterior(lda.posterior(learnt(tasks), items, USUAL)).ids for items in tasks]
    for own, found in enumerate(ids):
        assert 0.004 < np.mean(found == PLAIN) < 0.016
        assert np.mean(found == own) > 0.98


def test_of_fewer_items_than_dimensions_new_ones_of_the_same_kind_keep_their_task():
    tasks, draw = gaussians(6, [30, 30, 30], 120, apart=9.0)
    ids = Assigned.of_posterior(lda.posterior(learnt(tasks), np.concatenate(draw([50] * 3)), USUAL)).ids
    assert np.mean(ids == PLAIN) < 0.1
    assert np.mean(ids == np.repeat(range(3), 50)) > 0.85


def test_an_item_far_away_belongs_to_no_task_unless_all_must():
    tasks, _ = gaussians(3, [40, 50], 4)
    far = np.full((2, 4), 1e3, np.float32)
    np.testing.assert_array_equal(Assigned.of_posterior(lda.posterior(learnt(tasks), far, USUAL)).ids, [PLAIN] * 2)
    options = Options(rule="lda", none=1.0)
    found = lda.posterior(learnt(tasks, options), far, options)
    assert (Assigned.of_posterior(found).ids >= 0).all()
    np.testing.assert_array_equal(found[:, -1], [0, 0])


@pytest.mark.parametrize("seed", range(3))
def test_of_gaussian_items_the_most_likely_task_is_right_as_often_as_the_posterior_says(seed):
    tasks, draw = gaussians(seed, [400, 300, 500, 350], 8, apart=1.5)
    options = Options(rule="lda", none=1.0)
    numbers = [5000] * 4
    found = lda.posterior(learnt(tasks, options), np.concatenate(draw(numbers)), options)
    own = np.repeat(np.arange(4), numbers)
    right = found.argmax(1) == own
    assert right.mean() < 0.9  # tasks overlap: there is something to be unsure of
    assert abs(found.max(1).mean() - right.mean()) < 0.03
    # On the average the true task has the probability that an item drawn from the posterior itself would have.
    assert abs(found[np.arange(len(own)), own].mean() - (found**2).sum(1).mean()) < 0.03
    for low in (0.3, 0.5, 0.7, 0.9):
        some = (found.max(1) >= low) & (found.max(1) < low + 0.2)
        if some.sum() > 500:
            assert abs(found.max(1)[some].mean() - right[some].mean()) < 0.06


# Of more dimensions than items distances differ more, and the factor of their mean is a lower bound of the mean factor.
@pytest.mark.parametrize(("counts", "width", "near"), [([25, 30], 8, 0.06), ([20, 20, 20], 80, 0.12)])
def test_the_factor_k_is_how_much_farther_an_item_lies_from_a_covariance_and_a_mean_without_it(counts, width, near):
    tasks, _ = gaussians(4, counts, width)
    total, m = sum(counts), sum(counts) / (sum(counts) - len(counts))
    for shrinkage in (0.003, 0.2):
        h = reference.average(tasks, shrinkage)
        left_out = np.mean(reference.left_out_distances(tasks, shrinkage))
        assert left_out / h == pytest.approx(m**2 / (1 - (1 - shrinkage) * m * h / total), rel=near)
        assert left_out / h > 1.1  # without the factor it would be off by more


def test_nothing_that_is_kept_grows_with_the_number_of_items():
    few, many = (learnt([np.random.default_rng(0).normal(size=(count, 6))] * 3) for count in (10, 1000))
    shapes = {name: part.shape for name, part in few.items()}
    assert shapes == {"means": (3, 6), "reach": (3,), "counts": (3,), "scatter": (6, 6)}
    assert shapes == {name: part.shape for name, part in many.items()}
    kinds = {name: str(part.dtype) for name, part in many.items()}
    assert kinds == {"means": "float32", "reach": "float32", "counts": "float64", "scatter": "float64"}


def test_a_finished_tasks_numbers_keep_their_bits():
    tasks, _ = gaussians(5, [9, 12, 7], 3)
    before, after = learnt(tasks[:2]), learnt(tasks)
    for name in ("means", "reach", "counts"):
        np.testing.assert_array_equal(after[name][:2], before[name])


def test_no_items_have_no_posteriors():
    assert lda.posterior(learnt(gaussians(0, [9, 9], 3)[0]), np.zeros((0, 3), np.float32), USUAL).shape == (0, 3)
