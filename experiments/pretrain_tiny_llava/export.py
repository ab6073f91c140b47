"""A trained LLaVA as a Hugging Face directory without CLIP's towers, which are those of the bundled CLIP."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import numpy as safetensors

from lpi_jax.models.llava.config import LlavaConfig
from lpi_jax.models.llava.names import name_of
from lpi_jax.types import Tree

# Names as the checkpoints on the hub have them; those of the towers are not written.
_ON_THE_HUB = {
    "projector.": "multi_modal_projector.",
    "language_model.lm_head.": "language_model.lm_head.",
    "language_model.": "language_model.model.",
}


def save(out: Path, config: LlavaConfig, trained: Tree, vision: dict[str, Any]) -> None:
    """Writes config.json and model.safetensors (float16).

    Args:
      trained: the projector's and the LLaMA's leaves. vision: the vision_config of the CLIP's config.json.
    """
    state = {}
    for leaf, value in traverse_util.flatten_dict(trained).items():
        name = name_of(leaf)
        start = next(start for start in _ON_THE_HUB if name.startswith(start))
        tensor = np.asarray(value, np.float32).T if leaf[-1] == "kernel" else np.asarray(value, np.float32)
        state[_ON_THE_HUB[start] + name.removeprefix(start)] = np.ascontiguousarray(tensor, np.float16)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(safetensors.save(state, {"format": "pt"}))
    (out / "config.json").write_text(json.dumps(fields(config, vision), indent=1) + "\n", encoding="utf-8")


def fields(config: LlavaConfig, vision: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json in Hugging Face's form."""
    llama = config.llama
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "float16",
        "image_token_index": 3,  # the byte 0, which no text holds
        "image_seq_length": (config.clip.image_size // config.clip.patch_size) ** 2,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": config.feature_layer,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama",
            "vocab_size": llama.vocab_size,
            "hidden_size": llama.width,
            "num_hidden_layers": llama.layers,
            "num_attention_heads": llama.heads,
            "num_key_value_heads": llama.kv_heads,
            "intermediate_size": llama.mlp_dim,
            "hidden_act": "silu",
            "rms_norm_eps": llama.rms_norm_eps,
            "rope_theta": llama.rope_theta,
            "max_position_embeddings": config.max_length,
            "tie_word_embeddings": llama.tied,
            "bos_token_id": config.bos,
            "eos_token_id": config.eos,
            "pad_token_id": config.pad,
        },
        "vision_config": vision,
    }
