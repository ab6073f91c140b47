"""ModalPrompt against cases worked by hand, NumPy and PyTorch: who is chosen, what is learnt, and what never moves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import adapter_ids, modalprompt, routing
from lpi_jax.methods.base import PLAIN, Site
from lpi_jax.methods.modalprompt import Options, losses, prototypes, scores, select
from lpi_jax.methods.prototypes import select_padded
from lpi_jax.parallel import mesh as meshes
from lpi_jax.train import optimizer, step
from tests.reference import modalprompt as reference
from tests.reference.gradients import finite_differences

D, C, P, V, B = 6, 5, 2, 11, 4
SITES = {"language": Site(1, D, 64)}
SMALL = {"prompts": P, "sets": 3}
LAYERS = ("hidden", "out")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Context(NamedTuple):
    """What the method asks of a task."""

    number: int
    last: bool = False
    meaning: np.ndarray = np.zeros(C, np.float32)


def build(**options):
    return modalprompt.build(Options(**{**SMALL, **options}), SITES, routing.Options())


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-8)


def through(transform, prompts):
    """[P, C] float64: the network of one task, row by row."""
    hidden = prompts @ transform["hidden"]["kernel"] + transform["hidden"]["bias"]
    return hidden / (1 + np.exp(-hidden)) @ transform["out"]["kernel"] + transform["out"]["bias"]


@pytest.fixture(scope="module")
def frozen():
    table = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
    return {"language_model": {"embed_tokens": {"embedding": jnp.asarray(table)}}}


@pytest.fixture(scope="module")
def queries():
    """Of a batch whose last sample is text alone."""
    rows = np.random.default_rng(1).normal(size=(B, 2 * C)).astype(np.float32)
    return {"sample": np.concatenate([rows, np.array([[1], [1], [1], [0]], np.float32)], 1)}


def drawn(seed, tasks):
    """Stacked trees of so many tasks, leaves [T, ...]."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        return rng.normal(size=(tasks, *shape)).astype(np.float32)

    return {
        "prompts": rows(P, D),
        "transform": {
            "hidden": {"kernel": rows(D, D), "bias": rows(D)},
            "out": {"kernel": rows(D, C), "bias": rows(C)},
        },
    }


def remembered(method, tasks, seed=2):
    """The memory of a method behind so many drawn tasks."""
    memory, stacked = {}, drawn(seed, tasks)
    for number in range(tasks):
        memory = method.finish(memory, jax.tree.map(lambda leaf, n=number: leaf[n], stacked), Context(number))
    return memory


# ---- which tasks are chosen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "k", "training", "serving"),
    [
        ((0.1, 0.5, 0.3, 0.9), 3, [3, 2, 4], [3, 2, 4]),
        ((0.1, 0.5, 0.3, 0.2), 3, [3, 2, 4], [4, 3, 2]),
        ((0.5, 0.1, 0.3, 0.2), 3, [3, 1, 4], [4, 3, 1]),
        ((0.9, 0.1), 3, [1, 2], [2, 1]),
        ((0.9, 0.1, 0.5), 3, [2, 1, 3], [2, 3, 1]),
        ((0.4,), 3, [1], [1]),
        ((0.4,), 2, [1], [1]),
        ((0.9, 0.1), 2, [1, 2], [2, 1]),
        ((0.1, 0.9, 0.5), 2, [2, 3], [3, 2]),
        ((0.9, 0.1, 0.5), 1, [3], [1]),
        ((0.9, 0.1, 0.5), 5, [1, 2, 3], [2, 3, 1]),
    ],
)
def test_the_order_of_what_is_chosen_is_as_worked_by_hand(row, k, training, serving):
    rows = np.array([row], np.float32)
    for mode, expected in ((True, training), (False, serving)):
        found = select(rows, k, training=mode)
        assert found.dtype == np.int32
        assert (found[0] + 1).tolist() == expected


def test_of_equal_scores_the_earlier_task_counts_as_the_better():
    rows = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
    assert select(rows, 2, training=False).tolist() == [[1, 0]]
    assert select(rows, 3, training=True).tolist() == [[1, 0, 3]]


def by_rule(row, k, training):
    """One sample's choice, by sorting."""
    tasks = list(range(len(row)))
    if not training:
        return sorted(tasks, key=lambda i: row[i])[-k:]
    if len(tasks) < k or k == 1:
        return tasks[-k:]
    return [*sorted(tasks[:-1], key=lambda i: row[i])[-(k - 1) :], tasks[-1]]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_choice_is_the_rule_and_the_same_under_a_larger_capacity(k, count):
    rng = np.random.default_rng([k, count])
    rows = rng.uniform(-1, 1, (9, count)).astype(np.float32)
    room = np.concatenate([rows, rng.uniform(-1, 1, (9, 12 - count)).astype(np.float32)], 1)
    for training in (False, True):
        expected = [by_rule(row, k, training) for row in rows]
        np.testing.assert_array_equal(select(rows, k, training), expected)
        choose = jax.jit(lambda rows, count, mode=training: select_padded(rows, count, k, mode))
        tasks, there = choose(room, count)
        assert tasks.shape == there.shape == (9, k)
        kept = min(k, count)
        np.testing.assert_array_equal(tasks[:, k - kept :], expected)
        np.testing.assert_array_equal(there, np.broadcast_to(np.arange(k) >= k - kept, (9, k)))


# ---- scores, prototypes, losses --------------------------------------------------------------------------------------


def test_a_prototype_is_the_mean_behind_the_network_and_not_before_it():
    stacked = drawn(3, 4)
    found = prototypes(stacked["prompts"], stacked["transform"])
    assert found.shape == (4, C)
    assert found.dtype == np.float32
    for number in range(4):
        one = jax.tree.map(lambda leaf, n=number: leaf[n].astype(np.float64), stacked)
        expected = through(one["transform"], one["prompts"]).mean(0)
        np.testing.assert_allclose(found[number], expected, **CLOSE)
        assert np.abs(through(one["transform"], one["prompts"].mean(0)) - expected).max() > 1e-2


def test_prototypes_and_scores_are_float32_whatever_comes_in():
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), drawn(3, 2))
    found = prototypes(stacked["prompts"], stacked["transform"])
    assert found.dtype == jnp.float32
    rows = jnp.ones((3, C), jnp.bfloat16)
    assert scores(rows, rows, found).dtype == jnp.float32
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), stacked)
    np.testing.assert_array_equal(found, prototypes(exact["prompts"], exact["transform"]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_score_is_the_images_share_of_its_cosine_and_the_texts_rest(share):
    rng = np.random.default_rng(4)
    image, text, rows = (rng.normal(size=(n, C)).astype(np.float32) for n in (B, B, 3))
    expected = share * unit(image) @ unit(rows).T + (1 - share) * unit(text) @ unit(rows).T
    np.testing.assert_allclose(scores(image, text, rows, share), expected, **CLOSE)
    if share == 0.5:
        np.testing.assert_array_equal(scores(image, text, rows), scores(image, text, rows, share))


def test_the_losses_are_one_less_the_mean_cosines_and_least_along_the_mean_direction():
    rng = np.random.default_rng(5)
    image, text, row = (rng.normal(size=shape).astype(np.float32) for shape in ((B, C), (B, C), C))

    def total(prototype):
        return sum(losses(image, text, prototype).values())

    found = losses(image, text, row)
    assert found.keys() == {"align_image", "align_text"}
    np.testing.assert_allclose(found["align_image"], 1 - (unit(image) @ unit(row)).mean(), **CLOSE)
    np.testing.assert_allclose(found["align_text"], 1 - (unit(text) @ unit(row)).mean(), **CLOSE)
    best = 3 * (unit(image).mean(0) + unit(text).mean(0))
    np.testing.assert_allclose(jax.grad(total)(best), np.zeros(C), atol=1e-6)
    assert all(total(best) < total(best + 0.1 * rng.normal(size=C)) for _ in range(20))
    np.testing.assert_allclose(total(best), 2 - np.linalg.norm(best) / 3, **CLOSE)


def test_features_of_length_zero_have_cosines_of_zero_and_no_gradient():
    nothing, row = np.zeros((2, C), np.float32), np.ones(C, np.float32)
    np.testing.assert_array_equal(scores(nothing, nothing, row[None]), np.zeros((2, 1)))
    gradient = jax.grad(lambda p: sum(losses(np.ones((2, C), np.float32), nothing, p).values()))(np.zeros(C))
    assert np.isfinite(gradient).all()


def test_prototypes_scores_and_losses_are_pytorchs():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    stacked, rng = drawn(6, 3), np.random.default_rng(6)
    image, text = (rng.normal(size=(B, C)).astype(np.float32) for _ in range(2))
    image[0] *= 1e-9
    theirs = []
    for number in range(3):
        first, second = torch.nn.Linear(D, D), torch.nn.Linear(D, C)
        for layer, name in ((first, "hidden"), (second, "out")):
            own = stacked["transform"][name]
            layer.weight.data = torch.tensor(own["kernel"][number].T.copy())
            layer.bias.data = torch.tensor(own["bias"][number])
        network = torch.nn.Sequential(first, torch.nn.SiLU(), second)
        theirs.append(network(torch.tensor(stacked["prompts"][number])).mean(0))
    theirs = torch.stack(theirs).detach()
    ours = prototypes(stacked["prompts"], stacked["transform"])
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    v, q = (torch.tensor(rows)[:, None] for rows in (image, text))
    alike = [torch.cosine_similarity(rows, theirs[None], dim=-1) for rows in (v, q)]
    np.testing.assert_allclose(scores(image, text, ours), (alike[0] + alike[1]) / 2, **CLOSE)
    found = losses(image, text, ours[1])
    np.testing.assert_allclose(found["align_image"], 1 - alike[0][:, 1].mean(), **CLOSE)
    np.testing.assert_allclose(found["align_text"], 1 - alike[1][:, 1].mean(), **CLOSE)


@pytest.mark.parametrize("seed", range(4))
def test_prototypes_scores_choices_losses_and_their_gradients_are_the_references(seed):
    rng = np.random.default_rng([13, seed])
    tasks, share = int(rng.integers(1, 7)), float(rng.uniform())
    stacked = drawn([13, seed], tasks)
    image, text = (rng.normal(size=(B, C)).astype(np.float32) for _ in range(2))
    ours = prototypes(stacked["prompts"], stacked["transform"])
    theirs = reference.prototypes(stacked["prompts"], stacked["transform"])
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    ranked = scores(image, text, ours, share)
    np.testing.assert_allclose(ranked, reference.scores(image, text, theirs, share), **CLOSE)
    for k in (1, 2, 3, 5):
        for training in (False, True):
            expected = reference.select(np.asarray(ranked), k, training)
            np.testing.assert_array_equal(select(ranked, k, training), expected)

    def total(tree):
        return sum(losses(image, text, prototypes(tree["prompts"], tree["transform"])[-1]).values())

    assert total(stacked) == pytest.approx(sum(reference.losses(image, text, theirs[-1]).values()), rel=1e-5)
    expected = reference.alignment_gradients(image, text, stacked["prompts"], stacked["transform"])
    gradient = jax.grad(total)(stacked)
    np.testing.assert_allclose(gradient["prompts"], expected[0], **CLOSE)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **CLOSE), gradient["transform"], expected[1])


# ---- how a task begins -----------------------------------------------------------------------------------------------


def test_prompts_begin_as_rows_of_the_vocabulary_and_networks_within_their_bounds(frozen):
    table = np.asarray(modalprompt.vocabulary(frozen))
    one = modalprompt.init(jax.random.key(0), Options(prompts=50), table, C)
    assert {tuple(row) for row in one["prompts"]} <= {tuple(row) for row in table}
    assert len(np.unique(one["prompts"], axis=0)) > V // 2
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


# ---- training tasks --------------------------------------------------------------------------------------------------


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
    return Trained(memories, begun, stepping.run._cache_size(), terms), on_device


@pytest.fixture(scope="module")
def backbone(frozen):
    return {**frozen, "bias": np.linspace(-1, 1, D, dtype=np.float32)}


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
    chosen = modalprompt.choices(memory, rows, method.options)
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
