"""Holds `lpi_jax.methods.kmeans` against the NumPy reference."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lpi_jax.methods import kmeans
from lpi_jax.methods.base import Assigned
from tests.reference import clustering as reference

FEW = settings(max_examples=30, deadline=None, derandomize=True)
small = st.integers(-3, 3)  # float32 sums of small integers are exact, so ties are true ties


def unit_rows(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def groups(seed, count=5, each=20, width=6):
    """Well separated groups: points [count * each, width] shuffled, and their true centres."""
    rng = np.random.default_rng(seed)
    middles = 10 * rng.permutation(np.eye(width))[:count]
    points = np.repeat(middles, each, axis=0) + 0.1 * rng.normal(size=(count * each, width))
    return rng.permutation(points).astype(np.float32), middles


# --------------------------------------------------------------------------------------------------------- assignment


def assigned(features, centres, known=None):
    """What is said of items of one side under centres [T, K, E]."""
    return kmeans.assigned({"centres": centres} if len(centres) else {}, features, known)


def joined_by(known, count):
    """What is known of some items, and of `count` more that have met no task yet."""
    parts = zip(known[:3], Assigned.nowhere(count)[:3], strict=True)
    return Assigned(*map(np.concatenate, parts), posterior=None)  # which is made anew each time


def route(features, centres):
    return assigned(features, centres).ids


@FEW
@given(
    features=hnp.arrays(np.float32, (9, 3), elements=small),
    centres=hnp.arrays(np.float32, (4, 2, 3), elements=small),
)
def test_route_is_the_references_with_ties_to_the_earlier_task(features, centres):
    np.testing.assert_array_equal(route(features, centres), reference.route(features, centres))


@pytest.mark.parametrize("chunk", [1, 7, 50, 51])
def test_route_does_not_depend_on_the_chunk_size(monkeypatch, chunk):
    rng = np.random.default_rng(0)
    features, centres = unit_rows(rng.normal(size=(50, 8))), unit_rows(rng.normal(size=(3, 5, 8)))
    monkeypatch.setattr(kmeans, "CHUNK", chunk)
    tasks = route(features, centres)
    chex.assert_shape(tasks, (50,))
    np.testing.assert_array_equal(tasks, reference.route(features, centres))
    assert set(tasks) == {0, 1, 2}


def test_route_measures_in_l1_and_not_in_l2():
    centres = np.array([[[3.0, 0.0]], [[2.0, 2.0]]], np.float32)
    np.testing.assert_array_equal(route(np.zeros((1, 2), np.float32), centres), [0])


def test_route_with_one_task_seen_always_chooses_it():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(route(rng.normal(size=(4, 3)), rng.normal(size=(1, 2, 3))), [0] * 4)


def test_a_task_to_come_never_changes_the_distances_to_earlier_ones():
    rng = np.random.default_rng(1)
    features, centres = unit_rows(rng.normal(size=(40, 8))), unit_rows(rng.normal(size=(4, 5, 8)))
    before, after = route(features, centres[:3]), route(features, centres)
    np.testing.assert_array_equal(before[after < 3], after[after < 3])


def test_without_a_task_items_are_sent_nowhere():
    found = assigned(np.ones((3, 2), np.float32), np.zeros((0, 1, 2), np.float32))
    np.testing.assert_array_equal(found.ids, [-1] * 3)
    np.testing.assert_array_equal(found.compared, [0] * 3)


@FEW
@given(
    features=hnp.arrays(np.float32, (9, 3), elements=small),
    centres=hnp.arrays(np.float32, (5, 2, 3), elements=small),
    arrivals=st.lists(st.integers(0, 9), min_size=5, max_size=5),
)
def test_items_that_arrive_in_parts_are_assigned_as_all_at_once(features, centres, arrivals):
    """What was said before is taken over, also of items that have met other numbers of tasks, and is not changed."""
    known = Assigned.nowhere(0)
    for tasks, arrived in enumerate(np.maximum.accumulate(arrivals), 1):
        known = joined_by(known, arrived - len(known.ids))
        before = [part.copy() for part in known[:3]]
        now = assigned(features[:arrived], centres[:tasks], known)
        for part, kept in zip(known[:3], before, strict=True):
            np.testing.assert_array_equal(part, kept)
        for part, afresh in zip(now[:4], assigned(features[:arrived], centres[:tasks])[:4], strict=True):
            np.testing.assert_array_equal(part, afresh)
            assert part.dtype == afresh.dtype
        np.testing.assert_array_equal(now.ids, reference.route(features[:arrived], centres[:tasks]))
        known = now


def test_an_item_is_compared_with_each_task_only_once(monkeypatch):
    rng, met = np.random.default_rng(0), []
    features, centres = unit_rows(rng.normal(size=(6, 8))), unit_rows(rng.normal(size=(4, 2, 8)))

    def noted(items, of_task):
        task = next(number for number, own in enumerate(centres) if np.array_equal(own, of_task))
        met.extend((task, item.tobytes()) for item in items)
        return distances(items, of_task)

    distances = kmeans.distances
    monkeypatch.setattr(kmeans, "distances", noted)
    known = assigned(features[:4], centres[:1])
    known = assigned(features[:4], centres[:3], known)
    assigned(features, centres, joined_by(known, 2))
    assert len(met) == len(set(met)) == 6 * 4


def test_an_item_belongs_wholly_to_the_task_that_it_is_assigned():
    rng = np.random.default_rng(0)
    found = assigned(unit_rows(rng.normal(size=(20, 8))), unit_rows(rng.normal(size=(3, 2, 8))))
    assert found.posterior.dtype == np.float32
    np.testing.assert_array_equal(found.posterior, [[float(task == own) for task in range(4)] for own in found.ids])
    nowhere = assigned(np.ones((3, 2), np.float32), np.zeros((0, 1, 2), np.float32))
    np.testing.assert_array_equal(nowhere.posterior, np.ones((3, 1)))


def test_no_queries_give_no_tasks():
    assert route(np.zeros((0, 3), np.float32), np.zeros((2, 5, 3), np.float32)).shape == (0,)


# ------------------------------------------------------------------------------------------------------------ k-means


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_finds_groups_that_stand_apart(seed):
    points, _ = groups(seed)
    centres = kmeans.kmeans(points, 5, seed)
    chex.assert_shape(centres, (5, 6))
    assert centres.dtype == np.float32
    nearest = reference.assign(points, centres)
    assert sorted(np.bincount(nearest, minlength=5)) == [20] * 5
    np.testing.assert_allclose(centres, [points[nearest == k].mean(axis=0) for k in range(5)], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_ends_where_lloyds_iteration_stands_still(seed):
    points = unit_rows(np.random.default_rng(seed).normal(size=(60, 4)))
    centres = kmeans.kmeans(points, 5, seed)
    np.testing.assert_allclose(reference.lloyd(points, centres, 1), centres, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_is_as_good_as_plain_lloyd_from_ten_random_starts(seed):
    points, rng = unit_rows(np.random.default_rng(seed).normal(size=(40, 2))), np.random.default_rng(100 + seed)
    plain = [
        reference.inertia(points, reference.lloyd(points, points[rng.choice(40, 4, False)], 20)) for _ in range(10)
    ]
    assert reference.inertia(points, kmeans.kmeans(points, 4, seed)) <= 1.02 * min(plain)


@FEW
@given(
    points=hnp.arrays(np.float64, (8, 2), elements=small),
    start=hnp.arrays(np.float64, (3, 2), elements=small, unique=True),
)
def test_lloyd_from_given_centres_is_the_references_empty_clusters_included(points, start):
    centres, inertia = kmeans._lloyd(kmeans._Points(points), start)
    expected = reference.lloyd(points, start, 50)
    np.testing.assert_allclose(inertia, reference.inertia(points, expected), atol=1e-9)
    np.testing.assert_allclose(centres, expected, atol=1e-9)


def plain_kmeans(points, k, seed, restarts=10):
    """k-means++ and Lloyd's iteration in plain words: distances from differences, means one by one, every restart."""
    points, rng, runs = np.asarray(points, np.float64), np.random.default_rng(seed), []
    for _ in range(restarts):
        centres = points[rng.integers(len(points))][None]
        while len(centres) < k:
            weight = ((points[:, None] - centres[None]) ** 2).sum(-1).min(1)
            centres = np.concatenate([centres, points[rng.choice(len(points), p=weight / weight.sum())][None]])
        centres = reference.lloyd(points, centres, 60)
        runs.append((reference.inertia(points, centres), centres))
    return min(runs, key=lambda run: run[0])[1]


@pytest.mark.parametrize("seed", range(3))
def test_fewer_restarts_and_products_in_place_of_differences_give_the_centres_of_ten_plain_restarts(seed):
    points = groups(seed)[0]
    np.testing.assert_allclose(kmeans.kmeans(points, 5, seed), plain_kmeans(points, 5, seed), atol=1e-6)


def counted_restarts(monkeypatch, points, k):
    """How often k-means begins anew; a run on all points after those on a sample has no start of its own."""
    starts, spread = [], kmeans._spread_start
    monkeypatch.setattr(kmeans, "_spread_start", lambda *given: (starts.append(1), spread(*given))[1])
    kmeans.kmeans(points, k, 0)
    return len(starts)


def test_restarts_end_once_three_agree_and_go_on_where_they_do_not(monkeypatch):
    points, _ = groups(0)
    assert counted_restarts(monkeypatch, points, 5) < 10
    many = unit_rows(np.random.default_rng(0).normal(size=(400, 16)))  # no groups: every start ends elsewhere
    assert counted_restarts(monkeypatch, many, 20) == 10


def test_of_many_points_restarts_see_a_sample_and_all_decide(monkeypatch):
    monkeypatch.setattr(kmeans, "RESTART_POINTS", 100)
    points = np.concatenate([groups(0)[0]] * 4)
    seen, spread = [], kmeans._spread_start
    monkeypatch.setattr(
        kmeans, "_spread_start", lambda few, *given: (seen.append(len(few.points)), spread(few, *given))[1]
    )
    centres = kmeans.kmeans(points, 5, 0)
    assert set(seen) == {100}
    assert len(points) == 400
    np.testing.assert_allclose(reference.lloyd(points, centres, 1), centres, atol=1e-6)
    np.testing.assert_array_equal(centres, kmeans.kmeans(points, 5, 0))


def test_equal_seeds_give_equal_centres():
    points = unit_rows(np.random.default_rng(0).normal(size=(50, 8)))
    np.testing.assert_array_equal(kmeans.kmeans(points, 5, 3), kmeans.kmeans(points, 5, 3))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_few_points_as_centres_or_fewer_become_centres_themselves(count):
    points = unit_rows(np.random.default_rng(0).normal(size=(count, 4)))
    centres = kmeans.kmeans(points, 5, 0)
    chex.assert_shape(centres, (5, 4))
    assert np.isfinite(centres).all()
    assert reference.inertia(points, centres) < 1e-12


def test_points_all_alike_have_that_point_for_centres():
    centres = kmeans.kmeans(np.full((7, 3), 0.5, np.float32), 5, 0)
    np.testing.assert_array_equal(centres, np.full((5, 3), 0.5, np.float32))


def test_separate_tasks_route_to_themselves():
    rng = np.random.default_rng(0)
    middles = unit_rows(rng.normal(size=(3, 16)))
    items = [unit_rows(middle + 0.05 * rng.normal(size=(30, 16))) for middle in middles]
    centres = np.stack([kmeans.kmeans(own, 5, t) for t, own in enumerate(items)])
    np.testing.assert_array_equal(route(np.concatenate(items), centres), np.repeat(np.arange(3), 30))
