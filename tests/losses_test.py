"""Holds `lpi_jax.losses` against the NumPy reference."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax import losses
from tests.reference import losses as reference
from tests.train.gradients_test import check

FEW = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


retrieval_loss = jax.jit(losses.retrieval_loss)
alignment_loss = jax.jit(losses.alignment_loss, static_argnames="form")
task_loss = jax.jit(losses.task_loss, static_argnames="form")
projected_loss = jax.jit(losses.projected_alignment_loss)
current_loss = jax.jit(losses.current_task_loss)
current_loss_and_gradient = jax.jit(jax.value_and_grad(losses.current_task_loss))
task_loss_and_gradient = jax.jit(jax.value_and_grad(losses.task_loss), static_argnames="form")


def unit_rows(rng, rows, width):
    x = rng.normal(size=(rows, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def symmetric(rng, tasks):
    """[T, T] cosines with a diagonal of 1, spread on both sides of 0.4."""
    x = rng.uniform(-0.2, 1.0, size=(tasks, tasks))
    x = (x + x.T) / 2
    np.fill_diagonal(x, 1.0)
    return x.astype(np.float32)


# -------------------------------------------------------------------------------------------------------- retrieval


@FEW
@given(seed=seeds, scale=st.sampled_from([1.0, 14.3, 100.0]))
def test_retrieval_loss_is_the_references(seed, scale):
    rng = np.random.default_rng(seed)
    image, text = unit_rows(rng, 7, 5), unit_rows(rng, 7, 5)
    loss = retrieval_loss(image, text, scale)
    chex.assert_shape(loss, ())
    np.testing.assert_allclose(loss, reference.retrieval_loss(image, text, scale), rtol=1e-5, atol=1e-5)


def test_retrieval_loss_of_texts_that_answer_several_images_is_the_references():
    rng = np.random.default_rng(3)
    image, text = unit_rows(rng, 6, 5), unit_rows(rng, 6, 5)
    words = np.array([0, 1, 0, 2, 1, 0])
    right = words[:, None] == words
    expected = reference.retrieval_loss_of_several(image, text, 20.0, right)
    np.testing.assert_allclose(retrieval_loss(image, text, 20.0, right), expected, rtol=1e-5)
    alone = retrieval_loss(image, text, 20.0, np.eye(6, dtype=bool))
    np.testing.assert_allclose(alone, retrieval_loss(image, text, 20.0), rtol=1e-6)
    gradient = jax.grad(lambda rows: losses.retrieval_loss(rows, text, 20.0, right))(image)
    assert np.isfinite(gradient).all()


def test_retrieval_loss_of_one_pair_is_zero_and_of_alike_pairs_the_logarithm_of_the_batch():
    one = np.array([[1.0, 0.0]], np.float32)
    assert retrieval_loss(one, one, 100.0) == 0
    alike = np.repeat(one, 8, axis=0)
    np.testing.assert_allclose(retrieval_loss(alike, alike, 100.0), np.log(8), rtol=1e-6)


def test_retrieval_loss_does_not_depend_on_the_order_of_the_pairs_or_of_the_modalities():
    rng = np.random.default_rng(0)
    image, text, order = unit_rows(rng, 6, 4), unit_rows(rng, 6, 4), rng.permutation(6)
    expected = retrieval_loss(image, text, 30.0)
    np.testing.assert_allclose(retrieval_loss(image[order], text[order], 30.0), expected, rtol=1e-5)
    np.testing.assert_allclose(retrieval_loss(text, image, 30.0), expected, rtol=1e-5)


def test_retrieval_loss_takes_the_scale_itself_and_not_its_logarithm():
    eye = np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(retrieval_loss(eye, eye, np.log(3.0)), np.log(4 / 3), rtol=1e-6)


def test_retrieval_loss_stays_finite_when_every_pair_is_wrong_at_full_scale():
    eye = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(retrieval_loss(eye, eye[::-1], 100.0), 100.0, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("form", ["released", "cosine"])
@FEW
@given(seed=seeds, spread=st.sampled_from([0.01, 0.5]))
def test_alignment_loss_is_the_references(form, seed, spread):
    rng = np.random.default_rng(seed)
    visual = (spread * rng.normal(size=(4, 3, 12))).astype(np.float32)
    textual = (spread * rng.normal(size=(4, 3, 8))).astype(np.float32)
    loss = alignment_loss(visual, textual, form)
    chex.assert_shape(loss, ())
    np.testing.assert_allclose(loss, reference.alignment_loss(visual, textual, form), rtol=1e-4, atol=1e-4)


def test_alignment_loss_of_one_layer_is_zero():
    rng = np.random.default_rng(0)
    visual, textual = rng.normal(size=(1, 3, 6)).astype(np.float32), rng.normal(size=(1, 3, 4)).astype(np.float32)
    for form in ("released", "cosine"):
        assert alignment_loss(visual, textual, form) == 0


def test_only_the_released_alignment_depends_on_the_prompts_size():
    rng = np.random.default_rng(0)
    visual = (0.01 * rng.normal(size=(3, 2, 6))).astype(np.float32)
    textual = (0.01 * rng.normal(size=(3, 2, 4))).astype(np.float32)
    cosine, released = (alignment_loss(visual, textual, form) for form in ("cosine", "released"))
    np.testing.assert_allclose(alignment_loss(4 * visual, textual, "cosine"), cosine, rtol=1e-4)
    assert abs(alignment_loss(4 * visual, textual, "released") - released) > 1e-3


# ------------------------------------------------------------------------------------------- alignment, projected


def towers_prompts(rng, spread=1.0, layers=4, tokens=3):
    """Prompts of both towers, their projections to a joint width of 7."""
    shapes = ((layers, tokens, 12), (layers, tokens, 8), (12, 7), (8, 7))
    visual, textual, to_visual, to_textual = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return np.float32(spread) * visual, np.float32(spread) * textual, to_visual, to_textual


@FEW
@given(seed=seeds, spread=st.sampled_from([0.06, 0.5]), scale=st.sampled_from([1.0, 14.3, 100.0]))
def test_projected_alignment_is_the_references(seed, spread, scale):
    arrays = towers_prompts(np.random.default_rng(seed), spread)
    loss = projected_loss(*arrays, scale)
    chex.assert_shape(loss, ())
    np.testing.assert_allclose(loss, reference.projected_alignment_loss(*arrays, scale), rtol=1e-4, atol=1e-4)


def test_gradient_of_the_projected_alignment():
    visual, textual, *matrices = (leaf.astype(np.float64) for leaf in towers_prompts(np.random.default_rng(1), 0.1))
    with jax.enable_x64(True):
        check(
            lambda p: losses.projected_alignment_loss(p["visual"], p["textual"], *matrices, 2.0),
            lambda p: reference.projected_alignment_loss(p["visual"], p["textual"], *matrices, 2.0),
            {"visual": visual, "textual": textual},
        )


def test_a_constant_on_every_token_changes_nothing_of_the_projected_alignment_but_all_of_the_others():
    rng = np.random.default_rng(2)
    visual, textual, *matrices = towers_prompts(rng)
    moved = visual + rng.normal(size=(*visual.shape[:2], 1)).astype(np.float32)
    here, there = (projected_loss(prompts, textual, *matrices, 10.0) for prompts in (visual, moved))
    np.testing.assert_allclose(here, there, rtol=1e-4)
    for form in ("released", "cosine"):
        assert abs(alignment_loss(visual, textual, form) - alignment_loss(moved, textual, form)) > 1


def test_projected_alignment_is_least_where_a_layers_modalities_point_the_same_way():
    visual, _, to_joint, _ = towers_prompts(np.random.default_rng(3))
    same = projected_loss(visual, visual, to_joint, to_joint, 100.0)
    crossed = projected_loss(visual, visual[::-1], to_joint, to_joint, 100.0)
    assert same < 1 < crossed
    one = projected_loss(visual[:1], visual[1:2], to_joint, to_joint, 100.0)
    assert one == 0  # a single layer has nothing to be told from


def test_prompts_of_zero_give_the_new_losses_a_finite_gradient():
    visual, textual, *matrices = towers_prompts(np.random.default_rng(4))
    gradient = jax.grad(losses.projected_alignment_loss)(0 * visual, textual, *matrices, 100.0)
    assert np.isfinite(gradient).all()
    _, gradient = current_loss_and_gradient(
        0 * visual, np.stack([visual, 0 * visual]), np.eye(2)[0] > 0, np.ones(2) > 0
    )
    assert np.isfinite(gradient).all()


# ---------------------------------------------------------------------------------------------------- task distance


@pytest.mark.parametrize("form", ["released", "intended"])
@pytest.mark.parametrize("tasks", [1, 2, 5])
@FEW
@given(seed=seeds, common=st.sampled_from([0.0, 0.3, 3.0]))
def test_task_loss_is_the_references(form, tasks, seed, common):
    rng = np.random.default_rng(seed)
    prompts = (rng.normal(size=(tasks, 2, 3, 4)) + common).astype(np.float32)
    similarity = symmetric(rng, tasks)
    loss = task_loss(prompts, similarity, form)
    chex.assert_shape(loss, ())
    # The released form divides a cosine, known to 1e-7, by 0.001.
    tolerance = {"released": 1e-4, "intended": 1e-5}[form]
    np.testing.assert_allclose(loss, reference.task_loss(prompts, similarity, form), rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("form", ["released", "intended"])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.4, 0.9, 1.0])
def test_task_loss_follows_the_threshold(form, threshold):
    rng = np.random.default_rng(3)
    prompts, similarity = rng.normal(size=(4, 2, 3, 4)).astype(np.float32), symmetric(rng, 4)
    loss = task_loss(prompts, similarity, form, threshold=threshold)
    np.testing.assert_allclose(loss, reference.task_loss(prompts, similarity, form, threshold), rtol=1e-4)


def test_a_similarity_of_exactly_the_threshold_is_not_similar():
    prompts = np.ones((2, 1, 1, 2), np.float32)
    at, above = (np.array([[1, s], [s, 1]], np.float32) for s in (0.5, 0.5001))
    np.testing.assert_allclose(task_loss(prompts, at, "intended", 0.5), 10.0, rtol=1e-4)  # log(1 + e^10)
    np.testing.assert_allclose(task_loss(prompts, above, "intended", 0.5), 0.0, atol=1e-4)


@pytest.mark.parametrize("form", ["released", "intended"])
def test_a_task_without_negatives_gives_a_finite_loss_and_gradient(form):
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(3, 2, 3, 4)).astype(np.float32)
    similarity = np.ones((3, 3), np.float32)
    loss, gradient = task_loss_and_gradient(prompts, similarity, form)
    np.testing.assert_allclose(loss, reference.task_loss(prompts, similarity, form), rtol=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("form", ["released", "intended"])
def test_a_task_without_other_positives_gives_a_finite_loss_and_gradient(form):
    rng = np.random.default_rng(0)
    prompts, similarity = rng.normal(size=(3, 2, 3, 4)).astype(np.float32), np.eye(3, dtype=np.float32)
    loss, gradient = task_loss_and_gradient(prompts, similarity, form)
    np.testing.assert_allclose(loss, reference.task_loss(prompts, similarity, form), rtol=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("form", ["released", "intended"])
def test_places_of_tasks_not_yet_seen_change_neither_loss_nor_gradient(form):
    rng = np.random.default_rng(1)
    prompts, similarity = 0.1 * rng.normal(size=(3, 2, 3, 4)).astype(np.float32), symmetric(rng, 3)
    padded, wide = np.zeros((6, 2, 3, 4), np.float32), np.zeros((6, 6), np.float32)
    padded[:3], wide[:3, :3] = prompts, similarity
    seen = np.arange(6) < 3
    loss, gradient = task_loss_and_gradient(prompts, similarity, form)
    loss_padded, gradient_padded = task_loss_and_gradient(padded, wide, form, seen=seen)
    np.testing.assert_allclose(loss_padded, loss, rtol=1e-5)
    np.testing.assert_allclose(gradient_padded[:3], gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient_padded[3:], 0)


def test_the_intended_task_loss_pulls_where_the_released_one_is_saturated():
    rng = np.random.default_rng(2)
    prompts = (rng.normal(size=(3, 2, 3, 4)) + 1.0).astype(np.float32)
    similarity = symmetric(rng, 3)
    size = {
        form: float(np.abs(task_loss_and_gradient(prompts, similarity, form)[1]).max())
        for form in ("released", "intended")
    }
    assert size["intended"] > 1e-2
    assert size["released"] < 1e-6


# ----------------------------------------------------------------------------------- task distance, current pairs


def prompts_of_tasks(rng, tasks, common=0.0):
    return (rng.normal(size=(tasks, 2, 3, 4)) + common).astype(np.float32)


@pytest.mark.parametrize("tasks", [1, 2, 5])
@FEW
@given(seed=seeds, common=st.sampled_from([0.0, 0.3, 3.0]))
def test_current_task_loss_is_the_references(tasks, seed, common):
    rng = np.random.default_rng(seed)
    own, *finished = prompts_of_tasks(rng, 1 + tasks, common)
    similar = rng.uniform(size=tasks) < 0.5
    loss = current_loss(own, np.stack(finished), similar, np.ones(tasks, bool))
    chex.assert_shape(loss, ())
    np.testing.assert_allclose(loss, reference.current_task_loss(own, finished, similar), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("similar", [(True, False, True), (True,) * 3, (False,) * 3])
def test_gradient_of_the_current_task_loss(similar):
    own, *finished = prompts_of_tasks(np.random.default_rng(5), 4).astype(np.float64)
    with jax.enable_x64(True):
        check(
            lambda p: losses.current_task_loss(p, np.stack(finished), np.array(similar), np.ones(3, bool)),
            lambda p: reference.current_task_loss(p, finished, similar),
            own,
        )


def test_without_finished_tasks_the_current_task_loss_and_its_gradient_are_zero():
    own = prompts_of_tasks(np.random.default_rng(6), 1)[0]
    nobody = np.zeros(4, bool)
    loss, gradient = current_loss_and_gradient(own, np.zeros((4, *own.shape), np.float32), nobody, nobody)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_rows_without_a_finished_task_change_no_current_loss():
    own, *finished = prompts_of_tasks(np.random.default_rng(7), 4)
    similar = np.array([True, False, False])
    padded = np.concatenate([np.stack(finished), prompts_of_tasks(np.random.default_rng(8), 3)])
    wide, seen = np.array([True, False, False, True, True, False]), np.arange(6) < 3
    expected = current_loss_and_gradient(own, np.stack(finished), similar, np.ones(3, bool))
    chex.assert_trees_all_close(current_loss_and_gradient(own, padded, wide, seen), expected, rtol=1e-5, atol=1e-7)


def test_a_step_down_the_current_task_loss_goes_towards_similar_tasks_and_away_from_the_others():
    own, *finished = prompts_of_tasks(np.random.default_rng(9), 3)
    similar = np.array([True, False])
    _, gradient = current_loss_and_gradient(own, np.stack(finished), similar, np.ones(2, bool))
    before, after = (
        [reference.cosine(x.ravel(), other.ravel()) for other in finished] for x in (own, own - np.asarray(gradient))
    )
    assert after[0] > before[0] + 1e-3
    assert after[1] < before[1] - 1e-3


def test_the_gradient_of_the_current_form_does_not_fade_with_the_number_of_tasks_as_the_intended_one_does():
    """Sizes of the current task's gradient behind 1 and 11 finished tasks, half of the pairs similar, of many draws."""
    sizes = {"current": [], "intended": []}
    for tasks in (2, 12):
        alike = np.eye(tasks, dtype=np.float32)
        alike[-1, : tasks // 2] = alike[: tasks // 2, -1] = 1
        drawn = [prompts_of_tasks(np.random.default_rng(seed), tasks) for seed in range(8)]
        own = [
            current_loss_and_gradient(x[-1], x[:-1], alike[-1, :-1] > 0.5, np.ones(tasks - 1, bool))[1] for x in drawn
        ]
        sizes["current"].append(np.mean([np.linalg.norm(gradient) for gradient in own]))
        whole = [task_loss_and_gradient(x, alike, "intended")[1][-1] for x in drawn]
        sizes["intended"].append(np.mean([np.linalg.norm(gradient) for gradient in whole]))
    assert 1 / 3 < sizes["current"][1] / sizes["current"][0] < 3
    assert sizes["intended"][1] / sizes["intended"][0] < 1 / 3


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: losses.alignment_loss(x[0], x[0], "nonsense"), "nonsense.*cosine"),
        (lambda x: losses.task_loss(x, np.eye(2, dtype=np.float32), "nonsense"), "nonsense.*intended"),
        (lambda x: losses.task_loss(x, np.eye(3, dtype=np.float32)), r"\(3, 3\)"),
        (lambda x: losses.alignment_loss(x[0], x[0, :, :1]), r"\(3, 1, 4\)"),
        (lambda x: losses.projected_alignment_loss(x[0], x[0], x[0, 0].T, x[0, 0], 1.0), r"\(2, 4\)"),
        (lambda x: losses.current_task_loss(x[0], x[:, :1], np.ones(2, bool), np.ones(2, bool)), r"\(2, 1, 2, 4\)"),
        (lambda x: losses.retrieval_loss(x[0, 0], x[0, 0, :1], 1.0), r"\(1, 4\)"),
    ],
)
def test_a_wrong_form_or_shape_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.ones((2, 3, 2, 4), np.float32))
