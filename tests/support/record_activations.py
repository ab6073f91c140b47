"""Records what transformers' CLIPModel (PyTorch) computes, so that the towers can be checked where torch is missing.

`python -m tests.record_activations` (extra [parity]) rewrites tests/recorded/*.npz: for small random models the
configuration, weights, inputs and features; for one of ViT-B/16's size the features only: its weights and inputs
follow from a NumPy seed. The parity test uses the same models, live.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from flax import traverse_util

from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig

RECORDED = Path(__file__).parent / "recorded"

# Fields of Hugging Face's config.json. Between them: both activations, the old eos_token_id 2, an image size that the
# patches do not fill, one block, one head, narrow MLPs, towers of equal and of different widths.
SMALL = {
    "quick_gelu_legacy_eos": {
        "projection_dim": 20,
        "text_config": {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 48,
            "vocab_size": 60,
            "max_position_embeddings": 16,
            "hidden_act": "quick_gelu",
            "eos_token_id": 2,
        },
        "vision_config": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 8,
            "hidden_act": "quick_gelu",
        },
    },
    "gelu_uneven_patches": {
        "projection_dim": 16,
        "text_config": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 1,
            "intermediate_size": 24,
            "vocab_size": 90,
            "max_position_embeddings": 12,
            "hidden_act": "gelu",
            "eos_token_id": 89,
        },
        "vision_config": {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "image_size": 30,
            "patch_size": 7,
            "hidden_act": "gelu",
        },
    },
    "one_block": {
        "projection_dim": 32,
        "text_config": {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "vocab_size": 50,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "eos_token_id": 49,
            "layer_norm_eps": 1e-3,
        },
        "vision_config": {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 16,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-3,
        },
    },
}
B16 = CLIPConfig(224, 16, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408)
B16_SEED = 16


def inputs(config: CLIPConfig, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [B, S, S, 3] float32 and token ids [B, N] int32: EOT somewhere else in every row, then any words."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((batch, config.image_size, config.image_size, 3), np.float32)
    ids = rng.integers(0, config.vocab_size - 1, (batch, config.context_length), np.int32)
    for row, words in zip(ids, rng.permuted(np.arange(1, config.context_length))[:batch], strict=True):
        row[words] = config.vocab_size - 1
    return images, ids


def seeded_params(config: CLIPConfig, seed: int) -> weights.Params:
    """A tree whose values follow from the seed alone: every kind of leaf matters to the features, none dominates."""
    rng = np.random.default_rng(seed)
    leaves = {}
    for leaf, shape in sorted(weights._shapes(config).items()):
        value = rng.standard_normal(shape, np.float32)
        fan_in = int(np.prod(shape[:-1])) if leaf[-1] == "kernel" else 1
        scale = fan_in**-0.5 if leaf[-1] == "kernel" else 0.1
        leaves[leaf] = np.float32(scale) * value + np.float32(leaf[-1] == "scale")
    return traverse_util.unflatten_dict(leaves)


def torch_features(directory: str | Path, images: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L2-normalised features of transformers' CLIPModel, float32."""
    import torch
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(directory, local_files_only=True, dtype=torch.float32).eval()
    with torch.no_grad():
        output = model(
            pixel_values=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            input_ids=torch.from_numpy(ids.astype(np.int64)),
        )
    return output.image_embeds.numpy(), output.text_embeds.numpy()


def random_torch_model(name: str, directory: str | Path, seed: int = 0) -> None:
    """Saves a small CLIPModel of transformers with random weights, the way transformers does."""
    import torch
    from transformers import CLIPConfig as TorchConfig
    from transformers import CLIPModel

    model = CLIPModel(TorchConfig(**SMALL[name]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # its own initial values are too small to show a mistake
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(directory)


def main() -> None:
    from safetensors.numpy import load_file

    RECORDED.mkdir(exist_ok=True)
    for name, fields in SMALL.items():
        with tempfile.TemporaryDirectory() as directory:
            random_torch_model(name, directory)
            config, _ = weights.load(directory)
            images, ids = inputs(config, 4, seed=1)
            image_features, text_features = torch_features(directory, images, ids)
            state = {f"weights/{key}": value for key, value in load_file(f"{directory}/model.safetensors").items()}
        np.savez_compressed(
            RECORDED / f"{name}.npz",
            config=json.dumps(fields),
            images=images,
            ids=ids,
            image_features=image_features,
            text_features=text_features,
            **state,
        )
    with tempfile.TemporaryDirectory() as directory:
        weights.save(directory, B16, seeded_params(B16, B16_SEED))
        image_features, text_features = torch_features(directory, *inputs(B16, 2, seed=2))
    np.savez_compressed(RECORDED / "b16.npz", image_features=image_features, text_features=text_features)


if __name__ == "__main__":
    main()
