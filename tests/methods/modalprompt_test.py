"""ModalPrompt against cases worked by hand: how a task begins, what a batch is shown, what is served."""

import jax
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import adapter_ids, modalprompt, routing
from lpi_jax.methods.base import PLAIN, Site
from lpi_jax.methods.modalprompt import Options, scores
from tests.methods.prototypes_test import by_rule
from tests.reference.gradients import finite_differences
from tests.support.small_modalprompt import (
    CLOSE,
    LAYERS,
    B,
    C,
    Context,
    D,
    P,
    V,
    build,
    drawn,
    remembered,
    through,
    unit,
    vocabulary,
)


@pytest.fixture(scope="module")
def frozen():
    return vocabulary()


@pytest.fixture(scope="module")
def queries():
    """Of a batch whose last sample is text alone."""
    rows = np.random.default_rng(1).normal(size=(B, 2 * C)).astype(np.float32)
    return {"sample": np.concatenate([rows, np.array([[1], [1], [1], [0]], np.float32)], 1)}


# ---- how a task begins -----------------------------------------------------------------------------------------------


def test_prompts_begin_as_rows_of_the_vocabulary_and_networks_within_their_bounds(frozen):
    table = np.asarray(modalprompt.vocabulary(frozen))
    one = modalprompt.init(jax.random.key(0), Options(prompts=50), table, C)
    assert {tuple(row) for row in np.asarray(one["prompts"])} <= {tuple(row) for row in table}
    assert len(np.unique(one["prompts"], axis=0)) > V // 2
    words = modalprompt.init(jax.random.key(0), Options(prompts=50), table, C, words=4)
    assert {tuple(row) for row in np.asarray(words["prompts"])} == {tuple(row) for row in table[:4]}
    wide = modalprompt.init(jax.random.key(0), Options(), np.zeros((3, 100), np.float16), 80)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {np.dtype(np.float32)}
    leaves = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(wide["transform"])])
    assert np.abs(leaves).max() <= 0.1
    assert abs(leaves.std() - 0.1 / 3**0.5) < 1e-3
    for layer in wide["transform"].values():
        assert np.abs(layer["bias"]).max() > 0.08


def test_a_task_trains_19968768_numbers_at_llavas_widths():
    table = np.broadcast_to(np.float32(0), (32_000, 4096))
    shapes = jax.eval_shape(lambda key: modalprompt.init_transform(key, 4096, 768), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 19_927_808
    assert Options().prompts * table.shape[1] == 40_960
    assert 19_927_808 + 40_960 == 19_968_768


def test_a_task_begins_as_its_key_says_whatever_came_before(frozen):
    method = build()
    key = jax.random.fold_in(jax.random.key(7), 2)
    one, _ = method.begin(key, remembered(method, 2), frozen, Context(2))
    same, _ = method.begin(key, remembered(method, 2, seed=9), frozen, Context(2))
    other, _ = method.begin(jax.random.fold_in(jax.random.key(7), 3), {}, frozen, Context(0))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one["transform"]["out"]["kernel"] != other["transform"]["out"]["kernel"]).any()


# ---- the adapter in training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [0, 1, 2, 5])
@pytest.mark.parametrize("sets", [1, 2, 3, 4])
def test_a_sample_is_shown_the_chosen_finished_tasks_and_the_current_one_last(tasks, sets, frozen, queries):
    method = build(sets=sets)
    memory = remembered(method, tasks)
    trainable, constants = method.begin(jax.random.key(0), memory, frozen, Context(tasks))
    adapter, _ = method.adapt(trainable, constants, frozen, queries)
    assert adapter.params is frozen
    prompts, present = adapter.prompts["language"], adapter.present["language"]
    assert prompts.shape == (B, 1, sets * P, D)
    assert present.shape == (B, sets * P)
    rows = queries["sample"]
    ranked = np.zeros((B, tasks + 1), np.float32)
    if tasks:
        ranked[:, :tasks] = scores(rows[:, :C], rows[:, C:-1], memory["prototypes"])
    for i in range(B):
        chosen = by_rule(ranked[i], sets, training=True)
        every = [*(memory["trained"]["prompts"] if tasks else []), np.asarray(trainable["prompts"])]
        expected = np.concatenate([every[number] for number in chosen])
        np.testing.assert_array_equal(prompts[i, 0][np.asarray(present[i])], expected)
        np.testing.assert_array_equal(present[i], np.arange(sets * P) >= sets * P - len(expected))


def test_gradients_are_finite_differences_and_nothing_but_the_current_task_has_any(frozen, queries):
    method = build(align_weight=0.7)
    trainable, constants = method.begin(jax.random.key(3), remembered(method, 4), frozen, Context(4))
    rng = np.random.default_rng(8)
    weights = rng.normal(size=(B, 3 * P, D)).astype(np.float32)

    def shown(tree, constants, queries):
        return (method.adapt(tree, constants, frozen, queries)[0].prompts["language"][:, 0] ** 2 * weights).sum()

    def aligned(tree, constants, queries):
        _, aux = method.adapt(tree, constants, frozen, queries)
        return sum(method.losses(tree, constants, aux, None, None, None).values())

    def flat(tree):
        paths = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in paths}

    def by_numpy(point):
        layers = {name: {part: point[f"transform/{name}/{part}"] for part in ("kernel", "bias")} for name in LAYERS}
        own = unit(through(layers, point["prompts"]).mean(0))
        rows = queries["sample"].astype(np.float64)
        align = 0.7 * (2 - (unit(rows[:, :C]) @ own).mean() - (unit(rows[:, C:-1]) @ own).mean())
        return align, (point["prompts"] ** 2 * weights[:, -P:]).sum()

    point = {name: leaf.astype(np.float64) for name, leaf in flat(trainable).items()}
    for number, function in enumerate((aligned, shown)):
        expected = finite_differences(lambda p, n=number: by_numpy(p)[n], point)
        gradient, to_constants, to_queries = jax.grad(function, argnums=(0, 1, 2), allow_int=True)(
            trainable, constants, queries
        )
        for name, leaf in flat(gradient).items():
            np.testing.assert_allclose(leaf, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
        for part in ("prompts", "prototypes"):
            np.testing.assert_array_equal(to_constants[part], 0)
        np.testing.assert_array_equal(to_queries["sample"], 0)
        transform = flat(gradient["transform"])
        if function is shown:  # the problem's losses look at the prompts alone
            assert not any(leaf.any() for leaf in transform.values())
        else:
            assert all(leaf.any() for leaf in transform.values())
            assert np.asarray(gradient["prompts"]).any()


# ---- serving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [1, 2, 3, 4, 8])
def test_an_adapters_id_names_its_tasks_in_order_and_no_other_choice_has_it(sets):
    most = adapter_ids.most_tasks(sets)
    rng = np.random.default_rng(sets)
    seen = {}
    for length in range(1, sets + 1):
        tasks = rng.integers(0, most, (50, length)).astype(np.int32)
        tasks[0], tasks[1] = most - 1, 0
        ids = adapter_ids.encoded(tasks, sets)
        assert ids.dtype == np.int32
        assert (ids >= 0).all()
        for number, row in zip(ids.tolist(), map(tuple, tasks.tolist()), strict=True):
            assert adapter_ids.decoded(number, sets) == row
            assert seen.setdefault(number, row) == row
    np.testing.assert_array_equal(adapter_ids.encoded(np.array([[5], [0]], np.int32), sets), [5, 0])


def test_an_id_stays_the_same_while_no_later_task_is_chosen(queries):
    method = build()
    memory = remembered(method, 4)
    before = method.assign(memory, queries, {})["sample"]
    new = -unit(memory["prototypes"]).sum(0, keepdims=True)
    more = {**memory, "prototypes": np.concatenate([memory["prototypes"], new])}
    after = method.assign(more, queries, {})["sample"]
    kept = [4 not in adapter_ids.decoded(number, 3) for number in after.ids.tolist()]
    assert any(kept)
    np.testing.assert_array_equal(after.ids[kept], before.ids[kept])


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_a_sample_is_served_the_sets_that_its_scores_name_the_best_last(tasks, frozen, queries):
    method = build()
    memory, rows = remembered(method, tasks), queries["sample"]
    assigned = method.assign(memory, queries, {})["sample"]
    ranked = np.asarray(scores(rows[:, :C], rows[:, C:-1], memory["prototypes"]))
    chosen, scored = modalprompt.choices(memory, rows, method.options)
    np.testing.assert_array_equal(assigned.chosen, chosen)
    np.testing.assert_array_equal(assigned.scores, scored)
    np.testing.assert_allclose(scored, ranked, **CLOSE)
    assert assigned.posterior.shape == (B, tasks + 1)
    for i, number in enumerate(assigned.ids.tolist()):
        expected = by_rule(ranked[i], 3, training=False)
        assert adapter_ids.decoded(number, 3) == tuple(expected) == tuple(chosen[i])
        assert assigned.posterior[i].tolist() == [float(t == expected[-1]) for t in range(tasks + 1)]
        trainable, constants = method.view(memory, number)
        jax.tree.map(np.testing.assert_array_equal, trainable["prompts"], memory["trained"]["prompts"][expected[-1]])
        for asked in ({}, queries):  # which are ignored
            adapter, _ = method.adapt(trainable, constants, frozen, asked)
            prompts, present = adapter.prompts["language"], np.asarray(adapter.present["language"])
            assert prompts.shape == (1, 3 * P, D)
            np.testing.assert_array_equal(prompts[0][present], np.concatenate(memory["trained"]["prompts"][expected]))
            np.testing.assert_array_equal(present, np.arange(3 * P) >= (3 - len(expected)) * P)


def test_stacked_views_are_the_adapters_of_a_batch(frozen, queries):
    method = build()
    memory = remembered(method, 4)
    views = [method.view(memory, n) for n in method.assign(memory, queries, {})["sample"].ids.tolist()]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(constants for _, constants in views))
    whole, _ = method.adapt({}, stacked, frozen, {})
    assert whole.prompts["language"].shape == (B, 1, 3 * P, D)
    for i, (trainable, constants) in enumerate(views):
        one, _ = method.adapt(trainable, constants, frozen, {})
        np.testing.assert_array_equal(whole.prompts["language"][i], one.prompts["language"])
        np.testing.assert_array_equal(whole.present["language"][i], one.present["language"])


def test_a_finished_tasks_tree_is_found_under_its_number():
    method = build()
    memory = remembered(method, 4)
    for number in range(4):
        trainable, _ = method.view(memory, number)
        jax.tree.map(lambda one, rows, n=number: np.testing.assert_array_equal(one, rows[n]), trainable, drawn(2, 4))


def test_a_sample_without_an_image_is_served_prompts_or_left_to_the_backbone(queries):
    both = {name: build(text_only=name) for name in ("zero_image", "bypass")}
    memory = remembered(both["bypass"], 3)
    found = {name: method.assign(memory, queries, {})["sample"] for name, method in both.items()}
    assert (found["zero_image"].ids >= 0).all()
    assert found["bypass"].ids[-1] == PLAIN
    assert found["bypass"].posterior[-1].tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(found["bypass"].ids[:-1], found["zero_image"].ids[:-1])
    for method in both.values():
        np.testing.assert_array_equal(method.assign({}, queries, {})["sample"].ids, [PLAIN] * B)


def test_the_results_tell_how_many_prompts_a_sample_has_and_how_alike_tasks_are():
    method = build()
    memory = remembered(method, 2)
    told = method.facts(memory, ("one", "two"))["prompt_sets"]
    assert (told["sets"], told["tokens"]) == (2, 2 * P)
    expected = unit(memory["prototypes"]) @ unit(memory["prototypes"]).T
    np.testing.assert_allclose(told["similarity"], expected, **CLOSE)
    assert build().facts(remembered(method, 5), tuple("abcde"))["prompt_sets"]["tokens"] == 3 * P


def test_what_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"^config\.method\.name is 'modalprompt', but the backbone takes prompts at "):
        modalprompt.build(Options(), {"vision": Site(2, 6, 16), "text": Site(2, 5, 74)}, routing.Options())
    with pytest.raises(UserError, match=r"the language model has room for 64 prompts; expected a product of at most"):
        build(sets=5, prompts=13)
    method = build(sets=8)
    method.check(["task"] * 13)
    with pytest.raises(UserError, match=r"^config\.method\.sets is 8, with which 13 tasks can be told apart, but the"):
        method.check(["task"] * 14)
    assert build().reserve == {"language": 3 * P}
