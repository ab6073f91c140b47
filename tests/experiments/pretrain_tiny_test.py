"""Pretraining goes through the package's own step: what it trains is what a loop written out for it trains."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD
from lpi_jax.models.clip import CLIP
from lpi_jax.models.clip_start import init_params
from lpi_jax.problems.retrieval.towers import Towers
from tests.models.towers_reference_test import CONFIG, EOT

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "pretrain_tiny"))

import pretrain

STEPS, WARMUP, BATCH = 5, 2, 6


def batch(step):
    """Noise."""
    rng = np.random.default_rng(step)
    images = rng.integers(0, 256, (BATCH, CONFIG.image_size, CONFIG.image_size, 3), np.uint8)
    ids = rng.integers(1, EOT, (BATCH, 8)).astype(np.int32)
    ids[:, -1] = EOT
    return "noise", images, ids


def written_out():
    """Parameters and losses after the same steps: AdamW on clipped gradients, warm-up, a cosine down to zero."""
    rate = optax.warmup_cosine_decay_schedule(0.0, pretrain.PEAK_LR, WARMUP, STEPS)
    matrices = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.05, mask=matrices))
    params, terms = init_params(CONFIG, jax.random.key(pretrain.SEED)), []
    state = chain.init(params)

    @jax.jit
    def loss_of(params, images, ids):
        pixels = (images / 255.0 - jnp.array(CLIP_MEAN)) / jnp.array(CLIP_STD)
        image, text, scale = CLIP(CONFIG).apply({"params": params}, pixels, ids)
        logits = jnp.minimum(scale, 100.0) * image @ text.T
        return -sum(jnp.mean(jnp.diag(jax.nn.log_softmax(one))) for one in (logits, logits.T)) / 2

    for step in range(STEPS):
        _, images, ids = batch(step)
        loss, gradient = jax.value_and_grad(loss_of)(params, images, ids)
        updates, state = chain.update(gradient, state, params)
        params, terms = optax.apply_updates(params, updates), [*terms, float(loss)]
    return params, terms


def test_the_packages_step_trains_a_backbone_from_scratch_as_a_loop_of_its_own_does(monkeypatch):
    monkeypatch.setattr(pretrain, "WARMUP", WARMUP)
    monkeypatch.setattr(pretrain, "BATCH", BATCH)
    tokenizer = SimpleNamespace(encode=None)  # batches hold token ids already
    towers = Towers(CLIP(CONFIG), CLIP_MEAN, CLIP_STD)
    found, curve = pretrain.train_all(STEPS, CONFIG, towers, tokenizer, batch)
    expected, terms = written_out()
    assert [(step, kind) for step, kind, _ in curve] == [(0, "noise"), (STEPS - 1, "noise")]
    assert [loss for _, _, loss in curve] == pytest.approx([terms[0], terms[-1]], rel=1e-5)
    start = init_params(CONFIG, jax.random.key(pretrain.SEED))
    found, expected, start = (traverse_util.flatten_dict(tree, sep="/") for tree in (found, expected, start))
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        assert np.abs(leaf - start[path]).max() > 0, path
        # A key's bias has no gradient (the softmax takes it away): Adam makes steps of the rounding errors alone.
        if not path.endswith("k_proj/bias"):
            np.testing.assert_allclose(leaf, expected[path], rtol=0, atol=1e-5, err_msg=path)
