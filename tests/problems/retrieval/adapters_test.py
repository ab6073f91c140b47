"""Items under different adapters are encoded in as few groups as can be, and each adapter is made once."""

import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.methods.base import Method, Options
from lpi_jax.problems.retrieval.adapters import Adapters, encoded
from lpi_jax.types import Adapter

FROZEN = {"weight": jnp.ones(2)}
IDS = np.array([2, -1, 0, 2, -1, 5], np.int32)


def adapters(**changes):
    """Adapters of a memory of tables [L, P, D] by task, and the ids that were asked for."""
    asked, memory = [], {"tables": np.arange(6, dtype=np.float32)[:, None, None, None] + np.zeros((1, 2, 3))}

    def view(memory, number):
        asked.append(number)
        return {"prompts": memory["tables"][number]}, {"of": number}

    def adapt(trainable, constants, frozen, queries):
        return Adapter(frozen, {"vision": jnp.asarray(trainable["prompts"])}), None

    method = Method("toy", Options(), None, adapt, None, view)._replace(**changes)
    return Adapters(method, memory, FROZEN), asked


def test_prompted_items_share_one_group_and_plain_ones_another():
    made, asked = adapters()
    plain, prompted = made.groups("vision", IDS)
    assert plain.plain(FROZEN) and not prompted.plain(FROZEN)
    np.testing.assert_array_equal(plain.rows, [1, 4])
    np.testing.assert_array_equal(prompted.rows, [0, 2, 3, 5])
    assert len(prompted.table) == 16  # room for more: one shape while tasks arrive
    np.testing.assert_array_equal(np.asarray(prompted.table)[prompted.chosen][:, 0, 0, 0], [2, 0, 2, 5])
    list(made.groups("vision", IDS))
    assert sorted(asked) == [0, 2, 5]  # each was made once


def test_a_side_without_prompts_and_with_the_frozen_weights_is_plain():
    made, _ = adapters()
    groups = list(made.groups("text", IDS))
    assert sorted(np.concatenate([group.rows for group in groups])) == list(range(6))
    assert all(group.plain(FROZEN) for group in groups)


def test_adapters_of_other_weights_have_a_group_each():
    def adapt(trainable, constants, frozen, queries):
        return Adapter({"weight": frozen["weight"] * constants["of"]}, {}), None

    made, _ = adapters(adapt=adapt)
    plain, *others = made.groups("vision", IDS)
    np.testing.assert_array_equal(plain.rows, [1, 4])
    assert [(group.rows.tolist(), float(group.params["weight"][0])) for group in others] == [
        ([2], 0.0),
        ([0, 3], 2.0),
        ([5], 5.0),
    ]
    assert all(group.table is None and not group.plain(FROZEN) for group in others)


def test_adapters_that_follow_the_item_have_a_group_each_with_what_makes_them():
    made, _ = adapters(wants_queries=True)
    plain, *others = made.groups("vision", IDS)
    assert plain.plain(FROZEN)
    assert [(group.rows.tolist(), group.tuned[1]["of"]) for group in others] == [([2], 0), ([0, 3], 2), ([5], 5)]
    assert not any(group.plain(FROZEN) for group in others)


@pytest.mark.parametrize("ids", [np.full(3, -1), np.array([], int)])
def test_nothing_is_made_where_nothing_is_adapted(ids):
    made, asked = adapters()
    features = np.random.default_rng(0).normal(size=(len(ids), 4)).astype(np.float32)
    found = encoded(features, ids, made, "vision", lambda rows, group: pytest.fail("plain items are not encoded"))
    np.testing.assert_array_equal(found, features)
    assert found is not features and not asked


def test_each_item_gets_the_features_of_its_group():
    made, _ = adapters()
    features = np.zeros((6, 1), np.float32)

    def encode(rows, group):
        return np.asarray(group.table)[group.chosen][:, 0, 0, :1] + 10 * rows[:, None]

    found = encoded(features, IDS, made, "vision", encode)
    np.testing.assert_array_equal(found[:, 0], [2, 0, 20, 32, 0, 55])
