"""Holds `lpi_jax.methods.interaction` against the NumPy reference: both forms, and what the second keeps."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.methods import interaction as interactions
from lpi_jax.methods import lpi
from lpi_jax.methods.base import Site
from tests.reference import prompts as reference
from tests.train.gradients_test import check

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SMALL = {"layers": 3, "depth": 2, "length": 4, "rank": 2}
SITES = {"vision": Site(layers=3, width=10, room=16), "text": Site(layers=3, width=6, room=16)}


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def reference_maps(maps):
    """The package's maps under the reference's names."""
    names = {"E1": "layer", "E2": "source", "E3": "target"}
    pairs = {"visual_to_textual": "to_text", "textual_to_visual": "to_vision"}
    return {ours: {e: maps[theirs][name] for e, name in names.items()} for ours, theirs in pairs.items()}


def to_mix(seed):
    """Maps, visual and textual prompts of three layers."""
    rng = np.random.default_rng(seed)

    def maps(source, target):
        shapes = {"layer": (3, 2), "source": (source + 1, 2), "target": (target, 2)}
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    both = {"to_text": maps(10, 6), "to_vision": maps(6, 10)}
    visual = rng.normal(size=(3, 4, 10)).astype(np.float32)
    textual = rng.normal(size=(3, 4, 6)).astype(np.float32)
    return both, visual, textual


interact = jax.jit(interactions.interact, static_argnums=3)


def rms(rows):
    return np.sqrt((np.asarray(rows, np.float64) ** 2).mean(-1))


@FEW
@given(seed=st.integers(0, 2**32 - 1))
def test_interaction_is_the_references(seed):
    both, visual, textual = to_mix(seed)
    mixed = interact(both, visual, textual, "norm")
    chex.assert_shape(mixed, [(3, 4, 10), (3, 4, 6)])
    chex.assert_trees_all_close(mixed, reference.interact(visual, textual, reference_maps(both)), rtol=1e-5, atol=1e-5)


@FEW
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.06, 1.0]))
def test_residual_interaction_is_the_references(seed, spread):
    both, visual, textual = to_mix(seed)
    visual, textual = np.float32(spread) * visual, np.float32(spread) * textual
    mixed = interact(both, visual, textual, "residual")
    expected = reference.interact_residually(visual, textual, reference_maps(both))
    chex.assert_trees_all_close(mixed, expected, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_residual_interaction():
    both, visual, textual = in_float64(to_mix(1))
    names = ("layer", "source", "target")
    weights = [np.random.default_rng(2 + n).normal(size=prompts.shape) for n, prompts in enumerate((visual, textual))]

    def scalar(interact, maps_of, p):
        maps = {way: {name: p[f"{way}.{name}"] for name in names} for way in ("to_text", "to_vision")}
        mixed = interact(p["visual"], p["textual"], maps_of(maps))
        return sum((w * m).sum() for w, m in zip(weights, mixed, strict=True))

    point = {"visual": visual, "textual": textual}
    point |= {f"{way}.{name}": both[way][name] for way in both for name in names}
    with jax.enable_x64(True):
        check(
            lambda p: scalar(lambda v, x, maps: interactions.interact(maps, v, x, "residual"), lambda maps: maps, p),
            lambda p: scalar(reference.interact_residually, reference_maps, p),
            point,
        )


def test_residual_interaction_keeps_the_size_of_every_row_and_the_first_layer_where_norm_leaves_rows_of_one():
    both, visual, textual = to_mix(2)
    for small in (0.06, 1.0):
        given_ = np.float32(small) * visual, np.float32(small) * textual
        mixed, normed = (interact(both, *given_, form) for form in ("residual", "norm"))
        for before, after, one in zip(given_, mixed, normed, strict=True):
            np.testing.assert_allclose(rms(after), rms(before), rtol=1e-4)
            np.testing.assert_array_equal(after[0], before[0])
            assert np.abs(after[1:] - before[1:]).max() > 1e-2
            np.testing.assert_allclose(rms(one), 1, rtol=0.1)


def test_residual_interaction_begins_as_the_identity_to_the_last_bit_and_leaves_it_at_once():
    options = lpi.Options(**SMALL, interaction=True, interaction_form="residual")
    trainable = lpi.init(options, SITES, jax.random.key(1))
    alone = {"factors": trainable["factors"]}
    mixed, plain = (jax.jit(lpi.mixed, static_argnums=0)(options, tree) for tree in (trainable, alone))
    chex.assert_trees_all_equal(mixed, plain)
    gradient = jax.grad(lambda tree: lpi.mixed(options, tree)[0].sum())(trainable)["interaction"]
    assert np.abs(gradient["to_vision"]["target"]).max() > 1e-3


def test_both_forms_of_interaction_draw_the_same_numbers_but_for_targets_of_zero():
    norm, residual = (
        lpi.init(lpi.Options(**SMALL, interaction=True, interaction_form=form), SITES, jax.random.key(2))
        for form in ("norm", "residual")
    )
    for way in ("to_text", "to_vision"):
        assert not np.any(residual["interaction"][way].pop("target"))
        assert np.all(norm["interaction"][way].pop("target"))
    chex.assert_trees_all_equal(norm, residual)


def test_rows_of_zero_stay_small_in_a_residual_interaction_and_have_finite_gradients():
    both, visual, textual = to_mix(3)
    visual[1, 2] = 0
    mixed = interact(both, visual, textual, "residual")
    assert np.abs(mixed[0][1, 2]).max() < 1e-5
    for maps in (both, jax.tree.map(np.zeros_like, both)):
        gradient = jax.grad(lambda *p: sum(m.sum() for m in interactions.interact(*p, "residual")), argnums=(0, 1, 2))(
            maps, visual, textual
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_an_unknown_form_of_interaction_is_named():
    with pytest.raises(ValueError, match=r"'both', expected 'norm' or 'residual'"):
        interactions.interact(*to_mix(0), "both")
