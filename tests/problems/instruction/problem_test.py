"""One training step of ModalPrompt on a small LLaVA: its losses, what it changes, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.methods import base, modalprompt, routing
from lpi_jax.models.llava import LLaVA
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.instruction.problem import SIDE, Instruction, cross_entropy
from lpi_jax.train.step import make_step
from tests.models.llava import small
from tests.reference import modalprompt as reference

WIDTH = 16  # of CLIP's features in the small model


@pytest.fixture(scope="module")
def problem():
    config, _ = small.model()
    return Instruction(LLaVA(config))


@pytest.fixture(scope="module")
def frozen():
    return jax.device_put(small.model()[1])


@pytest.fixture(scope="module")
def batch():
    """Four samples: images with questions of several lengths, and the last one of text alone."""
    rng = np.random.default_rng(0)
    ids, labels = np.zeros((4, 9), np.int32), np.full((4, 9), IGNORE, np.int32)
    length = np.array([9, 7, 8, 6], np.int32)
    for row, count in enumerate(length):
        ids[row, :count] = rng.integers(3, 60, count)
        labels[row, count - 3 : count] = ids[row, count - 3 : count]
    ids[:, 0] = 1
    ids[:3, 2] = IMAGE
    return {
        "images": small.images(4).astype(np.float32),
        "has_image": np.array([True, True, True, False]),
        "ids": ids,
        "labels": labels,
        "length": length,
        "question_ids": small.question_ids(4),
    }


def context(number):
    return base.TaskContext(
        number=number,
        names=tuple("abcdef"[: number + 1]),
        meaning=np.ones(WIDTH, np.float32) / 4,
        examples=4,
        seed=0,
        features=dict,
        batches=lambda count: iter(()),
        gradient=lambda *_: {},
    )


@pytest.fixture(scope="module")
def method(problem):
    return modalprompt.build(modalprompt.Options(sets=2, prompts=3), problem.sites, routing.Options())


@pytest.fixture(scope="module")
def trained(problem, method, frozen, batch):
    """The memories after no, one and two tasks of five steps each, and each task's losses by step."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1.0, weight_decay=0.0))
    step = make_step(problem, method, optimizer, meshes.make_mesh(1))
    memories, told = [{}], []
    for number in range(2):
        key = jax.random.key(number)
        trainable, constants = method.begin(key, memories[-1], frozen, context(number))
        state, own = step.start(trainable), []
        for _ in range(5):
            state, terms = step.run(state, frozen, constants, batch, key, jnp.float32(1e-2))
            own.append({name: float(term) for name, term in terms.items()})
        told.append(own)
        memories.append(method.finish(memories[-1], jax.device_get(state.trainable), context(number)))
    return memories, told


def whole(problem, batch, adapter):
    """Logits of all positions under an adapter, and their labels."""
    read = {name: batch[name] for name in ("ids", "images", "has_image", "length", "labels")}
    prompts = {"prompts": adapter.prompts["language"], "present": adapter.present["language"]}
    return problem.model.apply({"params": adapter.params}, **read, **prompts, method="logits")


def test_what_is_not_asked_for_is_left_out_of_the_loss_alone(problem, method, frozen, batch):
    trainable, constants = method.begin(jax.random.key(0), {}, frozen, context(0))

    def adapted(prompts):
        queries = problem.queries(frozen, batch)
        return method.adapt({**trainable, "prompts": prompts}, constants, frozen, queries)[0]

    def some(prompts):
        return problem.losses(problem.forward(batch, adapted(prompts), None), batch)["next_token"]

    def every(prompts):
        outputs = whole(problem, batch, adapted(prompts))
        return cross_entropy(outputs.logits[:, :-1], outputs.labels[:, 1:])

    outputs = problem.forward(batch, adapted(trainable["prompts"]), None)
    assert outputs.logits.shape[:2] == outputs.targets.shape == (4, batch["ids"].shape[1] - 1)
    found, expected = (jax.jit(jax.value_and_grad(loss))(trainable["prompts"]) for loss in (some, every))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)
    assert np.abs(found[1]).max() > 1e-4


def test_the_loss_of_a_step_is_the_cross_entropy_and_both_alignments(problem, method, frozen, batch, trained):
    trainable, constants = method.begin(jax.random.key(0), {}, frozen, context(0))
    queries = problem.queries(frozen, batch)
    adapter, _ = method.adapt(trainable, constants, frozen, queries)
    outputs = whole(problem, batch, adapter)
    rows = np.asarray(queries[SIDE], np.float64)
    image, text = rows[:, :WIDTH], rows[:, WIDTH:-1]
    transform = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[None], trainable["transform"])
    prototype = reference.prototypes(np.asarray(trainable["prompts"], np.float64)[None], transform)[0]
    expected = reference.losses(image, text, prototype)
    expected["next_token"] = reference.cross_entropy(np.asarray(outputs.logits, np.float64), np.asarray(outputs.labels))
    first = trained[1][0][0]
    assert {name: first[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert first["loss"] == pytest.approx(sum(expected.values()), abs=1e-5)


def test_steps_lower_the_loss_and_leave_the_backbone_and_finished_tasks_as_they_are(frozen, trained):
    memories, told = trained
    for own in told:
        assert own[-1]["loss"] < own[0]["loss"]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(frozen), small.model()[1])
    _, first, second = memories
    jax.tree.map(lambda one, both: np.testing.assert_array_equal(one[0], both[0]), first["trained"], second["trained"])
    assert second["trained"]["prompts"].shape == (2, 3, 32)


def test_a_sample_of_text_alone_is_asked_with_an_image_of_zeros(problem, frozen, batch):
    found = np.asarray(problem.queries(frozen, batch)[SIDE])
    zeros = batch | {"images": np.zeros_like(batch["images"])}
    np.testing.assert_array_equal(found[3], np.asarray(problem.queries(frozen, zeros)[SIDE])[3])
    assert not np.allclose(found[0], np.asarray(problem.queries(frozen, zeros)[SIDE])[0])
    np.testing.assert_array_equal(found[:, -1], [1, 1, 1, 0])


def test_a_batch_without_answers_has_a_loss_of_zero_and_no_gradient():
    logits, labels = jnp.ones((2, 4, 5)), jnp.full((2, 4), IGNORE)
    value, gradient = jax.value_and_grad(cross_entropy)(logits, labels)
    assert value == 0
    assert not np.any(gradient)
