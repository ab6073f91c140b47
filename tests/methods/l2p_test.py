"""L2P against NumPy: which prompts an item gets, the loss of their keys, and what trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import l2p, routing
from lpi_jax.methods.base import Site
from tests.reference.gradients import finite_differences

SITES = {"vision": Site(2, 6, 16), "text": Site(2, 5, 74)}
OPTIONS = l2p.Options(pool=4, prompt_length=2, chosen=2, key_weight=0.5)
WIDTH, ITEMS = 3, 5


@pytest.fixture(scope="module")
def method():
    return l2p.build(OPTIONS, SITES, routing.Options())


@pytest.fixture(scope="module")
def pools():
    """Trainable pools far from ties, and queries of both sides; the last key is near to nobody."""
    rng = np.random.default_rng(0)

    def positive(rows):
        return np.abs(rng.normal(size=(rows, WIDTH))).astype(np.float32)

    tree = {
        name: {
            "keys": np.concatenate([positive(3), np.full((1, WIDTH), -1, np.float32)]),
            "prompts": rng.normal(size=(4, 2, site.width)).astype(np.float32),
        }
        for name, site in SITES.items()
    }
    return tree, {side: positive(ITEMS) for side in l2p.SITES}


def cosines(keys, queries):
    """[B, M] float64."""
    keys, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (keys, queries))
    return queries.astype(np.float64) @ keys.T


def picked(keys, queries):
    """[B, 2] int: the two nearest keys in the order of the pool."""
    return np.sort(np.argsort(-cosines(keys, queries), 1)[:, :2], 1)


def test_an_item_gets_the_prompts_of_the_nearest_keys_in_the_order_of_the_pool():
    pool = {
        "keys": np.array([[0, 2], [1, 1], [-1, 0], [5, 0]], np.float32),
        "prompts": np.arange(16, dtype=np.float32).reshape(4, 2, 2),
    }
    # (1, 0) has cosines 0, 0.71, -1, 1 with the keys; (-1, 3): 0.95, 0.45, 0.32, -0.32. Their lengths do not count.
    prompts, near = l2p.select(pool, np.array([[1, 0], [-1, 3]], np.float32), 2)
    assert prompts.shape == (2, 1, 4, 2)
    np.testing.assert_array_equal(prompts[0, 0, :, 0], [4, 6, 12, 14])
    np.testing.assert_array_equal(prompts[1, 0, :, 0], [0, 2, 4, 6])
    np.testing.assert_allclose(near, [[0.5**0.5, 1], [3 / 10**0.5, 2 / 20**0.5]], rtol=1e-6)


def test_both_towers_have_pools_of_their_own_and_one_side_alone_is_served_alone(method, pools):
    trainable, queries = pools
    adapter, aux = method.adapt(trainable, {}, "frozen", queries)
    assert adapter.params == "frozen"
    for side, site in l2p.SITES.items():
        chosen = picked(trainable[site]["keys"], queries[side])
        expected = trainable[site]["prompts"][chosen].reshape(ITEMS, 1, 4, -1)
        np.testing.assert_array_equal(adapter.prompts[site], expected)
        alone, _ = method.adapt(trainable, {}, "frozen", {side: queries[side]})
        assert alone.prompts.keys() == {site}
        np.testing.assert_array_equal(alone.prompts[site], expected)
    expected = [
        1
        - np.take_along_axis(
            cosines(trainable[site]["keys"], queries[side]), picked(trainable[site]["keys"], queries[side]), 1
        )
        for side, site in l2p.SITES.items()
    ]
    terms = method.losses(trainable, {}, aux, None, None, None)
    assert terms.keys() == {"keys"}
    np.testing.assert_allclose(terms["keys"], 0.5 * np.mean([rows.sum(1).mean() for rows in expected]), rtol=1e-5)


def test_the_gradient_reaches_chosen_prompts_and_keys_and_nothing_else(method, pools):
    """Finite differences of the same loss by NumPy, with the choice held still."""
    trainable, queries = pools
    weights = {name: np.random.default_rng(1).normal(size=(ITEMS, 4, site.width)) for name, site in SITES.items()}

    def loss(tree):
        adapter, aux = method.adapt(tree, {}, None, queries)
        asked = sum((adapter.prompts[site][:, 0] ** 2 * weights[site]).sum() for site in SITES)
        return asked + method.losses(tree, {}, aux, None, None, None)["keys"]

    chosen = {site: picked(trainable[site]["keys"], queries[side]) for side, site in l2p.SITES.items()}

    def by_numpy(flat):
        total = 0.0
        for side, site in l2p.SITES.items():
            own = {name.split("/")[1]: leaf for name, leaf in flat.items() if name.startswith(site)}
            total += (own["prompts"][chosen[site]].reshape(ITEMS, 4, -1) ** 2 * weights[site]).sum()
            near = np.take_along_axis(cosines(own["keys"], queries[side]), chosen[site], 1)
            total += 0.5 * (1 - near).sum(1).mean() / 2
        return total

    flat = {
        f"{site}/{name}": leaf.astype(np.float64) for site, pool in trainable.items() for name, leaf in pool.items()
    }
    expected = finite_differences(by_numpy, flat)
    gradient = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, trainable))
    for name, leaf in expected.items():
        site, part = name.split("/")
        np.testing.assert_allclose(gradient[site][part], leaf, rtol=1e-3, atol=1e-4, err_msg=name)
        assert not np.any(gradient[site][part][3])  # which nobody chose
        assert np.all(np.any(gradient[site][part][chosen[site]], axis=-1))


def test_a_pool_trains_74240_numbers_at_clip_b16_and_18560_at_the_bundled_backbone():
    for widths, embedding, expected in (((768, 512), 512, 74_240), ((192, 128), 128, 18_560)):
        sites = {"vision": Site(12, widths[0], 36), "text": Site(12, widths[1], 74)}
        tree = jax.eval_shape(lambda s=sites, e=embedding: l2p.init(l2p.Options(), s, e, jax.random.key(0)))
        count = sum(leaf.size for leaf in jax.tree.leaves(tree))
        assert count == 10 * (5 * sum(widths) + 2 * embedding) == expected
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(np.float32)}


def test_pools_begin_small_and_different_and_as_the_key_says():
    sites = {"vision": Site(4, 192, 36), "text": Site(4, 128, 74)}
    begin = jax.jit(lambda seed: l2p.init(l2p.Options(), sites, 128, jax.random.key(seed)))
    one, same, other = (jax.tree.map(np.asarray, begin(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    for site, pool in one.items():
        assert abs(pool["prompts"].std() - 0.02) < 0.001
        assert abs(np.linalg.norm(pool["keys"], axis=1) - 1).max() < 0.3
        assert (pool["prompts"] != other[site]["prompts"]).any()
    assert (one["vision"]["keys"] != one["text"]["keys"]).any()


def test_what_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"^config\.method\.chosen is 5, expected at most config\.method\.pool, 4$"):
        l2p.Options(pool=4, chosen=5)
    with pytest.raises(UserError, match=r"the vision tower has room for 16 prompt tokens; expected a product of at"):
        l2p.build(l2p.Options(), SITES, routing.Options())
    assert l2p.build(OPTIONS, SITES, routing.Options()).reserve == {"vision": 4, "text": 4}
