"""LPI at its best, on COCO 2014 in twelve tasks, with CLIP ViT-B/16.

Command:  python -m lpi_jax.main --config=configs/coco_lpi.py --workdir=DIR --config.data.path=COCO
          COCO holds annotations/, train2014/ and val2014/ as published, or TFDS's coco_captions/ in array_record files
Hardware: one GPU or TPU chip; minutes not measured
Expected: no number is known; results.json holds zero-shot CLIP on the same galleries
"""

from pathlib import Path

from ml_collections import ConfigDict

import lpi_jax
from lpi_jax import config as lpi_config


def get_config(preset: str = "anchored") -> ConfigDict:
    """`preset` is what stands behind the colon: anchored, intended or released."""
    config = lpi_config.preset(preset)
    config.data.name = "coco"
    config.backbone = "openai/clip-vit-base-patch16"
    config.train.batch = 64
    config.train.epochs = 10
    if preset == "intended":  # whose loss between tasks needs it; a text tower's cosines are all above its threshold
        config.method.similarity = str(Path(lpi_jax.__file__).parent / "assets" / "coco12_similarity.csv")
    lpi_config.for_any_backbone(config)
    return config
