"""What is compiled ahead of its calls: once a shape, and counted."""

import jax
import jax.numpy as jnp
import numpy as np

from lpi_jax.train.ahead import Ahead


def products(tree, scale):
    return scale * (tree["a"] @ tree["b"])


def test_a_shape_is_compiled_once_and_gives_what_the_function_gives():
    ahead, rng = Ahead(jax.jit(products)), np.random.default_rng(0)
    for rows in (3, 5, 3):
        tree = {"a": rng.normal(size=(rows, 4)).astype(np.float32), "b": rng.normal(size=(4, 2)).astype(np.float32)}
        np.testing.assert_allclose(ahead(tree, jnp.float32(2)), products(tree, 2), rtol=1e-6)
    assert len(ahead.programs) == 2


def test_operations_are_counted_with_every_call_by_the_programs_own_number():
    ahead = Ahead(jax.jit(products))
    for rows in (300, 500, 300):
        ahead({"a": jnp.ones((rows, 40)), "b": jnp.ones((40, 20))}, jnp.float32(2))
    of_products = [2 * rows * 40 * 20 + rows * 20 for rows in (300, 500, 300)]
    assert ahead.flops == sum(of_products)
    assert [program.flops for program in ahead.programs.values()] == of_products[:2]


def test_another_structure_of_the_same_leaves_is_another_program():
    ahead = Ahead(jax.jit(lambda tree: sum(jax.tree.leaves(tree))))
    assert float(ahead({"a": jnp.ones(()), "b": jnp.ones(())})) == float(ahead([jnp.ones(()), jnp.ones(())])) == 2
    assert len(ahead.programs) == 2
