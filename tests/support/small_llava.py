"""The directory of a small LLaVA with random weights, and of its CLIP inside it, as `lpi_jax.main` takes it."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util

from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.clip_start import init_params
from lpi_jax.models.llava import llava
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.names import name_of
from tests.support import llama_tokenizers

ROOT = Path(__file__).parents[2]
CLIP_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
WIDTH = 16  # of CLIP's features


def written(folder: Path, seed: int = 0, text_width: int = WIDTH) -> Path:
    """The folder, now with config.json, model.safetensors, a LLaMA tokenizer and, in `clip`, a CLIP with its own."""
    llama_tokenizers.written(folder)
    clip = _clip(folder / "clip", seed, text_width)
    pieces = len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    config = LlavaConfig(clip, LlamaConfig(pieces, 32, 2, 4, 2, 48), max_length=256)
    leaves = traverse_util.flatten_dict(llava.init_params(config, jax.random.key(seed)))
    tensors = {
        _called(name_of(leaf)): np.ascontiguousarray(np.asarray(value).T if leaf[-1] == "kernel" else value)
        for leaf, value in leaves.items()
        if leaf[0] in ("language_model", "projector")
    }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    text = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    return folder


def _clip(folder: Path, seed: int, text_width: int) -> CLIPConfig:
    source = ROOT / "lpi_jax" / "assets" / "tiny_clip"
    folder.mkdir(parents=True)
    for name in CLIP_FILES:
        shutil.copy(source / name, folder)
    words = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    config = CLIPConfig(32, 8, WIDTH, TowerConfig(32, 2, 2, 64), TowerConfig(text_width, 2, 2, 48), words)
    weights.save(folder, config, init_params(config, jax.random.key(seed)))
    return config


def _called(name: str) -> str:
    """The name of a tensor in transformers' LlavaForConditionalGeneration."""
    if name.startswith("projector."):
        return f"multi_modal_{name}"
    return name if "lm_head" in name else name.replace("language_model.", "language_model.model.", 1)
