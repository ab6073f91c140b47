"""Sizes of published backbones, so that a run on them can be planned where their weights are not."""

from collections.abc import Mapping

from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.llava.config import LlamaConfig

_BASE, _LARGE = TowerConfig(768, 12, 12, 3072), TowerConfig(1024, 24, 16, 4096)
_TEXT, _WIDER_TEXT = TowerConfig(512, 12, 8, 2048), TowerConfig(768, 12, 12, 3072)

# By hub id; as their config.json says.
CLIPS: Mapping[str, CLIPConfig] = {
    "openai/clip-vit-base-patch32": CLIPConfig(224, 32, 512, _BASE, _TEXT, 49408),
    "openai/clip-vit-base-patch16": CLIPConfig(224, 16, 512, _BASE, _TEXT, 49408),
    "openai/clip-vit-large-patch14": CLIPConfig(224, 14, 768, _LARGE, _WIDER_TEXT, 49408),
    "openai/clip-vit-large-patch14-336": CLIPConfig(336, 14, 768, _LARGE, _WIDER_TEXT, 49408),
}
LLAMAS: Mapping[str, LlamaConfig] = {  # of LLaVAs
    "llava-hf/llava-1.5-7b-hf": LlamaConfig(32064, 4096, 32, 32, 32, 11008),
    "llava-hf/llava-1.5-13b-hf": LlamaConfig(32064, 5120, 40, 40, 40, 13824),
}
