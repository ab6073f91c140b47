"""A small random LLaVA on both sides, and what transformers' classes (PyTorch) compute with it.

`python -m tests.models.llava.small` (extra [parity]) rewrites recorded.npz beside this file: what the classes give for
the model of `SEED`, so that the port is checked where torch is missing. Weights and inputs follow from NumPy seeds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.llava import weights
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.llava import param_shapes
from lpi_jax.models.llava.names import common_name, name_of
from lpi_jax.models.llava.splice import IMAGE

RECORDED = Path(__file__).parent / "recorded.npz"
SEED = 3
IMAGE_TOKEN = 63  # stands for a visual token in the torch model's ids
CONFIG = LlavaConfig(
    CLIPConfig(28, 14, 16, TowerConfig(32, 3, 4, 40), TowerConfig(16, 2, 2, 24), 50, 12),
    LlamaConfig(64, 32, 2, 4, 2, 48, rms_norm_eps=1e-5),
    max_length=128,
    words=IMAGE_TOKEN,
)
TEXT_FIELDS = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION_FIELDS = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 16,
    "hidden_act": "quick_gelu",
}
CLIP_TEXT_FIELDS = {
    "model_type": "clip_text_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 12,
    "projection_dim": 16,
    "eos_token_id": 49,
    "bos_token_id": 48,
    "pad_token_id": 1,
    "hidden_act": "quick_gelu",
}
CLIP_FIELDS = {
    "model_type": "clip",
    "projection_dim": 16,
    "text_config": CLIP_TEXT_FIELDS,
    "vision_config": VISION_FIELDS,
}
FIELDS = {
    "model_type": "llava",
    "text_config": TEXT_FIELDS,
    "vision_config": VISION_FIELDS,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "image_token_index": IMAGE_TOKEN,
    "clip": CLIP_FIELDS,
}


def state(seed: int = SEED, config: LlavaConfig = CONFIG) -> dict[str, np.ndarray]:
    """Tensors by common name, from a seed alone: every one matters to what comes out, none dominates."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for leaf, spec in sorted(traverse_util.flatten_dict(param_shapes(config)).items()):
        shape = weights._source_shape(leaf, spec.shape)
        value = rng.standard_normal(shape, np.float32)
        scale = np.prod(shape[1:]) ** -0.5 if leaf[-1] == "kernel" else {"embedding": 0.5}.get(leaf[-1], 0.1)
        tensors[name_of(leaf)] = np.float32(scale) * value + np.float32(leaf[-1] == "scale")
    return tensors


def model(seed: int = SEED) -> tuple[LlavaConfig, dict[str, Any]]:
    """The configuration and the tree that `from_hf` makes of the state."""
    return weights.from_hf(state(seed), FIELDS)


def images(batch: int, seed: int = 5) -> np.ndarray:
    """[B, 28, 28, 3] float32."""
    return np.random.default_rng(seed).standard_normal((batch, 28, 28, 3), np.float32)


def question_ids(batch: int, seed: int = 6) -> np.ndarray:
    """[B, 12] int32: start, words, end, and ends as padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, 48, (batch, 12), np.int32)
    ids[:, 0] = 48
    for row in ids:
        row[rng.integers(2, 12) :] = 49
    return ids


def token_ids(batch: int, n: int, seed: int = 7) -> np.ndarray:
    """[B, n] int32: BOS, words, an image somewhere, words; no padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 60, (batch, n), np.int32)
    ids[:, 0] = 1
    ids[np.arange(batch), rng.integers(1, n, batch)] = IMAGE
    return ids


# ---- torch -----------------------------------------------------------------------------------------------------------


def filled(module: Any, tensors: dict[str, np.ndarray], prefix: str = "") -> Any:
    """A torch module with the tensors, by common name; prefix: before its own names."""
    import torch

    own = {key: common_name(key) for key in module.state_dict()}
    own = {key: name if name in tensors else prefix + name for key, name in own.items()}
    given = {key: torch.from_numpy(tensors[name]) for key, name in own.items() if not key.endswith("position_ids")}
    module.load_state_dict(given, strict=False)
    return module.eval()


def torch_llava(tensors: dict[str, np.ndarray]) -> Any:
    """transformers' LlavaForConditionalGeneration."""
    import transformers as hf

    text = {key: value for key, value in TEXT_FIELDS.items() if key != "model_type"}
    vision = {key: value for key, value in VISION_FIELDS.items() if key != "model_type"}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision),
        text_config=hf.LlamaConfig(**text, attn_implementation="eager"),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return filled(hf.LlavaForConditionalGeneration(config), tensors)


def torch_ids(ids: np.ndarray) -> Any:
    """One row [n] with IMAGE as transformers wants it: a token for each of the four patches, [1, n + 3]."""
    import torch

    expanded = [token for i in ids for token in ([IMAGE_TOKEN] * 4 if i == IMAGE else [int(i)])]
    return torch.tensor([expanded])


def torch_images(values: np.ndarray) -> Any:
    """[B, S, S, 3] -> [B, 3, S, S]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def torch_features(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What CLIP's classes give for three images and questions."""
    import torch
    import transformers as hf

    vision = filled(hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**VISION_FIELDS)), tensors, "vision_model.")
    text = filled(hf.CLIPTextModel(hf.CLIPTextConfig(**CLIP_TEXT_FIELDS)), tensors, "text_model.")
    projected = filled(hf.CLIPTextModelWithProjection(hf.CLIPTextConfig(**CLIP_TEXT_FIELDS)), tensors, "text_model.")
    ids = torch.from_numpy(question_ids(3).astype(np.int64))
    with torch.no_grad():
        seen = vision(torch_images(images(3)), output_hidden_states=True)
        return {
            "image_embeds": seen.image_embeds.numpy(),
            "patches": seen.hidden_states[-2][:, 1:].numpy(),
            "pooler_output": text(ids).pooler_output.numpy(),
            "text_embeds": projected(ids).text_embeds.numpy(),
        }


def torch_answers(tensors: dict[str, np.ndarray], new: int) -> dict[str, np.ndarray]:
    """Logits [3, L, V] of three samples and the greedy tokens [3, new] behind them, pad ids after an end."""
    import torch

    llava, ids, pictures = torch_llava(tensors), token_ids(3, 7), torch_images(images(3))
    logits, answers = [], np.zeros((3, new), np.int32)
    with torch.no_grad():
        for row in range(3):
            inputs = {"input_ids": torch_ids(ids[row]), "pixel_values": pictures[row : row + 1]}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            logits.append(llava(**inputs).logits[0].numpy())
            answer = llava.generate(**inputs, do_sample=False, max_new_tokens=new, eos_token_id=2, pad_token_id=0)[
                0, inputs["input_ids"].shape[1] :
            ].numpy()
            answers[row, : len(answer)] = answer
    return {"logits": np.stack(logits), "answers": answers}


def main() -> None:
    tensors = state()
    np.savez_compressed(RECORDED, **torch_features(tensors), **torch_answers(tensors, 6))


if __name__ == "__main__":
    main()
