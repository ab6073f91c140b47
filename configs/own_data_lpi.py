"""LPI on your own captioned images, with a CLIP ViT-B/16.

Command:  python -m lpi_jax.main --config=configs/own_data_lpi.py --workdir=DIR \
              --config.data.path=stream.jsonl --config.backbone=openai/clip-vit-base-patch16
Hardware: one GPU or TPU chip; on a CPU about 3 seconds a step at batch 8
Expected: no number is known before your data is; results.json holds zero-shot CLIP on the same galleries
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "anchored") -> ConfigDict:
    """`preset` is what stands behind the colon: anchored, intended or released."""
    config = lpi_config.preset(preset)
    config.data.name = "jsonl"
    config.data.on_bad_example = "skip"
    config.backbone = "openai/clip-vit-base-patch16"
    lpi_config.for_any_backbone(config)
    return config
