"""Answers are generated once under every adapter, and are those that generating everything anew gives."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from lpi_jax.data.stream import Split
from lpi_jax.experiment.experiment import assemble
from lpi_jax.experiment.progress import Progress
from lpi_jax.methods import adapter_ids
from lpi_jax.methods.base import PLAIN
from lpi_jax.models.llava.generation import generate
from lpi_jax.models.llava.llava import Inputs
from lpi_jax.problems.instruction.scoring import scores
from lpi_jax.run.task import context

SETS = 2


@pytest.fixture(scope="module")
def splits(asked_experiment):
    return [task.val for task in asked_experiment.stream.tasks]


@pytest.fixture(scope="module")
def memories(asked_experiment):
    """What the method remembers behind no, one, two and three tasks that nobody trained, their features spread."""
    method, evaluator, found = asked_experiment.method, asked_experiment.evaluator(), [{}]
    for number, task in enumerate(asked_experiment.stream.tasks):
        progress = Progress(tuple(t.name for t in asked_experiment.stream.tasks[:number]), found[-1])
        told = context(asked_experiment, evaluator, progress)
        trainable, _ = method.begin(jax.random.key(number), found[-1], asked_experiment.backbone.params, told)
        trainable = jax.tree.map(lambda leaf: 3 * np.asarray(leaf), trainable)
        memory = method.finish(found[-1], trainable, told)
        # A prototype that is between the task's own samples, so that some change their choice and some do not.
        queries = evaluator.features(task.val, number)["sample"]
        width = queries.shape[1] // 2
        own = queries[:, :width].mean(0) + queries[:, width:-1].mean(0)
        found.append({**memory, "prototypes": np.concatenate([memory["prototypes"][:-1], own[None]])})
    return found


def naive(experiment, split, ids, memory):
    """Every answer generated anew, one by one."""
    problem, method, frozen = experiment.problem, experiment.method, experiment.backbone.params
    texts, pictures = problem.texts, experiment.evaluator()._answering._pictures
    said = []
    for index, (record, own) in enumerate(zip(split.records, ids, strict=True)):
        asked = texts.asked(record)
        inputs = Inputs(
            np.pad(np.array([asked], np.int32), ((0, 0), (0, 64 - len(asked)))),  # one program
            (pictures(split.load(index)) if record.has_image else pictures.nothing)[None],
            has_image=np.array([record.has_image]),
            length=np.array([len(asked)], np.int32),
        )
        if own != PLAIN:
            adapter, _ = method.adapt(*method.view(memory, int(own)), frozen, {})
            inputs = inputs._replace(prompts=adapter.prompts["language"], present=adapter.present["language"])
        said += texts.said(np.asarray(generate(problem.model, frozen, inputs, problem.measured.max_new).ids))
    return said


def test_cached_answers_are_those_that_are_generated_anew_and_none_is_generated_twice(
    asked_experiment, splits, memories
):
    evaluator = asked_experiment.evaluator()
    seen: set[tuple[int, int]] = set()
    changed = 0
    for number, split in enumerate(splits):
        evaluator.add(split)
        before = evaluator.answers.assigned.ids.copy()
        for tasks in (number, number + 1):
            evaluator.follow(memories[tasks], tasks)
            ids = evaluator.answers.assigned.ids
            seen |= {(sample, int(own)) for sample, own in enumerate(ids)}
            seen |= {(sample, PLAIN) for sample in range(len(ids))}
            assert evaluator.generated == len(seen)
            for task in range(number + 1):
                own = ids[evaluator.answers.task == task]
                assert evaluator.answers.said(task) == naive(asked_experiment, splits[task], own, memories[tasks])
        changed += int((before != evaluator.answers.assigned.ids).sum())
    assert 0 < changed < sum(map(len, splits)) * 3
    once = evaluator.generated
    evaluator.follow(memories[2], 2)  # as it was before
    assert evaluator.generated == once
    # Without a cache every follow would have generated all there were.
    assert once < len(splits[0]) * (1 + 2 + 3) * 2


def test_metrics_are_the_means_of_the_samples_own_scores(asked_experiment, splits, memories):
    evaluator = asked_experiment.evaluator()
    for split in splits[:2]:
        evaluator.add(split)
    evaluator.follow(memories[2], 2)
    for name, way in (("accuracy", "official"), ("released_accuracy", "released")):
        expected = [100 * np.mean(scores(evaluator.answers.said(task), splits[task].records, way)) for task in range(2)]
        np.testing.assert_allclose(evaluator.measure()[name], expected)
        np.testing.assert_allclose(evaluator.measure(first=1)[name], expected[1:])
        frozen = [
            100 * np.mean(scores(evaluator.answers.said(task, plain=True), splits[task].records, way))
            for task in range(2)
        ]
        (control,) = evaluator.controls()
        assert control.name == "frozen"
        np.testing.assert_allclose(evaluator.controls()[control][name], frozen)
        known = evaluator.intervals()[name]
        difference, low, high = known["over"]["frozen"]
        assert difference == pytest.approx(np.mean(expected) - np.mean(frozen))
        assert low <= difference <= high


def test_where_samples_are_sent_is_counted_by_their_best_task_and_by_all_chosen(asked_experiment, splits, memories):
    evaluator = asked_experiment.evaluator()
    for split in splits:
        evaluator.add(split)
    evaluator.follow(memories[3], 3)
    sent, ids = evaluator.routing(3)["sample"], evaluator.answers.assigned.ids
    chosen = [adapter_ids.decoded(int(own), SETS) for own in ids]
    true = evaluator.answers.task
    for task in range(3):
        own = [tasks for tasks, right in zip(chosen, true, strict=True) if right == task]
        assert sent["accuracy"][task] == pytest.approx(100 * np.mean([tasks[-1] == task for tasks in own]))
        assert sent["among"][task] == pytest.approx(100 * np.mean([task in tasks for tasks in own]))
        assert sent["confusion"]["matrix"][task] == [sum(tasks[-1] == other for tasks in own) for other in range(3)]


def test_a_task_that_is_told_decides_alone(asked_experiment, splits, memories):
    problem = asked_experiment.problem
    problem = dataclasses.replace(problem, measured=problem.measured._replace(oracle=True))
    evaluator = problem.evaluator(asked_experiment.method, asked_experiment.backbone.params, asked_experiment.mesh)
    for split in splits:
        evaluator.add(split)
    evaluator.follow(memories[2], 2)
    np.testing.assert_array_equal(evaluator.answers.assigned.ids, np.repeat([0, 1, PLAIN], 6))
    assert evaluator.routing(2)["sample"]["accuracy"] == [100.0, 100.0]
    for task in range(2):
        expected = naive(asked_experiment, splits[task], [task] * 6, memories[2])
        assert evaluator.answers.said(task) == expected
    assert evaluator.answers.said(2) == evaluator.answers.said(2, plain=True)


def test_a_sample_that_the_method_gives_no_prompts_keeps_none_where_tasks_are_told(asked_experiment, splits, memories):
    problem, method = asked_experiment.problem, asked_experiment.method
    problem = dataclasses.replace(problem, measured=problem.measured._replace(oracle=True))

    def assign(memory, queries, known):
        (assigned,) = method.assign(memory, queries, known).values()
        chosen = assigned.chosen.copy()
        chosen[0] = PLAIN
        return {"sample": assigned._replace(chosen=chosen)}

    bypassing = method._replace(assign=assign)
    evaluator = problem.evaluator(bypassing, asked_experiment.backbone.params, asked_experiment.mesh)
    evaluator.add(splits[0])
    evaluator.follow(memories[2], 2)
    np.testing.assert_array_equal(evaluator.answers.assigned.ids, [PLAIN] + [0] * 5)


def test_what_was_kept_is_found_again(asked_experiment, splits, memories, tmp_path):
    evaluator, again = asked_experiment.evaluator(), asked_experiment.evaluator()
    for split in splits[:2]:
        evaluator.add(split)
    evaluator.follow(memories[2], 2)
    evaluator.save(tmp_path / "features" / "task_002.json")
    again.restore(tmp_path / "features" / "task_002.json", splits[:2])
    assert again.measure() == evaluator.measure()
    assert again.routing(2) == evaluator.routing(2)
    assert again.intervals() == evaluator.intervals()
    again.follow(memories[2], 2)
    assert again.generated == 0
    for one in (evaluator, again):
        one.add(splits[2])
        one.follow(memories[3], 3)
    assert again.measure() == evaluator.measure()


def test_what_an_adapter_misses_is_one_minus_its_points(asked_experiment, splits, memories):
    method, frozen = asked_experiment.method, asked_experiment.backbone.params
    adapter, _ = method.adapt(*method.view(memories[1], 0), frozen, {})
    with_it, without = asked_experiment.evaluator().compare(splits[0], adapter)
    for found, own in ((with_it, 0), (without, PLAIN)):
        said = naive(asked_experiment, splits[0], [own] * 6, memories[1])
        np.testing.assert_allclose(found, 1 - np.array(scores(said, splits[0].records, "official")))


def test_what_a_task_is_about_is_as_wide_as_a_feature_and_of_length_one(asked_experiment, splits):
    evaluator = asked_experiment.evaluator()
    meaning = evaluator.meaning("counting marks on boxes")
    queries = evaluator.features(splits[0], 0)["sample"]
    assert queries.shape == (6, 2 * len(meaning) + 1)
    assert np.linalg.norm(meaning) == pytest.approx(1)
    np.testing.assert_array_equal(queries[:, -1], [record.has_image for record in splits[0].records])


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_each_images_own_framing_reaches_the_tower(fit, make_asked, asked_experiment):
    published = assemble(make_asked({"eval.image": "published"})).evaluator()
    records = [dataclasses.replace(asked_experiment.stream.tasks[2].val.records[0], fit=fit)]
    side, wide = 32, np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    if fit == "crop":
        square = wide[:, side // 2 : side // 2 + side]
        expected = published.features(Split(records, lambda index: Image.fromarray(square)), 0)["sample"]
    else:
        expected = asked_experiment.evaluator().features(Split(records, lambda index: Image.fromarray(wide)), 0)
        expected = expected["sample"]
    found = published.features(Split(records, lambda index: Image.fromarray(wide)), 0)["sample"]
    np.testing.assert_array_equal(found, expected)
    other = dataclasses.replace(records[0], fit="pad" if fit == "crop" else "crop")
    otherwise = published.features(Split([other], lambda index: Image.fromarray(wide)), 0)["sample"]
    assert np.abs(otherwise - found).max() > 1e-3
