"""LoRA against NumPy: the merged weights, their gradients, the initial values, and what is no matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import leaves, lora

SHAPES = {"a/kernel": (5, 4), "b/kernel": (2, 2, 3, 6), "c/bias": (4,)}
OPTIONS = lora.Options(where="kernel", rank=3, scale=6.0)


def drawn(shapes, seed):
    rng = np.random.default_rng(seed)
    return leaves.nested({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()})


@pytest.fixture
def frozen():
    return drawn(SHAPES, 0)


@pytest.fixture
def trained():
    return drawn({"a/kernel/a": (5, 3), "a/kernel/b": (3, 4), "b/kernel/a": (12, 3), "b/kernel/b": (3, 6)}, 1)


def in_numpy(frozen, trained):
    """W + (6 / 3) A B, in double precision; the patches' kernel as the matrix of its 12 inputs."""
    own, low = (leaves.flat(jax.tree.map(np.float64, tree)) for tree in (frozen, trained))
    for path in ("a/kernel", "b/kernel"):
        own[path] = own[path] + 2 * (low[f"{path}/a"] @ low[f"{path}/b"]).reshape(SHAPES[path])
    return own


def test_the_merged_weights_are_numpys(frozen, trained):
    found = leaves.flat(lora.in_place(OPTIONS, trained, frozen))
    assert found["c/bias"] is frozen["c"]["bias"]
    for path, expected in in_numpy(frozen, trained).items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-5, atol=1e-5)


def test_the_gradients_are_numpys(frozen, trained):
    """Of sum(G W'): (scale / rank) G Bᵀ for A and (scale / rank) Aᵀ G for B."""
    towards = leaves.flat(drawn(SHAPES, 2))

    def loss(trained):
        merged = leaves.flat(lora.in_place(OPTIONS, trained, frozen))
        return sum(jnp.sum(towards[path] * merged[path]) for path in towards)

    found, low = leaves.flat(jax.grad(loss)(trained)), leaves.flat(trained)
    for path in ("a/kernel", "b/kernel"):
        G = towards[path].reshape(-1, SHAPES[path][-1])
        np.testing.assert_allclose(found[f"{path}/a"], 2 * G @ low[f"{path}/b"].T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[f"{path}/b"], 2 * low[f"{path}/a"].T @ G, rtol=1e-4, atol=1e-5)


def test_it_begins_as_the_backbone_with_random_a_and_zero_b():
    frozen = drawn({"a/kernel": (400, 50), "b/kernel": (100, 7)}, 0)
    new = lora.init(lora.Options(where="kernel", rank=8), frozen, jax.random.key(0))
    jax.tree.map(
        np.testing.assert_array_equal, lora.in_place(lora.Options(where="kernel", rank=8), new, frozen), frozen
    )
    low = leaves.flat(new)
    assert low["a/kernel/a"].std() == pytest.approx(400**-0.5, rel=0.05)
    assert low["b/kernel/a"].std() == pytest.approx(100**-0.5, rel=0.1)
    assert {path: leaf.shape for path, leaf in low.items() if path.endswith("/b")} == {
        "a/kernel/b": (8, 50),
        "b/kernel/b": (8, 7),
    }
    other = leaves.flat(lora.init(lora.Options(where="kernel", rank=8), frozen, jax.random.key(1)))
    assert np.abs(other["a/kernel/a"] - low["a/kernel/a"]).max() > 0.01


def test_what_is_no_matrix_is_refused(frozen):
    sentence = (
        r"^config.method.where is 'a\|bias', which is found in 'c/bias', a parameter of shape \[4\]; expected matr"
    )
    with pytest.raises(UserError, match=sentence):
        lora.build(lora.Options(where="a|bias"), {}, None).fits(frozen)
