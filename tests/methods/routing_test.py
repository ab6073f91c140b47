"""What a memory keeps of a rule of routing, and what it says of items from it: every rule alike."""

import chex
import numpy as np
import pytest

from lpi_jax.methods import kmeans, lda, neighbours, routing
from lpi_jax.methods.base import NOTHING, PLAIN, TaskContext
from lpi_jax.workdir.checkpoint import Checkpoints
from tests.reference import clustering, discriminant
from tests.reference import neighbours as votes

RULES = ("kmeans_l1", "lda", "knn")
TASKS = 3
SIDES = ("image", "text")


def unit_rows(seed, count, middle):
    rows = 2 * np.eye(6)[middle] + np.random.default_rng(seed).normal(size=(count, 6))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def training_items(task):
    """By side the features of a task's training items; texts lie elsewhere than images."""
    return {"image": unit_rows([task, 0], 20, task), "text": unit_rows([task, 1], 30, 5 - task)}


QUERIES = {
    side: np.concatenate([unit_rows([9, number, t], 5, t) for t in range(6)]) for number, side in enumerate(SIDES)
}


def context(task, features=training_items):
    """What a method knows of a task, as far as routing looks at it."""
    return TaskContext(
        number=task,
        names=tuple(f"task {number}" for number in range(task + 1)),
        meaning=np.eye(6, dtype=np.float32)[task],
        examples=20,
        seed=7,
        features=lambda: features(task),
        batches=None,
        gradient=None,
    )


def trained(task):
    return {"width": np.full((2, 3), task, np.float32)}


def remembered(options, tasks=TASKS):
    memory = {}
    for task in range(tasks):
        memory = routing.remembered(memory, trained(task), context(task), options)
    return memory


@pytest.fixture(params=RULES)
def options(request):
    return routing.Options(rule=request.param, centres=2, shrinkage=0.003, neighbours=4, none=0.99)


def test_a_memory_has_the_trained_trees_what_the_tasks_are_about_and_the_rules_state_of_each_side(options):
    memory = remembered(options)
    np.testing.assert_array_equal(memory["trained"]["width"], [np.full((2, 3), task) for task in range(TASKS)])
    np.testing.assert_array_equal(memory["descriptions"], np.eye(6)[:TASKS])
    names = {
        "kmeans_l1": ["centres"],
        "lda": ["counts", "means", "reach", "scatter"],
        "knn": ["items", "reach", "tasks"],
    }
    for side in SIDES:
        assert sorted(routing.state(memory, side)) == names[options.rule]
    assert len(memory) == 2 + 2 * len(names[options.rule])


def test_the_state_is_that_of_the_rule_itself(options):
    memory = remembered(options)
    for side in SIDES:
        state = {}
        for task in range(TASKS):
            items = training_items(task)[side]
            if options.rule == "kmeans_l1":
                state = kmeans.learnt(state, items, 2, 7)
            else:
                state = {"lda": lda, "knn": neighbours}[options.rule].learnt(state, items, options)
        chex.assert_trees_all_equal(routing.state(memory, side), state)


def test_items_are_sent_where_the_reference_sends_them_sides_apart(options):
    memory = remembered(options)
    found = routing.assign(memory, QUERIES, NOTHING, options)
    for side, items in QUERIES.items():
        tasks = [training_items(task)[side] for task in range(TASKS)]
        expected = {
            "kmeans_l1": lambda tasks=tasks, items=items, side=side: np.eye(TASKS + 1)[
                clustering.route(items, memory[f"{side}_centres"])
            ],
            "lda": lambda tasks=tasks, items=items: discriminant.posterior(tasks, items, 0.003, 0.99),
            "knn": lambda tasks=tasks, items=items: votes.posterior(tasks, items, 4, 0.99),
        }[options.rule]()
        np.testing.assert_allclose(found[side].posterior, expected, rtol=0, atol=1e-5)
        best = expected.argmax(1)
        sure = np.sort(expected, axis=1)[:, -1] > np.sort(expected, axis=1)[:, -2] + 1e-4
        np.testing.assert_array_equal(found[side].ids[sure], np.where(best == TASKS, PLAIN, best)[sure])
        assert len(set(found[side].ids)) >= TASKS
    assert list(routing.assign(memory, {"text": QUERIES["text"]}, NOTHING, options)) == ["text"]


def test_what_is_said_of_a_side_depends_on_nothing_of_the_other(options):
    def swapped(task):
        return {**training_items(task), "image": training_items(5 - task)["image"]}

    memory, other = remembered(options), {}
    for task in range(TASKS):
        other = routing.remembered(other, trained(task), context(task, swapped), options)
    one, two = (routing.assign(known, QUERIES, NOTHING, options) for known in (memory, other))
    chex.assert_trees_all_equal(one["text"], two["text"])
    assert (one["image"].ids != two["image"].ids).any()


def test_an_empty_memory_sends_every_item_nowhere(options):
    found = routing.assign({}, QUERIES, NOTHING, options)
    for side, items in QUERIES.items():
        np.testing.assert_array_equal(found[side].ids, [PLAIN] * len(items))
        np.testing.assert_array_equal(found[side].posterior, np.ones((len(items), 1)))


def test_what_was_said_before_changes_nothing_of_what_is_said_now(options):
    known = NOTHING
    for count in range(TASKS + 1):
        memory = remembered(options, count)
        known = routing.assign(memory, QUERIES, known, options)
        chex.assert_trees_all_equal(known, routing.assign(memory, QUERIES, NOTHING, options))
        for side in SIDES:
            assert known[side].posterior.shape == (len(QUERIES[side]), count + 1)


def test_through_a_checkpoint_comes_every_bit_and_learning_goes_on_as_without(options, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.prepare()
    memory = remembered(options, TASKS - 1)
    checkpoints.save_task(TASKS - 1, memory, {})
    found, _ = Checkpoints(tmp_path).load_task(TASKS - 1)
    chex.assert_trees_all_equal(found, memory)
    chex.assert_trees_all_equal_dtypes(found, memory)
    if options.rule == "lda":
        assert found["image_scatter"].dtype == np.float64
        assert (found["image_scatter"] != found["image_scatter"].astype(np.float32)).any()
    last = TASKS - 1
    grown = routing.remembered(found, trained(last), context(last), options)
    chex.assert_trees_all_equal(grown, remembered(options))
    chex.assert_trees_all_equal(
        routing.assign(grown, QUERIES, NOTHING, options), routing.assign(remembered(options), QUERIES, NOTHING, options)
    )


def test_what_a_method_trained_may_be_nothing(options):
    memory = routing.remembered({}, {}, context(0), options)
    memory = routing.remembered(memory, {}, context(1), options)
    assert memory["trained"] == {}
    assert len(memory["descriptions"]) == 2


def test_every_rule_that_can_be_chosen_is_one_of_those_tested():
    assert tuple(routing.RULES) == RULES
