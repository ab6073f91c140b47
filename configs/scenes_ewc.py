"""Elastic weight consolidation on twelve domains of drawn scenes, with the bundled backbone.

Command:  python -m lpi_jax.main --config=configs/scenes_ewc.py --workdir=DIR
Hardware: two CPU cores, 17 minutes beside other work
Expected: final R@1 35.8 image to text, 37.3 text to image (zero-shot 30.0, 25.1), forgetting -26.5 and -19.8, seed 0
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config() -> ConfigDict:
    """Data and batches are those of configs/scenes_lpi.py."""
    config = lpi_config.intended()
    config.method.name = "ewc"
    lpi_config.for_scenes(config)
    # That of fine-tuning, which this is without the penalty; its strength is the default.
    config.train.lr = 0.001
    return config
