"""Holds `lpi_jax.methods.lpi` against the NumPy reference: prompts, counts, gates, the loss of a task."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.losses import retrieval_loss
from lpi_jax.methods import kmeans, lpi, routing, similarity
from lpi_jax.methods.base import Site, TaskContext
from tests.methods.interaction_test import reference_maps
from tests.reference import gradients
from tests.reference import losses as reference_losses
from tests.reference import prompts as reference

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SMALL = {"layers": 3, "depth": 2, "length": 4, "rank": 2}
SITES = {"vision": Site(layers=3, width=10, room=16), "text": Site(layers=3, width=6, room=16)}
CLIP_B16 = {"vision": Site(12, 768, 196), "text": Site(12, 512, 74)}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def reference_prompts(trainable, form="norm"):
    visual, textual = reference.expand(trainable["factors"])
    if "interaction" in trainable:
        interact = {"norm": reference.interact, "residual": reference.interact_residually}[form]
        return interact(visual, textual, reference_maps(trainable["interaction"]))
    return visual, textual


def frozen():
    """What of a backbone of these widths the losses may look at."""
    rng = np.random.default_rng(4)
    visual, textual = (rng.normal(size=(SITES[name].width, 5)).astype(np.float32) for name in ("vision", "text"))
    scale = np.float32(np.log(3.0))
    return {"visual_projection": {"kernel": visual}, "text_projection": {"kernel": textual}, "logit_scale": scale}


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def shapes_of(options, sites=SITES):
    return jax.eval_shape(lambda: lpi.init(options, sites, jax.random.key(0)))


def built(options, sites=SITES):
    return lpi.build(options, sites, routing.Options(centres=2))


def draw(options, seed, sites=SITES):
    """A trainable tree of `init`'s shapes, drawn by NumPy."""
    rng, shapes = np.random.default_rng(seed), shapes_of(options, sites)
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
    tasks = [draw(lpi.Options(**SMALL), t) for t in range(3)]
    visual, textual = jax.jit(lpi.expand)(stack(tasks)["factors"])
    chex.assert_shape((visual, textual), [(3, 3, 4, 10), (3, 3, 4, 6)])
    for t, task in enumerate(tasks):
        chex.assert_trees_all_close((visual[t], textual[t]), reference_prompts(task), rtol=1e-5, atol=1e-6)


def test_expanded_prompts_have_the_widths_of_clip_b16():
    visual, textual = lpi.expand(draw(lpi.Options(), 0, CLIP_B16)["factors"])
    chex.assert_shape((visual, textual), [(9, 16, 768), (9, 16, 512)])
    chex.assert_type((visual, textual), jnp.float32)


def test_modalities_that_share_no_factor_of_layers_have_one_each():
    tree = lpi.init(lpi.Options(**SMALL, shared=False), SITES, jax.random.key(0))
    assert "layer" not in tree["factors"]
    chex.assert_shape([tree["factors"][name] for name in ("layer_visual", "layer_textual")], (3, 2))
    assert np.abs(tree["factors"]["layer_visual"] - tree["factors"]["layer_textual"]).max() > 1e-2
    chex.assert_trees_all_close(lpi.expand(tree["factors"]), reference_prompts(tree), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------- counts, initial values


def test_a_task_trains_5284_numbers_at_clip_b16_and_twelve_tasks_63408():
    one = draw(lpi.Options(), 0, CLIP_B16)
    assert count(one) == 5_284
    assert count(stack([one] * 12)) == 63_408
    assert count(lpi.expand(one["factors"])) == 184_320
    chex.assert_shape(
        [one["factors"][n] for n in ("layer", "token_visual", "token_textual", "width_visual", "width_textual")],
        [(9, 4), (16, 4), (16, 4), (768, 4), (512, 4)],
    )


def test_gates_are_one_more_number_a_layer_and_modality_and_factors_apart_one_more_factor():
    gated = lpi.init(lpi.Options(injection="attend", gate=0.25), CLIP_B16, jax.random.key(0))
    assert count(gated) == 5_302
    chex.assert_trees_all_equal(gated["gates"], {name: np.full(9, 0.25, np.float32) for name in ("visual", "textual")})
    chex.assert_trees_all_equal(gated["factors"], lpi.init(lpi.Options(), CLIP_B16, jax.random.key(0))["factors"])
    assert count(draw(lpi.Options(shared=False), 0, CLIP_B16)) == 5_284 + 9 * 4


def test_interaction_adds_two_rank_r_affine_maps():
    plain, mixed = (count(draw(lpi.Options(**SMALL, interaction=on), 0)) for on in (False, True))
    assert mixed - plain == 2 * 3 * 2 + (10 + 1 + 6) * 2 + (6 + 1 + 10) * 2


@functools.cache
def beginnings():
    """One method's factors from 400 keys, of which the first two are equal."""
    keys = jax.random.split(jax.random.key(0), 400)
    keys = keys.at[1].set(keys[0])
    return in_float64(jax.jit(jax.vmap(lambda key: lpi.init(lpi.Options(**SMALL), SITES, key)))(keys)["factors"])


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
    return rows[0], rows[1], np.float32(20.0)


def stream(options, tasks, similar):
    """`tasks` finished tasks, how alike all are, and one that begins; all pairs similar or none."""
    alike = np.full((tasks + 1, tasks + 1), 1.0 if similar else 0.0, np.float32)
    np.fill_diagonal(alike, 1.0)
    return [draw(options, 10 + t) for t in range(tasks)], alike, draw(options, 0)


def constants(options, trained, alike):
    """What the losses of a task behind `trained` compare it with."""
    finished = stack(trained)["factors"] if trained else {}
    known = lpi.context(options, shapes_of(options)["factors"], finished, alike)
    return known | (frozen() if options.alignment == "projected" else {})


def reference_terms(options, pairs, similarity, seen, mixed=None):
    """The three weighted terms, by the reference alone.

    Args:
      pairs: each task's expanded prompts, the current task last. mixed: its prompts as the towers see them.
    """
    tasks = [np.stack(modality) for modality in zip(*pairs, strict=True)]
    if options.task == "current":
        similar = reference_losses.similar_by_rank(similarity, options.similar_share) if len(pairs) > 1 else []
        apart = [reference_losses.current_task_loss(m[-1], m[:-1], similar) for m in tasks]
    else:
        apart = [reference_losses.task_loss(m, similarity, options.task, options.threshold) for m in tasks]
    if options.alignment == "projected":
        matrices = [frozen()[name]["kernel"] for name in ("visual_projection", "text_projection")]
        align = reference_losses.projected_alignment_loss(*(mixed or pairs[-1]), *matrices, 3.0)
    else:
        align = reference_losses.alignment_loss(*pairs[-1], options.alignment)
    return {
        "retrieval": reference_losses.retrieval_loss(*seen),
        "align": 0.1 * align,
        "task": 0.1 * sum(apart) / 2 if len(pairs) > 1 else 0.0,
    }


def expanded(trees):
    """The prompts that sections 1 and 3 speak of: expanded from the factors, before any interaction."""
    return [reference.expand(tree["factors"]) for tree in trees]


@functools.cache
def step(options):
    """(trainable, constants, features) -> ((loss, terms), gradient), compiled once for any number of finished tasks."""

    def loss(trainable, constants, seen):
        terms = {"retrieval": retrieval_loss(*seen), **built(options).losses(trainable, constants, *[None] * 4)}
        return sum(terms.values()), terms

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


FORMS = pytest.mark.parametrize(
    ("alignment", "task"), [("released", "released"), ("cosine", "intended"), ("projected", "current")]
)


@FORMS
@pytest.mark.parametrize("tasks", [0, 3])
@pytest.mark.parametrize("interaction", [False, True])
def test_a_tasks_loss_is_the_references(alignment, task, tasks, interaction):
    options = lpi.Options(**SMALL, alignment=alignment, task=task, interaction=interaction)
    trained, alike, trainable = stream(options, tasks, similar=False)
    alike[-1, 0] = alike[0, -1] = 0.9 if tasks else 1.0
    seen = features(np.random.default_rng(0))
    (loss, terms), _ = step(options)(trainable, constants(options, trained, alike), seen)
    expected = reference_terms(options, expanded([*trained, trainable]), alike, seen, reference_prompts(trainable))
    assert set(terms) == {"retrieval", "align", "task"}
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    total = reference_losses.total(expected["retrieval"], 10 * expected["align"], *[10 * expected["task"]] * 2)
    np.testing.assert_allclose(loss, total, rtol=1e-4)


@FORMS
def test_the_gradient_of_the_task_terms_reaches_the_current_factors_alone(alignment, task):
    """Finite differences in the current factors, the finished ones held still, give the package's gradient."""
    options = lpi.Options(**SMALL, alignment=alignment, task=task)
    trained, alike, trainable = stream(options, 2, similar=False)
    trainable = jax.tree.map(lambda leaf: np.float32(0.3) * leaf, trainable)  # away from saturation
    seen, before = features(np.random.default_rng(0)), expanded(trained)

    def by_reference(factors):
        pairs = [*before, reference.expand(factors)]
        return sum(reference_terms(options, pairs, alike, seen).values())

    expected = gradients.finite_differences(by_reference, in_float64(trainable["factors"]))
    _, gradient = step(options)(trainable, constants(options, trained, alike), seen)
    assert max(np.abs(leaf).max() for leaf in expected.values()) > 1e-3
    chex.assert_trees_all_close(gradient["factors"], expected, rtol=1e-3, atol=1e-4)


@FORMS
@pytest.mark.parametrize("similar", [False, True])
def test_a_task_without_negatives_or_positives_trains_on_finite_numbers(alignment, task, similar):
    options = lpi.Options(**SMALL, alignment=alignment, task=task)
    trained, alike, trainable = stream(options, 2, similar)
    seen = features(np.random.default_rng(0))
    (loss, _), gradient = step(options)(trainable, constants(options, trained, alike), seen)
    expected = reference_terms(options, expanded([*trained, trainable]), alike, seen)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@FORMS
def test_room_for_tasks_to_come_changes_no_loss_and_needs_no_second_compilation(alignment, task):
    options = lpi.Options(**SMALL, alignment=alignment, task=task)
    seen = features(np.random.default_rng(0))
    step.cache_clear()
    for tasks in (0, 1, 2):
        trained, alike, trainable = stream(options, tasks, similar=False)
        (loss, _), _ = step(options)(trainable, constants(options, trained, alike), seen)
        expected = reference_terms(options, expanded([*trained, trainable]), alike, seen)
        np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-4)
    assert step(options)._cache_size() == 1


def test_the_weighted_gradient_of_the_current_form_is_as_large_with_twelve_tasks_as_with_two():
    sizes = {}
    for task in ("current", "intended"):
        options = lpi.Options(**SMALL, task=task)
        gradient = jax.jit(jax.grad(lambda t, c, options=options: lpi.losses(options, t, c)["task"]))
        for tasks in (2, 12):
            drawn = []
            for seed in range(6):
                alike = np.random.default_rng(seed).uniform(size=(tasks, tasks)).astype(np.float32)
                alike = (alike + alike.T) / 2
                trained = [draw(options, 100 * seed + number) for number in range(1, tasks)]
                own = gradient(draw(options, 100 * seed), constants(options, trained, alike))
                drawn.append(np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(own))))
            sizes[task, tasks] = np.mean(drawn)
    assert 1 / 3 < sizes["current", 12] / sizes["current", 2] < 3
    assert sizes["intended", 12] / sizes["intended", 2] < 1 / 3


def test_only_depth_layers_enter_the_towers_but_all_take_part_in_the_losses():
    options = lpi.Options(**SMALL)
    trained, alike, trainable = stream(options, 1, similar=False)
    adapter, _ = built(options).adapt(trainable, {}, {"a": "weight"}, {})
    assert adapter.params == {"a": "weight"}
    visual, textual = adapter.prompts["vision"], adapter.prompts["text"]
    chex.assert_shape((visual, textual), [(2, 4, 10), (2, 4, 6)])
    all_visual, all_textual = reference_prompts(trainable)
    chex.assert_trees_all_close((visual, textual), (all_visual[:2], all_textual[:2]), rtol=1e-5, atol=1e-6)
    _, gradient = step(options)(trainable, constants(options, trained, alike), features(np.random.default_rng(0)))
    assert np.abs(gradient["factors"]["layer"][2]).max() > 1e-6  # the layer that does not enter


def test_the_method_asks_for_as_many_positions_as_there_are_prompts():
    assert built(lpi.Options(**SMALL)).reserve == {"vision": SMALL["length"], "text": SMALL["length"]}


# ---------------------------------------------------------------------------------------------------- memory, constants


def task_context(number, meanings, rng):
    """Task number `number` of a stream whose tasks mean this."""
    items = {side: rng.normal(size=(12, 5)).astype(np.float32) for side in ("image", "text")}
    names = tuple(f"task {n}" for n in range(number + 1))
    return TaskContext(number, names, meanings[number], 12, 7, lambda: items, lambda count: iter(()), lambda *_: 0.0)


def test_a_task_begins_with_what_the_memory_tells_of_those_before():
    options, rng = lpi.Options(**SMALL), np.random.default_rng(0)
    method, memory, trees = built(options), {}, []
    meanings = rng.normal(size=(3, 5)).astype(np.float32)
    meanings /= np.linalg.norm(meanings, axis=1, keepdims=True)
    for number in range(3):
        task, key = task_context(number, meanings, rng), jax.random.key(number)
        trainable, given = method.begin(key, memory, {"a": np.zeros(2)}, task)
        chex.assert_trees_all_equal(trainable, lpi.init(options, SITES, key))
        alike = similarity.cosines(meanings[: number + 1])
        chex.assert_trees_all_equal(given, constants(options, trees, alike))
        assert int(given["current"]) == number
        trees.append(draw(options, 50 + number))
        memory = method.finish(memory, trees[-1], task)
        assert set(memory) == {"trained", "image_centres", "text_centres", "descriptions"}
        for side, items in task.features().items():
            np.testing.assert_array_equal(memory[f"{side}_centres"][number], kmeans.kmeans(items, 2, task.seed))
        np.testing.assert_array_equal(memory["descriptions"], meanings[: number + 1])
        for earlier, tree in enumerate(trees):
            chex.assert_trees_all_equal(method.view(memory, earlier), (tree, {}))
    assert method.facts(memory, task.names) == similarity.facts(memory, task.names, similarity.Rule())
    assert method.facts(memory, task.names)["similarity"] == similarity.cosines(meanings).tolist()


def test_a_task_of_the_new_forms_begins_with_the_backbones_projections_and_a_limit_by_rank():
    options, rng = lpi.Options(**SMALL, alignment="projected", task="current"), np.random.default_rng(1)
    method, memory, trees = built(options), {}, []
    meanings = rng.normal(size=(4, 5)).astype(np.float32) + np.float32(2)
    meanings /= np.linalg.norm(meanings, axis=1, keepdims=True)
    backbone = jax.tree.map(jnp.asarray, {**frozen(), "vision_model": np.zeros(3)})
    for number in range(4):
        task = task_context(number, meanings, rng)
        _, given = method.begin(jax.random.key(number), memory, backbone, task)
        alike = similarity.centred_cosines(meanings[: number + 1])
        chex.assert_trees_all_equal(given, constants(options, trees, alike))
        chex.assert_trees_all_equal({name: given[name] for name in lpi.JOINT}, frozen())
        assert float(given["threshold"]) == similarity.share_limit(alike, 0.5)
        trees.append(draw(options, 50 + number))
        memory = method.finish(memory, trees[-1], task)
    facts = method.facts(memory, task.names)
    assert facts["similarity"] == similarity.centred_cosines(meanings).tolist()
    assert facts["remarks"][0].startswith("task 'task 1' has no earlier task that counts as similar")


def test_prompts_take_the_sizes_that_the_backbone_has_room_for():
    sized = built(lpi.Options(length=0, layers=0, depth=0), CLIP_B16).options
    assert (sized.length, sized.layers, sized.depth) == (16, 9, 9)
    small = {"vision": Site(4, 64, 64), "text": Site(4, 64, 29)}
    sized = built(lpi.Options(length=0, layers=0, depth=0), small).options
    assert (sized.length, sized.layers, sized.depth) == (8, 4, 4)
