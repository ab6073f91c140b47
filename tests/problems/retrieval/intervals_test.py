"""Holds the bootstrap against one that draws images one by one, and against what an interval promises."""

import numpy as np
import pytest

from lpi_jax.problems import bootstrap as drawing
from lpi_jax.problems.bootstrap import bounds
from lpi_jax.problems.retrieval import intervals
from lpi_jax.problems.retrieval.intervals import NAMES, draws, final, per_image
from lpi_jax.problems.retrieval.recall import Ranked
from tests.reference import bootstrap
from tests.reference import ranks as reference

PLAIN_DRAWS = 1000


def made(seed, images=(15, 25, 20), worse=0.0):
    """Ranks of one to five queries an image, those of an image being alike; numbers of images by task."""
    rng = np.random.default_rng(seed)
    task, image, ranks = [], [], []
    for number, count in enumerate(images):
        for one in range(count):
            typical = rng.exponential(3 + worse)
            for _ in range(rng.integers(1, 6)):
                task.append(number)
                image.append(sum(images[:number]) + one)
                ranks.append(int(rng.poisson(typical)))
    return Ranked(np.array(ranks, np.int32), np.array(task, np.int32), np.array(image, np.int32))


def metrics(ranks):
    """What the metrics count of ranks, in the order of NAMES."""
    return [
        *(reference.recall_at(ranks, k) for k in (1, 5, 10)),
        reference.mean_reciprocal_rank(ranks),
    ]


def counted(found, place):
    """By task, by image: what each query counts for the metric in this place of NAMES."""
    return [
        [
            [metrics([rank])[place] for rank in found.ranks[(found.task == task) & (found.image == image)]]
            for image in np.unique(found.image[found.task == task])
        ]
        for task in np.unique(found.task)
    ]


def test_the_metrics_are_those_that_are_averages():
    assert NAMES == ("R@1", "R@5", "R@10", "MRR")


def test_sums_and_numbers_of_queries_are_by_image_in_whatever_order_the_queries_stand():
    found = Ranked(np.array([0, 7, 2, 0], np.int32), np.array([1, 0, 1, 1], np.int32), np.array([5, 2, 9, 5], np.int32))
    (first, ones), (second, counts) = per_image(found, [0, 1])
    np.testing.assert_allclose(first, [[0, 0, 100, 100 / 8]])
    np.testing.assert_allclose(second, [[200, 200, 200, 200], [0, 100, 100, 100 / 3]])
    np.testing.assert_array_equal(ones, [1])
    np.testing.assert_array_equal(counts, [2, 1])


def test_the_final_average_is_the_mean_over_tasks_of_the_metrics():
    found = made(0)
    expected = np.mean([metrics(found.ranks[found.task == task]) for task in range(3)], axis=0)
    np.testing.assert_allclose(final(found, range(3)), expected, rtol=1e-12)
    np.testing.assert_allclose(final(found, [2]), metrics(found.ranks[found.task == 2]), rtol=1e-12)


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_an_interval_is_that_of_drawing_images_one_by_one(place):
    """A quantile at 2.5 % of n draws of a normal variable has a deviation of 2.7 / sqrt(n) of the variable's."""
    found = made(1)
    (drawn,) = draws([found], range(3))
    assert drawn.shape == (drawing.DRAWS, len(NAMES))
    plain = bootstrap.draws(counted(found, place), PLAIN_DRAWS, seed=5)
    deviation = plain.std()
    known = 2.7 * deviation * np.sqrt(1 / PLAIN_DRAWS + 1 / drawing.DRAWS)
    np.testing.assert_allclose(bounds(drawn[:, place]), np.quantile(plain, [0.025, 0.975]), rtol=0, atol=4 * known)
    assert 4 * known < 0.5 * deviation  # the comparison tells something
    assert drawn[:, place].mean() == pytest.approx(plain.mean(), abs=4 * deviation * np.sqrt(1 / PLAIN_DRAWS))


def test_equal_items_give_equal_intervals():
    found = made(2)
    np.testing.assert_array_equal(*(draws([found], range(3))[0] for _ in range(2)))


def test_ways_of_ranking_are_compared_on_the_same_draws_whatever_the_order_of_their_queries():
    found, rng = made(3), np.random.default_rng(0)
    order = rng.permutation(len(found.ranks))
    one, other = draws([found, Ranked(*(part[order] for part in found))], range(3))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_method_is_above_an_equal_control_by_exactly_nothing_and_above_a_worse_one_for_sure():
    own, worse = made(4), made(4)
    worse = worse._replace(ranks=worse.ranks + np.random.default_rng(0).integers(0, 4, len(worse.ranks)))
    found = intervals.intervals(
        {"d": own, "e": worse}, {"same": {"d": own, "e": worse}, "worse": {"d": worse, "e": own}}, range(3)
    )
    assert list(found) == [f"{direction}/{name}" for direction in "de" for name in NAMES]
    for place, name in enumerate(NAMES):
        entry = found[f"d/{name}"]
        low, high = entry["interval"]
        middle = final(own, range(3))[place]
        assert low <= middle <= high
        assert entry["over"]["same"] == [0.0, 0.0, 0.0]
        assert found[f"e/{name}"]["over"]["same"] == [0.0, 0.0, 0.0]
        difference, *sides = entry["over"]["worse"]
        assert difference == pytest.approx(middle - final(worse, range(3))[place])
        assert 0 < sides[0] < difference < sides[1]
        assert sides[1] - sides[0] < high - low  # paired: what both share does not count
        assert found[f"e/{name}"]["over"]["worse"][0] == -difference


def test_without_controls_there_are_intervals_alone():
    found = intervals.intervals({"d": made(5)}, {}, range(3))
    assert all(entry["over"] == {} and len(entry["interval"]) == 2 for entry in found.values())


@pytest.mark.parametrize("place", [0, 3])
def test_an_interval_holds_the_true_average_about_as_often_as_it_says(monkeypatch, place):
    """100 galleries whose images are found with a probability of their own, which is 0.4 on the average."""
    monkeypatch.setattr(drawing, "DRAWS", 600)
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        likely = rng.beta(2, 3, size=90)
        image = np.repeat(np.arange(90), rng.integers(1, 6, 90))
        hit = rng.random(len(image)) < likely[image]
        # Missed queries rank second: R@1 is 40 % in truth, MRR 40 + 60 / 2 %.
        found = Ranked(np.where(hit, 0, 1).astype(np.int32), (image // 30).astype(np.int32), image.astype(np.int32))
        low, high = bounds(draws([found], range(3), seed)[0][:, place])
        held += low <= {0: 40.0, 3: 70.0}[place] <= high
    assert held >= 88
