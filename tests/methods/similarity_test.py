"""Task similarity: the bundled table is COCO-12's, and a table that is not one is refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import similarity

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
