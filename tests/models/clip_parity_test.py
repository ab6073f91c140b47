"""The towers against transformers' CLIPModel: live where torch is installed, and always against recorded features."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP
from tests.support import record_activations as record


def features(config, params, images, ids):
    model = CLIP(config)
    image, text, _ = jax.jit(lambda tree, *rest: model.apply({"params": tree}, *rest))(params, images, ids)
    return np.asarray(image), np.asarray(text)


@pytest.fixture
def torch_side():
    """Skips without torch; keeps progress bars out of the output."""
    pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    from transformers.utils import logging

    logging.disable_progress_bar()


# ---- recorded --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", record.SMALL)
def test_small_models_equal_the_recorded_features(name, tmp_path):
    with np.load(record.RECORDED / f"{name}.npz", allow_pickle=False) as file:
        data = dict(file)
    prefix = "weights/"
    state = {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(str(data["config"]))
    assert json.loads(str(data["config"])) == record.SMALL[name]
    config, params = weights.load(tmp_path)
    image, text = features(config, params, data["images"], data["ids"])
    np.testing.assert_allclose(image, data["image_features"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(text, data["text_features"], rtol=0, atol=1e-5)


def test_a_model_of_b16_size_equals_the_recorded_features():
    params = record.seeded_params(record.B16, record.B16_SEED)
    image, text = features(record.B16, params, *record.inputs(record.B16, 2, seed=2))
    with np.load(record.RECORDED / "b16.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(image, file["image_features"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(text, file["text_features"], rtol=0, atol=1e-5)


# ---- live ------------------------------------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", record.SMALL)
def test_small_models_saved_by_transformers_give_its_features(name, seed, tmp_path, torch_side):
    record.random_torch_model(name, tmp_path, seed)
    config, params = weights.load(tmp_path)
    images, ids = record.inputs(config, 8, seed=seed)
    image, text = features(config, params, images, ids)
    expected_image, expected_text = record.torch_features(tmp_path, images, ids)
    np.testing.assert_allclose(image, expected_image, rtol=0, atol=1e-5)
    np.testing.assert_allclose(text, expected_text, rtol=0, atol=1e-5)


@pytest.mark.parity
def test_a_model_of_b16_size_saved_by_us_gives_the_same_features_in_transformers(tmp_path, torch_side):
    params = record.seeded_params(record.B16, seed=5)
    weights.save(tmp_path, record.B16, params)
    images, ids = record.inputs(record.B16, 2, seed=6)
    image, text = features(record.B16, params, images, ids)
    expected_image, expected_text = record.torch_features(tmp_path, images, ids)
    np.testing.assert_allclose(image, expected_image, rtol=0, atol=1e-5)
    np.testing.assert_allclose(text, expected_text, rtol=0, atol=1e-5)
