"""The loss is over the global batch: on any mesh losses, gradients and steps of one device; and where leaves lie."""

import json
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest

from lpi_jax.models.llava import llava
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel.placement import put_backbone
from lpi_jax.train.step import make_gradient, make_step
from tests.models.towers_reference_test import CONFIG, random_params
from tests.support import devices
from tests.train.parts_test import batch, method, problem, trainable

MESHES = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 4))  # devices, and how many of them share a backbone
STEPS = 10
GOLDEN = Path(__file__).with_name("shardings.json")


def learnt(count, fsdp):
    """The losses of ten steps, the gradient before the first, and the trained tree behind the last, as lists."""
    mesh = meshes.make_mesh(count, fsdp)
    frozen = put_backbone(random_params(), mesh)
    step, losses = make_step(problem(), method(False), optax.sgd(1.0), mesh), []
    gradient = make_gradient(problem(), method(False), mesh)
    key = jax.random.key(0)
    first = gradient(trainable(), {}, frozen, meshes.put_rows(batch(0), mesh), key)
    state = step.start(trainable())
    for number in range(STEPS):
        state, terms = step.run(state, frozen, {}, meshes.put_rows(batch(number), mesh), key, np.float32(0.02))
        losses.append(float(terms["loss"]))
    trees = ({name: np.asarray(leaf).tolist() for name, leaf in tree.items()} for tree in (first, state.trainable))
    return [losses, *trees]


def shardings():
    """By array of a step on (data, fsdp) = (2, 4), and of a LLaVA there, how its axes are split."""
    mesh = meshes.make_mesh(8, 4)
    step = make_step(problem(), method(False), optax.adam(1.0), mesh)
    arguments = {
        "clip": put_backbone(random_params(), mesh),
        "llava": put_backbone(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), llava_shapes()), mesh),
        "batch": meshes.put_rows(batch(), mesh),
        "state": step.start(trainable())._asdict(),
    }
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): str(leaf.sharding.spec) for path, leaf in leaves}


def llava_shapes():
    return llava.param_shapes(LlavaConfig(CONFIG, LlamaConfig(48, 16, 1, 4, 4, 32), max_length=32))


@pytest.fixture(scope="module")
def eight():
    """What a process with eight CPU devices finds."""
    names = "MESHES, learnt, shardings"
    expression = "[[learnt(*which) for which in MESHES], shardings()]"
    return devices.found(8, f"from tests.train.devices_agree_test import {names}", expression)


@pytest.mark.parametrize("which", range(1, len(MESHES)), ids=lambda which: str(MESHES[which]))
def test_every_mesh_learns_what_one_device_learns(eight, which):
    (losses, first, last), (others, gradient, trained) = eight[0][0], eight[0][which]
    np.testing.assert_allclose(others, losses, rtol=1e-6)
    # The terms of a gradient cancel, so that another order of float32 sums is seen before it is in loss and steps.
    for found, expected, most in ((gradient, first, 5e-6), (trained, last, 1e-6)):
        for name in expected:
            apart = np.linalg.norm(np.subtract(found[name], expected[name])) / np.linalg.norm(expected[name])
            assert apart < most, name
    assert losses[-1] != losses[0]
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(last, {name: leaf.tolist() for name, leaf in trainable().items()}, rtol=1e-3)


def test_every_array_lies_where_it_is_recorded(eight):
    """After a deliberate change: write what is found here into tests/train/shardings.json."""
    assert eight[1] == json.loads(GOLDEN.read_text(encoding="utf-8"))
