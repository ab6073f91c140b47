"""Holds `lpi_jax.methods.lpi` against the NumPy reference: expansion, interaction, counts, and the loss of a task."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.methods import lpi
from lpi_jax.methods.base import Features, Finished
from tests.reference import gradients
from tests.reference import losses as reference_losses
from tests.reference import prompts as reference

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SMALL = {"vision_width": 10, "text_width": 6, "layers": 3, "depth": 2, "length": 4, "rank": 2}
CLIP_B16 = lpi.LPI(vision_width=768, text_width=512)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def reference_maps(maps):
    """The package's maps under the reference's names."""
    names = {"E1": "layer", "E2": "source", "E3": "target"}
    pairs = {"visual_to_textual": "to_text", "textual_to_visual": "to_vision"}
    return {ours: {e: maps[theirs][name] for e, name in names.items()} for ours, theirs in pairs.items()}


def reference_prompts(trainable):
    visual, textual = reference.expand(trainable["factors"])
    if "interaction" in trainable:
        return reference.interact(visual, textual, reference_maps(trainable["interaction"]))
    return visual, textual


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def draw(options, seed):
    """A trainable tree of `init`'s shapes, drawn by NumPy."""
    rng, shapes = np.random.default_rng(seed), jax.eval_shape(lambda: lpi.init(options, jax.random.key(0)))
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes)


# -------------------------------------------------------------------------------------------------------- expansion


@FEW
@given(seed=st.integers(0, 2**32 - 1))
def test_expand_is_the_references(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "layer": (3, 2),
        "token_visual": (4, 2),
        "token_textual": (4, 2),
        "width_visual": (10, 2),
        "width_textual": (6, 2),
    }
    factors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    visual, textual = jax.jit(lpi.expand)(factors)
    chex.assert_shape((visual, textual), [(3, 4, 10), (3, 4, 6)])
    chex.assert_trees_all_close((visual, textual), reference.expand(factors), rtol=1e-5, atol=1e-6)


def test_stacked_tasks_expand_as_they_do_one_by_one():
    tasks = [draw(lpi.LPI(**SMALL), t) for t in range(3)]
    visual, textual = jax.jit(lpi.expand)(stack(tasks)["factors"])
    chex.assert_shape((visual, textual), [(3, 3, 4, 10), (3, 3, 4, 6)])
    for t, task in enumerate(tasks):
        chex.assert_trees_all_close((visual[t], textual[t]), reference_prompts(task), rtol=1e-5, atol=1e-6)


def test_expanded_prompts_have_the_widths_of_clip_b16():
    visual, textual = lpi.expand(draw(CLIP_B16, 0)["factors"])
    chex.assert_shape((visual, textual), [(9, 16, 768), (9, 16, 512)])
    chex.assert_type((visual, textual), jnp.float32)


# ------------------------------------------------------------------------------------------------------ interaction


@FEW
@given(seed=st.integers(0, 2**32 - 1))
def test_interaction_is_the_references(seed):
    rng = np.random.default_rng(seed)

    def maps(source, target):
        shapes = {"layer": (3, 2), "source": (source + 1, 2), "target": (target, 2)}
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    both = {"to_text": maps(10, 6), "to_vision": maps(6, 10)}
    visual = rng.normal(size=(3, 4, 10)).astype(np.float32)
    textual = rng.normal(size=(3, 4, 6)).astype(np.float32)
    mixed = jax.jit(lpi.interact)(both, visual, textual)
    chex.assert_shape(mixed, [(3, 4, 10), (3, 4, 6)])
    chex.assert_trees_all_close(mixed, reference.interact(visual, textual, reference_maps(both)), rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------- counts, initial values


def test_a_task_trains_5284_numbers_at_clip_b16_and_twelve_tasks_63408():
    one = draw(CLIP_B16, 0)
    assert count(one) == 5_284
    assert count(stack([one] * 12)) == 63_408
    assert count(lpi.expand(one["factors"])) == 184_320
    chex.assert_shape(
        [one["factors"][n] for n in ("layer", "token_visual", "token_textual", "width_visual", "width_textual")],
        [(9, 4), (16, 4), (16, 4), (768, 4), (512, 4)],
    )


def test_interaction_adds_two_rank_r_affine_maps():
    plain, mixed = (count(draw(lpi.LPI(**SMALL, interaction=on), 0)) for on in (False, True))
    assert mixed - plain == 2 * 3 * 2 + (10 + 1 + 6) * 2 + (6 + 1 + 10) * 2


@functools.cache
def beginnings():
    """One method's factors from 400 keys, of which the first two are equal."""
    keys = jax.random.split(jax.random.key(0), 400)
    keys = keys.at[1].set(keys[0])
    method = lpi.lpi(lpi.LPI(**SMALL))
    return in_float64(jax.jit(jax.vmap(lambda key: method.init(key, None)))(keys)["factors"])


def test_factors_start_normal_with_a_deviation_of_one_half():
    for name, factor in beginnings().items():
        assert abs(factor.std() - 0.5) < 0.03, name
        assert abs(factor.mean()) < 0.03, name
        assert abs((factor**4).mean() / 0.5**4 - 3) < 0.4, name  # a normal's kurtosis; a uniform's is 1.8


def test_equal_keys_give_equal_factors_and_other_keys_others():
    for factor in beginnings().values():
        np.testing.assert_array_equal(factor[0], factor[1])
        assert np.abs(factor[1] - factor[2]).max() > 1e-2
    assert np.abs(beginnings()["token_visual"] - beginnings()["token_textual"]).max() > 1e-2


# ------------------------------------------------------------------------------------------------ the method, a task


def features(rng):
    rows = rng.normal(size=(2, 5, 8))
    rows = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return Features(rows[0], rows[1], np.float32(20.0))


def stream(options, tasks, similar):
    """A method, `tasks` finished tasks, and one that begins; all pairs similar or none."""
    similarity = np.full((tasks + 1, tasks + 1), 1.0 if similar else 0.0, np.float32)
    np.fill_diagonal(similarity, 1.0)
    trained = [draw(options, 10 + t) for t in range(tasks)]
    finished = Finished(stack(trained) if trained else None, similarity)
    return lpi.lpi(options), trained, finished, draw(options, 0)


def reference_terms(options, pairs, similarity, seen):
    """The three weighted terms, by the reference alone; pairs: each task's expanded prompts, the current task last."""
    visual, textual = (np.stack(modality) for modality in zip(*pairs, strict=True))
    apart = [reference_losses.task_loss(m, similarity, options.task, options.threshold) for m in (visual, textual)]
    return {
        "retrieval": reference_losses.retrieval_loss(*seen),
        "align": 0.1 * reference_losses.alignment_loss(visual[-1], textual[-1], options.alignment),
        "task": 0.1 * sum(apart) / 2 if len(pairs) > 1 else 0.0,
    }


def expanded(trees):
    """The prompts that sections 1 and 3 speak of: expanded from the factors, before any interaction."""
    return [reference.expand(tree["factors"]) for tree in trees]


@functools.cache
def step(options):
    """(trainable, context, features) -> ((loss, terms), gradient), compiled once for every number of finished tasks."""

    def loss(trainable, context, seen):
        terms = lpi.lpi(options).losses(trainable, context, seen)
        return sum(terms.values()), terms

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


FORMS = pytest.mark.parametrize(("alignment", "task"), [("released", "released"), ("cosine", "intended")])
CAPACITY = 4


@FORMS
@pytest.mark.parametrize("tasks", [0, 3])
@pytest.mark.parametrize("interaction", [False, True])
def test_a_tasks_loss_is_the_references(alignment, task, tasks, interaction):
    options = lpi.LPI(**SMALL, alignment=alignment, task=task, interaction=interaction)
    method, trained, finished, trainable = stream(options, tasks, similar=False)
    finished.similarity[-1, 0] = finished.similarity[0, -1] = 0.9 if tasks else 1.0
    seen = features(np.random.default_rng(0))
    (loss, terms), _ = step(options)(trainable, method.context(finished, CAPACITY), seen)
    expected = reference_terms(options, expanded([*trained, trainable]), finished.similarity, seen)
    assert set(terms) == {"retrieval", "align", "task"}
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    total = reference_losses.total(expected["retrieval"], 10 * expected["align"], *[10 * expected["task"]] * 2)
    np.testing.assert_allclose(loss, total, rtol=1e-4)


@FORMS
def test_the_gradient_of_the_task_terms_reaches_the_current_factors_alone(alignment, task):
    """Finite differences in the current factors, the finished ones held still, give the package's gradient."""
    options = lpi.LPI(**SMALL, alignment=alignment, task=task)
    method, trained, finished, trainable = stream(options, 2, similar=False)
    trainable = jax.tree.map(lambda leaf: np.float32(0.3) * leaf, trainable)  # away from saturation
    seen, before = features(np.random.default_rng(0)), expanded(trained)

    def by_reference(factors):
        pairs = [*before, reference.expand(factors)]
        return sum(reference_terms(options, pairs, finished.similarity, seen).values())

    expected = gradients.finite_differences(by_reference, in_float64(trainable["factors"]))
    _, gradient = step(options)(trainable, method.context(finished, CAPACITY), seen)
    assert max(np.abs(leaf).max() for leaf in expected.values()) > 1e-3
    chex.assert_trees_all_close(gradient["factors"], expected, rtol=1e-3, atol=1e-4)


@FORMS
@pytest.mark.parametrize("similar", [False, True])
def test_a_task_without_negatives_or_positives_trains_on_finite_numbers(alignment, task, similar):
    options = lpi.LPI(**SMALL, alignment=alignment, task=task)
    method, trained, finished, trainable = stream(options, 2, similar)
    seen = features(np.random.default_rng(0))
    (loss, _), gradient = step(options)(trainable, method.context(finished, CAPACITY), seen)
    expected = reference_terms(options, expanded([*trained, trainable]), finished.similarity, seen)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_room_for_tasks_to_come_changes_no_loss_and_needs_no_second_compilation():
    options, seen = lpi.LPI(**SMALL), features(np.random.default_rng(0))
    step.cache_clear()
    for tasks in (0, 1, 2):
        method, trained, finished, trainable = stream(options, tasks, similar=False)
        (loss, _), _ = step(options)(trainable, method.context(finished, CAPACITY), seen)
        expected = reference_terms(options, expanded([*trained, trainable]), finished.similarity, seen)
        np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4)
    assert step(options)._cache_size() == 1


def test_only_depth_layers_enter_the_towers_but_all_take_part_in_the_losses():
    options = lpi.LPI(**SMALL)
    method, _, finished, trainable = stream(options, 1, similar=False)
    visual, textual = method.prompts(trainable)
    chex.assert_shape((visual, textual), [(2, 4, 10), (2, 4, 6)])
    all_visual, all_textual = reference_prompts(trainable)
    chex.assert_trees_all_close((visual, textual), (all_visual[:2], all_textual[:2]), rtol=1e-5, atol=1e-6)
    _, gradient = step(options)(trainable, method.context(finished, CAPACITY), features(np.random.default_rng(0)))
    assert np.abs(gradient["factors"]["layer"][2]).max() > 1e-6  # the layer that does not enter


def test_the_method_asks_for_as_many_placeholders_as_there_are_prompts():
    assert lpi.lpi(lpi.LPI(**SMALL)).placeholders == SMALL["length"]
