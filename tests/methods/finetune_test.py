"""Fine-tuning: which leaves are trained, where they go, the logit scale's cap, and no buffer that two trees share."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.methods import ewc, finetune, leaves, lora
from lpi_jax.methods.base import PLAIN, TaskContext, to_newest
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig, param_shapes
from lpi_jax.problems.retrieval.assemble import BUNDLED

CLIP_B16 = CLIPConfig(
    image_size=224,
    patch_size=16,
    embed_dim=512,
    vision=TowerConfig(768, 12, 12, 3072),
    text=TowerConfig(512, 12, 8, 2048),
    vocab_size=49408,
)
MODULES = {"finetune": finetune, "ewc": ewc, "lora": lora}


@functools.cache
def shapes(config):
    return param_shapes(config)


def size(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def backbone():
    """A little tree such as a backbone's, on the device."""
    rng = np.random.default_rng(0)
    kernel = {"kernel": rng.normal(size=(3, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}
    tree = {"tower": {"self_attn": {"q_proj": kernel}}, "logit_scale": np.float32(3)}
    return jax.tree.map(jnp.array, tree)


def task(number=0, **given) -> TaskContext:
    nothing = dict.fromkeys(TaskContext._fields)
    return TaskContext(**{**nothing, "number": number, "names": (), "seed": 0, **given})


def built(module, **options):
    return module.build(module.Options(**options), {}, None)


def begun(method, memory, frozen):
    return method.begin(jax.random.key(1), memory, frozen, task())


# ------------------------------------------------------------------------------------------------------------- leaves


def test_all_but_the_logit_scale_is_trained_unless_a_pattern_says_otherwise():
    frozen = backbone()
    trainable, _ = begun(built(finetune), {}, frozen)
    assert set(leaves.flat(trainable)) == set(leaves.flat(frozen)) - {"logit_scale"}
    trainable, _ = begun(built(finetune, where="bias$|^logit"), {}, frozen)
    assert set(leaves.flat(trainable)) == {"tower/self_attn/q_proj/bias", "logit_scale"}


def test_trained_leaves_stand_in_place_of_the_frozen_ones_and_all_others_are_the_same_objects():
    frozen, method = backbone(), built(finetune, where="kernel")
    trainable = {"tower": {"self_attn": {"q_proj": {"kernel": jnp.ones((3, 4))}}}}
    adapter, _ = method.adapt(trainable, {}, frozen, {})
    found, before = leaves.flat(adapter.params), leaves.flat(frozen)
    np.testing.assert_array_equal(found["tower/self_attn/q_proj/kernel"], np.ones((3, 4)))
    for path in before.keys() - {"tower/self_attn/q_proj/kernel"}:
        assert found[path] is before[path]
    assert not adapter.prompts


def test_a_trained_logit_scale_is_capped_at_100_and_can_come_down_again():
    frozen, method = backbone(), built(finetune, where="logit_scale")

    def factor(value):
        return jnp.exp(method.adapt({"logit_scale": value}, {}, frozen, {})[0].params["logit_scale"])

    assert float(factor(jnp.float32(4.0))) == pytest.approx(math.exp(4.0))
    assert float(factor(jnp.float32(9.0))) == pytest.approx(100)
    assert float(jax.grad(factor)(jnp.float32(9.0))) == pytest.approx(100)


@pytest.mark.parametrize(
    ("name", "bundled", "clip_b16"),
    [
        # By hand. A block of width D with 4 D hidden units: 12 D² + 13 D numbers. ViT-B/16, images: 12 blocks of 768,
        # 3 * 16² * 768 patches, 197 positions, a class token, two norms, 768 * 512; text: 12 blocks of 512, 49,408
        # words, 77 positions, a norm, 512 * 512. Bundled: 4 blocks of 192 with 3 * 10² patches and 37 positions to 128;
        # 4 of 128 with 2,048 words.
        ("finetune", 1_878_144 + 1_073_280, 86_192_640 + 63_428_096),
        ("ewc", 1_878_144 + 1_073_280, 86_192_640 + 63_428_096),
        # 2 matrices a block, 4 * 2 D numbers each: 16 D a block.
        ("lora", 4 * 16 * (192 + 128), 12 * 16 * (768 + 512)),
    ],
)
def test_as_many_numbers_are_trained_as_were_counted_by_hand(name, bundled, clip_b16):
    for config, expected in ((weights.config(BUNDLED), bundled), (CLIP_B16, clip_b16)):
        frozen = shapes(config)
        if name == "lora":
            trainable = jax.eval_shape(
                lambda f=frozen: lora.init(lora.Options(where=lora.usual({})), f, jax.random.key(0))
            )
        else:
            trainable = leaves.chosen(frozen, finetune.WHERE)
        assert size(trainable) == expected


# ------------------------------------------------------------------------------------------------- memory and buffers


@pytest.mark.parametrize("name", MODULES)
def test_a_task_begins_where_the_one_before_ended_and_shares_no_buffer_with_anything(name):
    method, frozen = built(MODULES[name]), backbone()
    first, _ = begun(method, {}, frozen)
    ended = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, first)
    zeros = jax.tree.map(np.zeros_like, ended)
    memory = method.finish({}, ended, task(batches=lambda count: [None] * count, gradient=lambda *_: zeros))
    kept = jax.tree.map(np.copy, memory)
    for trainable, constants in (begun(method, {}, frozen), begun(method, memory, frozen)):
        trees = (trainable, constants, frozen)
        pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(trees)]
        assert len(set(pointers)) == len(pointers)
        jax.tree.map(lambda leaf: leaf.delete(), trainable)  # as when the step is given it
    jax.tree.map(np.testing.assert_array_equal, memory, kept)
    jax.tree.map(np.testing.assert_array_equal, begun(method, memory, frozen)[0], ended)


@pytest.mark.parametrize("name", MODULES)
def test_every_item_gets_the_newest_stage(name):
    method, queries = built(MODULES[name]), {"image": np.zeros((2, 3)), "text": np.zeros((3, 3))}
    assert method.assign is to_newest
    assert not method.options.routes
    for memory, newest in (({}, PLAIN), ({"stage": np.int32(4)}, 4)):
        assigned = method.assign(memory, queries, {})
        assert {side: own.ids.tolist() for side, own in assigned.items()} == {
            "image": [newest] * 2,
            "text": [newest] * 3,
        }


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", MODULES)
def test_a_pattern_that_is_none_or_is_found_nowhere_is_refused(name):
    with pytest.raises(UserError, match=r"^config.method.where is '\(', expected a regular expression \(.+\)$"):
        MODULES[name].Options(where="(")
    method = built(MODULES[name], where="q_projection")
    with pytest.raises(UserError, match=r"^config.method.where is 'q_projection', which is found in no path of"):
        method.fits(backbone())
    built(MODULES[name]).fits(backbone())
