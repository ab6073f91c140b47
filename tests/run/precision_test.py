"""Products of float32 factors keep all their bits, also backwards; bfloat16 gradients are summed in float32.

A CPU computes products of float32 in float32 whatever they ask for, so the promises are read in the lowered programs.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.experiment.experiment import assemble
from lpi_jax.methods import lpi, routing, zero_shot
from lpi_jax.models import clip
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.retrieval import ranks
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.problem import Retrieval, sites
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.report import comparison
from lpi_jax.train import step as train
from tests.models import towers_reference_test as tiny

PIXELS = ((0.5,) * 3, (0.25,) * 3)
BATCH = 6
PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution)\b.*")


def products(text):
    """Result type and precision of each product in a lowered program, such as ("6x6xf32", "HIGHEST")."""
    found = []
    for line in PRODUCT.findall(text):
        precision = re.findall(r"\b(HIGHEST|HIGH|DEFAULT)\b", line)
        assert len(precision) in (0, 2), line
        found.append((line.rpartition("-> tensor<")[2].rstrip(">"), *(set(precision) or {"DEFAULT"})))
    return found


def step_of(model, mesh):
    """A training step with an interaction between the modalities, and its arguments."""
    config = model.config
    options = lpi.Options(layers=2, depth=2, length=2, rank=2, interaction=True)
    method = lpi.build(options, sites(config), routing.Options())
    problem = Retrieval(Towers(model, *PIXELS), None, None, None, None)
    step = train.make_step(problem, method, optax.sgd(1.0), mesh)
    trainable = lpi.init(options, sites(config), jax.random.key(1))
    constants = lpi.context(options, trainable["factors"], {}, np.ones((1, 1), np.float32))
    rng, size = np.random.default_rng(0), config.image_size
    images = rng.integers(0, 256, (BATCH, size, size, 3), np.uint8)
    batch = {"images": images, "token_ids": np.resize(tiny.token_ids(), (BATCH, tiny.token_ids().shape[1]))}
    return step.run, (step.start(trainable), backbone(), constants, batch, jax.random.key(0), jnp.float32(1))


def backbone():
    return {**tiny.random_params(), "logit_scale": np.float32(2)}


def test_products_of_the_training_step_and_its_gradients_are_exact():
    step, arguments = step_of(clip.CLIP(tiny.CONFIG), meshes.make_mesh(1))
    found = products(step.lower(*arguments).as_text())
    blocks = tiny.CONFIG.vision.layers + tiny.CONFIG.text.layers
    assert len(found) > 2 * 8 * blocks  # eight products a block, and more than as many backwards
    assert {precision for _, precision in found} == {"HIGHEST"}


@pytest.mark.parametrize("prompted", [False, True])
def test_products_of_the_encoder_are_exact(prompted):
    config, mesh = tiny.CONFIG, meshes.make_mesh(1)
    plain = zero_shot.build(zero_shot.Options(), {}, routing.Options())
    encoder = Encoder(Towers(clip.CLIP(config), *PIXELS), backbone(), plain, mesh, BATCH)
    images = np.zeros((BATCH, config.image_size, config.image_size, 3), np.uint8)
    ids = np.resize(tiny.token_ids(), (BATCH, tiny.token_ids().shape[1]))
    for encode, rows, tower in ((encoder._image, images, config.vision), (encoder._text, ids, config.text)):
        prompts = np.zeros((1, 2, 2, tower.width), np.float32) if prompted else None
        found = products(encode.table.lower(encoder.frozen, rows, prompts, np.zeros(BATCH, np.int32)).as_text())
        assert len(found) >= 8 * tower.layers
        assert {precision for _, precision in found} == {"HIGHEST"}


def test_products_of_the_ranks_are_exact():
    features, right = np.zeros((4, 3), np.float32), np.zeros((4, 1), np.int32)
    arguments = (features, features, np.ones(4, bool), right)
    assert products(ranks._count_before.lower(*arguments, None, None).as_text()) == [("4x4xf32", "HIGHEST")]
    prior = (features, features, np.float32(1.0))
    assert products(ranks._count_before.lower(*arguments, prior, None).as_text()) == [("4x4xf32", "HIGHEST")] * 2
    two = (np.zeros((4, 6), np.float32),) * 2
    adapters = (np.zeros(4, np.int32),) * 2
    matched = ranks._count_before.lower(*two, *arguments[2:], None, adapters).as_text()
    assert products(matched) == [("4x4xf32", "HIGHEST")] * 2


def test_results_record_the_precision_and_the_report_tells_runs_by_it(copied_run, finished_run):
    assert finished_run.results["precision"] == {"backbone": "float32", "products": "highest"}
    record = copied_run.directory / "config.json"
    text = record.read_text(encoding="utf-8")
    changed = text.replace('"matmul_precision": "highest"', '"matmul_precision": "default"')
    assert changed != text
    record.write_text(changed, encoding="utf-8")
    (block,) = comparison.compare([finished_run.directory, copied_run.directory])
    assert [group.label for group in block.groups] == [
        f"LPI intended (matmul_precision={precision})" for precision in ("highest", "default")
    ]


def precision_of(config):
    return assemble(config, streamed=False).problem.towers.model.precision


def test_a_key_lowers_the_towers_precision_but_never_the_losses(make_config):
    for precision in ("high", "default"):
        assert precision_of(make_config({"matmul_precision": precision})) == precision
    assert precision_of(make_config()) == "highest"

    step, arguments = step_of(clip.CLIP(tiny.CONFIG, precision="default"), meshes.make_mesh(1))
    found = products(step.lower(*arguments).as_text())
    assert found.count((f"{BATCH}x{BATCH}xf32", "HIGHEST")) == 1  # the logits
    towers = [kind for kind, precision in found if precision == "DEFAULT"]
    assert len(towers) > 8 * (tiny.CONFIG.vision.layers + tiny.CONFIG.text.layers)


@pytest.mark.parametrize("injection", ["add", "replace"])
def test_gradients_of_bfloat16_towers_are_summed_over_the_batch_and_its_devices_in_float32(injection):
    """The sum over a batch becomes the sum over its devices, in the type that the program names here."""
    step, arguments = step_of(clip.CLIP(tiny.CONFIG, jnp.bfloat16, injection), meshes.make_mesh(1))
    sums = re.findall(
        r"stablehlo\.reduce\(.*add across dimensions = \[0\S* : \(tensor<(\S+)>,", step.lower(*arguments).as_text()
    )
    of_prompts = [operand for operand in sums if operand.count("x") == 3 and operand.startswith(f"{BATCH}x")]
    assert len(of_prompts) == 4  # two depths in two towers
    assert {operand.rpartition("x")[2] for operand in of_prompts} == {"f32"}


@pytest.mark.parametrize("inject", [clip._add, clip._replace])
def test_the_gradient_of_bfloat16_prompts_is_the_exact_sum_of_the_rows_gradients(inject):
    rng, rows = np.random.default_rng(3), 64
    x, ways = (jnp.asarray(rng.normal(size=(rows, 5, 4)), jnp.bfloat16) for _ in range(2))
    prompts = rng.normal(size=(1, 3, 4)).astype(np.float32)
    found = jax.grad(lambda own: (ways * inject(x, own)).astype(jnp.float32).sum())(prompts)
    expected = np.asarray(ways[:, 1:4], np.float64).sum(0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-5)
