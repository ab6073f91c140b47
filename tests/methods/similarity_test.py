"""Task similarity: the bundled table, what is no table, centred cosines, and which tasks count as similar."""

from pathlib import Path

import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import similarity
from tests.reference import losses as reference

COCO12 = Path(similarity.__file__).parents[1] / "assets" / "coco12_similarity.csv"
NAMES = (
    "appliance",
    "sports",
    "outdoor",
    "electronic",
    "accessory",
    "indoor",
    "kitchen",
    "furniture",
    "vehicle",
    "food",
    "animal",
    "person",
)


@pytest.fixture
def table(tmp_path):
    """text -> the path of a file that holds it."""

    def write(text):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_coco12_has_twelve_tasks_of_which_15_of_66_pairs_are_similar():
    cosines = similarity.from_table(COCO12, NAMES)
    assert cosines.shape == (12, 12)
    assert cosines.dtype == np.float32
    np.testing.assert_array_equal(cosines, cosines.T)
    np.testing.assert_array_equal(np.diagonal(cosines), 1)
    above = cosines[np.triu_indices(12, 1)] > 0.4
    assert (above.sum(), above.size) == (15, 66)
    assert cosines[NAMES.index("outdoor"), NAMES.index("indoor")] == np.float32(0.702279)


def test_the_order_is_the_streams_and_tasks_may_arrive_one_by_one():
    whole = similarity.from_table(COCO12, NAMES)
    chosen = ("person", "appliance", "food")
    rows = [NAMES.index(name) for name in chosen]
    np.testing.assert_array_equal(similarity.from_table(COCO12, chosen), whole[np.ix_(rows, rows)])
    np.testing.assert_array_equal(similarity.from_table(COCO12, chosen[:1]), [[1]])
    assert similarity.from_table(COCO12, ()).shape == (0, 0)


def test_a_table_may_have_blank_lines_and_other_tasks(table):
    path = table("task,a,b,c\n\na,1,0.5,0\nb,0.5,1,-0.25\n\nc,0,-0.25,1\n\n")
    np.testing.assert_array_equal(similarity.from_table(path, ("c", "b")), np.float32([[1, -0.25], [-0.25, 1]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a table of numbers with a header of task names"),
        ("task,a,b\na,1,x\nb,0,1\n", "is not a table of numbers"),
        ("task,a,b\na,1\nb,0,1\n", "is not a table of numbers"),
        (b"task,a\xff\n", "is not a table of numbers"),
        ("task,a,c\na,1,0\nc,0,1\n", "has no entry for task 'b'"),
        ("task,a,b\na,1,0\n", "has no entry for task 'b'"),
        ("task,a,b\na,1,0.5\nb,0.4,1\n", "says 0.5 of 'a' and 'b', expected cosines, the same in both directions"),
        ("task,a,b\na,1,2\nb,2,1\n", "says 2 of 'a' and 'b'"),
        ("task,a,b\na,1,nan\nb,nan,1\n", "says nan of 'a' and 'b'"),
    ],
)
def test_what_is_no_table_of_cosines_is_refused(table, text, message):
    path = table(text)
    with pytest.raises(UserError) as refused:
        similarity.from_table(path, ("a", "b"))
    assert str(refused.value).startswith(f"similarity table {path} ")
    assert message in str(refused.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nosuch\.csv cannot be read: No such file"):
        similarity.from_table(tmp_path / "nosuch.csv", ("a",))


def test_cosines_of_unit_vectors():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosines = similarity.cosines(features)
    assert cosines.dtype == np.float32
    np.testing.assert_allclose(np.diagonal(cosines), 1, atol=1e-6)
    np.testing.assert_allclose(cosines[1, 3], sum(features[1] * features[3]), atol=1e-6)
    np.testing.assert_allclose(similarity.cosines(features[:3]), cosines[:3, :3], atol=1e-6)


# ---- centred cosines -------------------------------------------------------------------------------------------------


def cone(tasks, width=16, seed=0):
    """Unit vectors [T, E] in a narrow cone, as CLIP's text features are: their cosines are above 0.6."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(tasks, width)) / np.sqrt(width) + 2 * np.eye(width)[0]
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    assert similarity.cosines(features).min() > 0.6
    return features


def test_centred_cosines_are_cosines_of_differences_from_the_mean():
    features = cone(5)
    centred = similarity.centred_cosines(features)
    assert (centred.dtype, centred.shape) == (np.float32, (5, 5))
    rest = features.astype(np.float64) - sum(features.astype(np.float64)) / 5
    expected = [[reference.cosine(a, b) for b in rest] for a in rest]
    np.testing.assert_allclose(centred, expected, atol=1e-6)
    assert centred.min() < 0  # not all are similar any more
    np.testing.assert_array_equal(np.diagonal(centred), 1)


def test_fewer_than_three_tasks_have_plain_cosines():
    for tasks in (1, 2):
        features = cone(tasks)
        np.testing.assert_array_equal(similarity.centred_cosines(features), similarity.cosines(features))


def test_descriptions_that_do_not_differ_have_no_direction_of_rounding():
    same = np.repeat(cone(1), 5, axis=0)
    np.testing.assert_array_equal(similarity.centred_cosines(same), np.eye(5))


# ---- which tasks count as similar ------------------------------------------------------------------------------------


def similar_to_the_newest(alike, share):
    return (alike[-1, :-1] > similarity.share_limit(alike, share)).tolist()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("tasks", [2, 3, 4, 7])
def test_the_share_of_pairs_that_count_as_similar_is_the_references(tasks, share):
    for seed in range(5):
        alike = similarity.centred_cosines(cone(tasks, seed=seed))
        assert similar_to_the_newest(alike, share) == reference.similar_by_rank(alike, share)


def test_half_of_the_pairs_count_as_similar_whatever_their_cosines():
    alike = similarity.centred_cosines(cone(12))
    for cosines in (alike, 0.9 + 0.1 * alike, 0.01 * alike):
        pairs = cosines[np.triu_indices(12, 1)]
        assert (pairs > similarity.share_limit(cosines, 0.5)).sum() == 33


def test_the_pair_of_two_tasks_counts_as_dissimilar_and_so_do_pairs_that_are_equally_alike():
    for cosine in (-0.5, 0.3, 0.99):
        assert similar_to_the_newest(np.array([[1, cosine], [cosine, 1]], np.float32), 0.5) == [False]
    assert similar_to_the_newest(np.full((4, 4), 0.7, np.float32), 0.5) == [False] * 3
    assert similarity.share_limit(np.ones((1, 1), np.float32), 0.5) == 1  # nothing to compare


def test_a_table_is_taken_as_it_is_and_descriptions_are_centred_where_ranks_count(table):
    names, features = ("a", "b", "c"), cone(3)
    path = str(table("task,a,b,c\na,1,0.9,0.8\nb,0.9,1,0.7\nc,0.8,0.7,1\n"))
    for share in (None, 0.5):
        np.testing.assert_array_equal(
            similarity.Rule(path, 0.4, share).cosines(features, names)[0], np.float32([1, 0.9, 0.8])
        )
    by_threshold, by_rank = similarity.Rule(threshold=0.3), similarity.Rule(share=0.5)
    np.testing.assert_array_equal(by_threshold.cosines(features, names), similarity.cosines(features))
    np.testing.assert_array_equal(by_rank.cosines(features, names), similarity.centred_cosines(features))
    assert by_threshold.limit(features) == 0.3
    assert by_rank.limit(by_rank.cosines(features, names)) == np.median(
        similarity.centred_cosines(features)[np.triu_indices(3, 1)]
    )


def told(rule, features, names):
    return similarity.facts({"descriptions": features}, names, rule)["remarks"]


def test_a_task_that_is_similar_to_all_earlier_ones_or_to_none_is_remarked_on(table):
    names, features = ("a", "b", "c", "d"), cone(4)
    all_similar = [
        f"task {name!r} has no earlier task that counts as dissimilar (cosine up to 0.4): nothing is pushed apart"
        for name in names[1:]
    ]
    assert told(similarity.Rule(), features, names) == all_similar
    none_similar = [
        f"task {name!r} has no earlier task that counts as similar (cosine above 0.999): nothing is drawn together"
        for name in names[1:]
    ]
    assert told(similarity.Rule(threshold=0.999), features, names) == none_similar
    path = str(table("task,a,b,c,d\na,1,0.9,0.1,0.1\nb,0.9,1,0.9,0.3\nc,0.1,0.9,1,0.2\nd,0.1,0.3,0.2,1\n"))
    assert told(similarity.Rule(path, 0.4), features, names) == [
        all_similar[0],
        none_similar[2].replace("0.999", "0.4"),
    ]
    assert told(similarity.Rule(path, 0.4), features[:1], names[:1]) == []
    unweighted = similarity.facts({"descriptions": features}, names, similarity.Rule(), 0.0)
    assert unweighted == {"similarity": similarity.cosines(features).tolist(), "remarks": []}


def test_by_rank_a_task_is_remarked_on_as_it_stood_when_it_was_trained(table):
    path = str(table("task,a,b,c\na,1,0.9,0.8\nb,0.9,1,0.1\nc,0.8,0.1,1\n"))
    remarks = told(similarity.Rule(path, share=0.5), cone(3), ("a", "b", "c"))
    # The only pair of the first two is not above itself; of three pairs a's and b's is above the middle one, not c's.
    assert [remark.split(" has ")[0] for remark in remarks] == ["task 'b'", "task 'c'"]
    assert remarks[1].endswith("counts as similar (cosine above 0.8): nothing is drawn together")


def test_without_a_rule_there_are_cosines_and_no_remarks():
    features = cone(3)
    facts = similarity.facts({"descriptions": features}, ("a", "b", "c"))
    assert facts == {"similarity": similarity.cosines(features).tolist()}
