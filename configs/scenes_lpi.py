"""LPI on twelve domains of drawn scenes, with the bundled backbone.

Command:  python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=DIR
          (--config=configs/scenes_lpi.py:released for the authors' release)
Hardware: two CPU cores
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "intended") -> ConfigDict:
    """`preset` is what stands behind the colon: intended or released."""
    config = lpi_config.preset(preset)
    config.data.name = "scenes"
    lpi_config.for_tiny_backbone(config)
    return config
