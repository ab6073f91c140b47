"""Tasks of ModalPrompt through the real step on a toy problem: what is learnt, and what never moves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.methods.modalprompt import prototypes
from lpi_jax.parallel import mesh as meshes
from lpi_jax.train import optimizer, step
from tests.reference import modalprompt as reference
from tests.support.small_modalprompt import CLOSE, B, C, Context, D, build, vocabulary


class Toy:
    """A problem with ModalPrompt's site: a batch is {"queries", "wanted" [B, D]}, and prompts should add up to it."""

    def queries(self, frozen, batch):
        return {"sample": batch["queries"]}

    def forward(self, batch, adapter, key):
        prompts, present = adapter.prompts["language"][:, 0], adapter.present["language"]
        return jnp.where(present[..., None], jnp.tanh(prompts + adapter.params["bias"]), 0).sum(1)

    def losses(self, outputs, batch):
        return {"toy": jnp.mean((outputs - batch["wanted"]) ** 2)}


class Trained(NamedTuple):
    memories: list[Any]
    begun: list[Any]
    programs: int
    terms: list[Any]


def batches(number, epoch, count=5):
    """Of a task whose images and texts lie around an axis of its own."""
    rng = np.random.default_rng([10, number, epoch])
    for _ in range(count):
        features = np.tile(np.eye(C)[number], 2) + 0.1 * rng.normal(size=(B, 2 * C))
        rows = np.concatenate([features, np.ones((B, 1))], 1).astype(np.float32)
        yield {"queries": rows, "wanted": rng.normal(size=(B, D)).astype(np.float32)}


RECIPE = {
    "optimizer": "adamw",
    "optimizer_args": {"weight_decay": 0.0},
    "clip_norm": 1.0,
    "schedule": "log",
    "epochs": 10,
    "lr": 2e-2,
}


def train(method, frozen, tasks, last=None):
    """So many tasks of the toy, of fifty steps each."""
    training = optimizer.Options(**RECIPE)
    mesh = meshes.make_mesh(1)
    stepping = step.make_step(Toy(), method, optimizer.make_optimizer(training), mesh)
    memory, memories, begun, terms = {}, [], [], []
    rate = optimizer.learning_rate(training, 5)
    on_device = meshes.put_replicated(frozen, mesh)
    for number in range(tasks):
        key = jax.random.fold_in(jax.random.key(11), number)
        trainable, constants = method.begin(key, memory, on_device, Context(number, last=number == last))
        begun.append(jax.tree.map(np.array, trainable))
        plan = step.Task(on_device, meshes.put_replicated(constants, mesh), key, rate)
        logged = []
        state = step.fit(
            stepping.start(trainable),
            stepping,
            plan,
            [batch for epoch in range(training.epochs) for batch in batches(number, epoch)],
            lambda state, done, own, waited, logged=logged: logged.append(jax.tree.map(float, own)),
        )
        terms.append(logged)
        memory = method.finish(memory, jax.tree.map(np.asarray, state.trainable), Context(number))
        memories.append(memory)
    return Trained(memories, begun, len(stepping.run.programs), terms), on_device


@pytest.fixture(scope="module")
def backbone():
    return {**vocabulary(), "bias": np.linspace(-1, 1, D, dtype=np.float32)}


@pytest.fixture(scope="module")
def trained(backbone):
    return train(build(), backbone, 4)


def test_one_program_trains_all_tasks_and_each_loss_is_logged(trained):
    run, _ = trained
    assert run.programs == 1
    for logged in run.terms:
        assert all(line.keys() == {"loss", "toy", "align_image", "align_text"} for line in logged)
        assert logged[-1]["loss"] < logged[0]["loss"]


def test_the_backbone_and_finished_tasks_keep_their_bits(trained, backbone):
    run, on_device = trained
    jax.tree.map(np.testing.assert_array_equal, on_device, backbone)
    for count, memory in enumerate(run.memories, 1):
        assert memory["prototypes"].shape == (count, C)
        jax.tree.map(lambda leaf, n=count: np.testing.assert_equal(len(leaf), n), memory["trained"])
        if count > 1:
            earlier = jax.tree.map(lambda leaf: leaf[:-1], memory)
            jax.tree.map(np.testing.assert_array_equal, earlier, run.memories[count - 2])
    own = run.memories[-1]["trained"]
    np.testing.assert_allclose(
        run.memories[-1]["prototypes"], prototypes(own["prompts"], own["transform"]), rtol=1e-6, atol=1e-6
    )
    for number, begun in enumerate(run.begun):
        moved = jax.tree.map(lambda leaf, start, n=number: (leaf[n] != start).any(), own, begun)
        assert all(jax.tree.leaves(moved))


def test_with_freeze_last_the_last_tasks_prompts_stay_as_drawn_and_its_network_learns(trained, backbone):
    run, _ = trained
    held, _ = train(build(freeze_last=True), backbone, 4, last=3)
    assert held.programs == 1
    jax.tree.map(np.testing.assert_array_equal, held.memories[2], run.memories[2])
    own = held.memories[3]["trained"]
    np.testing.assert_array_equal(own["prompts"][3], held.begun[3]["prompts"])
    for name, layer in own["transform"].items():
        assert (layer["kernel"][3] != held.begun[3]["transform"][name]["kernel"]).any()


def test_samples_are_sent_to_the_task_that_learnt_their_like(trained):
    run, _ = trained
    method = build()
    for number in range(4):
        (batch,) = batches(number, epoch=99, count=1)
        assigned = method.assign(run.memories[-1], {"sample": batch["queries"]}, {})["sample"]
        np.testing.assert_array_equal(assigned.posterior.argmax(1), number)


def test_a_run_is_decided_by_its_seed(trained, backbone):
    run, _ = trained
    again, _ = train(build(), backbone, 2)
    jax.tree.map(np.testing.assert_array_equal, again.memories[1], run.memories[1])


def test_the_recipe_steps_as_the_reference():
    training = optimizer.Options(**RECIPE)
    ours, rate = optimizer.make_optimizer(training), optimizer.learning_rate(training, 20)
    params = begin = {"a": np.ones((3, 2), np.float32), "b": np.zeros(4, np.float32)}
    state, theirs, their_state, rng = ours.init(begin), begin, None, np.random.default_rng(14)
    for number in range(12):
        gradient = {name: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32) for name, leaf in begin.items()}
        lr = reference.ds_log_const(number, 200, RECIPE["lr"])
        assert rate(number) == pytest.approx(lr, rel=1e-12)
        updates, state = ours.update(gradient, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u, n=number: rate(n) * u, updates))
        theirs, their_state = reference.adamw(theirs, gradient, their_state, lr)
    for name, leaf in theirs.items():
        np.testing.assert_allclose(params[name], leaf, **CLOSE)


def test_the_recipe_steps_as_pytorchs_adamw_behind_its_clipping():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    training = optimizer.Options(**RECIPE)
    ours, rate = optimizer.make_optimizer(training), optimizer.learning_rate(training, 5)
    begin = {"a": np.ones((3, 2), np.float32), "b": np.zeros(4, np.float32)}
    params, state = begin, ours.init(begin)
    theirs = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in begin.values()]
    adamw = torch.optim.AdamW(theirs, lr=1.0, weight_decay=0.0)
    rng = np.random.default_rng(12)
    for number in range(10):
        gradient = {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in begin.items()}
        updates, state = ours.update(gradient, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u, n=number: rate(n) * u, updates))
        for leaf, own in zip(theirs, gradient.values(), strict=True):
            leaf.grad = torch.tensor(own)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        adamw.param_groups[0]["lr"] = rate(number)
        adamw.step()
    for leaf, own in zip(theirs, params.values(), strict=True):
        np.testing.assert_allclose(own, leaf.detach(), **CLOSE)
