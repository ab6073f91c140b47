"""O-LoRA and MoE-LoRA against NumPy: what enters the layers, what is kept apart, and what a finished task keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import leaves, lora, moe_lora, o_lora, routing
from lpi_jax.methods.base import Site, TaskContext
from lpi_jax.models.llava.linear import Linear

SITES = {"language": Site(1, 8, 32)}
SHAPES = {
    "language_model/layers_0/self_attn/q_proj/kernel": (6, 4),
    "language_model/layers_0/mlp/down_proj/kernel": (5, 6),
    "language_model/layers_0/self_attn/o_proj/kernel": (4, 6),
    "text_model/layers_0/self_attn/q_proj/kernel": (3, 3),
    "language_model/norm/scale": (6,),
}
CHOSEN = sorted(SHAPES)[0], sorted(SHAPES)[2]


def drawn(shapes, seed):
    rng = np.random.default_rng(seed)
    return leaves.nested({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()})


def task(number):
    names = tuple("abcdefgh"[: number + 1])
    return TaskContext(number, names, np.zeros(4, np.float32), 1, 0, None, None, None)


@pytest.fixture
def frozen():
    return drawn(SHAPES, 0)


def random_like(tree, seed):
    shapes = {path: leaf.shape for path, leaf in leaves.flat(tree).items()}
    return jax.tree.map(jnp.asarray, drawn(shapes, seed))


@pytest.fixture
def three_tasks(frozen):
    """The method, its memory behind three tasks, and what was trained in each."""
    method = o_lora.build(o_lora.Options(rank=2, scale=3.0), SITES, routing.Options())
    memory, trained = {}, []
    for number in range(3):
        trainable, _ = method.begin(jax.random.key(number), memory, frozen, task(number))
        trained.append(random_like(trainable, number + 10))
        memory = method.finish(memory, trained[-1], task(number))
    return method, memory, trained


def kernel_of(tree, path):
    """A kernel with what stands beside it."""
    own, layer = leaves.flat(tree), path.removesuffix("kernel")
    low = np.float64(own[f"{layer}low/a"]) @ np.float64(own[f"{layer}low/b"]) if f"{layer}low/a" in own else 0
    return np.float64(own[path]) + low


def test_usual_matrices_of_a_language_model_are_its_own(frozen):
    assert tuple(lora.matrices(frozen, lora.usual(SITES))) == CHOSEN
    assert list(lora.matrices(frozen, lora.usual({}))) == [path for path in sorted(SHAPES) if "q_proj" in path]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_every_stage_of_o_lora_is_the_sum_of_its_tasks(stage, frozen, three_tasks):
    method, memory, trained = three_tasks
    adapter, _ = method.adapt(*method.view(memory, stage), frozen, {})
    for path in SHAPES:
        expected = np.float64(leaves.flat(frozen)[path])
        for one in map(leaves.flat, trained[: stage + 1]):
            if path in CHOSEN:
                expected = expected + 1.5 * np.float64(one[f"{path}/a"]) @ np.float64(one[f"{path}/b"])
        np.testing.assert_allclose(kernel_of(adapter.params, path), expected, rtol=1e-5, atol=1e-5)


def test_o_lora_starts_a_task_where_the_last_one_ended(frozen, three_tasks):
    method, memory, _ = three_tasks
    before, _ = method.adapt(*method.view(memory, 2), frozen, {})
    begun, _ = method.adapt(*method.begin(jax.random.key(9), memory, frozen, task(3)), frozen, {})
    for path in SHAPES:
        np.testing.assert_allclose(kernel_of(begun.params, path), kernel_of(before.params, path), rtol=1e-5, atol=1e-6)


def test_o_lora_keeps_a_task_from_what_earlier_ones_read(frozen, three_tasks):
    method, memory, trained = three_tasks
    trainable, constants = method.begin(jax.random.key(9), memory, frozen, task(3))
    expected = 0.0
    for one in map(leaves.flat, trained):
        for path in CHOSEN:
            expected += np.sum(np.square(np.float64(one[f"{path}/a"]).T @ leaves.flat(trainable)[f"{path}/a"]))
    found = method.losses(trainable, constants, None, None, None, None)
    assert found.keys() == {"orthogonal"}
    np.testing.assert_allclose(found["orthogonal"], 0.5 * expected, rtol=1e-5)
    first = method.losses(*method.begin(jax.random.key(9), {}, frozen, task(0)), None, None, None, None)
    assert float(first["orthogonal"]) == 0


def test_one_compiled_step_serves_every_task_of_o_lora(frozen, three_tasks):
    method, memory, _ = three_tasks
    shapes = [
        jax.tree.map(np.shape, method.begin(jax.random.key(0), known, frozen, task(number)))
        for number, known in ((0, {}), (3, memory))
    ]
    assert shapes[0] == shapes[1]


def test_what_stands_beside_a_kernel_is_what_would_be_merged_with_it(frozen):
    options = lora.Options(where=r"q_proj|norm_out", rank=2, scale=3.0)
    trained = random_like(lora.init(options, frozen, jax.random.key(0)), 5)
    params = lora.in_place(options, trained, frozen)
    x = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    path = CHOSEN[1]
    low = leaves.flat(trained)
    merged = leaves.flat(frozen)[path] + 1.5 * low[f"{path}/a"] @ low[f"{path}/b"]
    found = Linear(4, jnp.float32).apply({"params": params["language_model"]["layers_0"]["self_attn"]["q_proj"]}, x)
    np.testing.assert_allclose(found, x @ merged, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        params["text_model"]["layers_0"]["self_attn"]["q_proj"]["kernel"],
        kernel_of(frozen, (text := CHOSEN[1].replace("language", "text"))) + 1.5 * low[f"{text}/a"] @ low[f"{text}/b"],
        rtol=1e-5,
        atol=1e-5,
    )


# ---- MoE-LoRA --------------------------------------------------------------------------------------------------------

MOE = moe_lora.Options(where=r"q_proj|down_proj", rank=2, scale=3.0, experts=3)


def test_experts_stand_beside_the_kernels_of_blocks_alone(frozen):
    with pytest.raises(UserError, match=r"found in 'text_model/layers_0/self_attn/q_proj/kernel'; expected linear"):
        moe_lora.layers(frozen, MOE.where)
    method = moe_lora.build(moe_lora.Options(rank=2, experts=3), SITES, routing.Options())
    trainable, constants = method.begin(jax.random.key(0), {}, frozen, task(0))
    adapter, _ = method.adapt(trainable, constants, frozen, {})
    added = leaves.flat(adapter.params).keys() - SHAPES.keys()
    assert added == {f"{path.removesuffix('kernel')}experts/{name}" for path in CHOSEN for name in ("gate", "a", "b")}


def test_a_layer_mixes_its_experts_as_numpy_does():
    rng = np.random.default_rng(0)
    sizes = {"gate": (6, 3), "a": (3, 6, 2), "b": (3, 2, 4)}
    experts = {name: rng.normal(size=shape).astype(np.float32) for name, shape in sizes.items()}
    kernel, x = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(2, 5, 6)).astype(np.float32)
    tree = {"language_model": {"layers_0": {"self_attn": {"q_proj": {"kernel": kernel}}}}}
    trained = {"language_model": {"layers_0": {"self_attn": {"q_proj": {"experts": experts}}}}}
    beside = moe_lora.beside(MOE, trained, tree)
    layer = beside["language_model"]["layers_0"]["self_attn"]["q_proj"]
    with jax.default_matmul_precision("highest"):
        found = Linear(4, jnp.float32).apply({"params": layer}, x)
        plain = Linear(4, jnp.float32).apply({"params": {"kernel": kernel}}, x)
    expected = np.einsum("bqi,io->bqo", np.float64(x), kernel)
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-5)
    shares = np.exp(np.float64(x) @ experts["gate"])
    shares /= shares.sum(-1, keepdims=True)
    for n in range(3):
        expected = expected + 1.5 * shares[..., n, None] * (np.float64(x) @ experts["a"][n] @ experts["b"][n])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_moe_lora_begins_as_the_backbone_and_goes_on(frozen):
    options = moe_lora.Options(rank=2, experts=3)
    method = moe_lora.build(options, SITES, routing.Options())
    trainable, _ = method.begin(jax.random.key(0), {}, frozen, task(0))
    layer = method.adapt(trainable, {}, frozen, {})[0].params["language_model"]["layers_0"]["mlp"]["down_proj"]
    x = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    plain = Linear(6, jnp.float32).apply({"params": {"kernel": layer["kernel"]}}, x)
    np.testing.assert_array_equal(Linear(6, jnp.float32).apply({"params": layer}, x), plain)
    trained = random_like(trainable, 3)
    memory = method.finish({}, trained, task(0))
    again, _ = method.begin(jax.random.key(1), memory, frozen, task(1))
    jax.tree.map(np.testing.assert_array_equal, again, trained)
