"""LoRA on twelve domains of drawn scenes, with the bundled backbone.

Command:  python -m lpi_jax.main --config=configs/scenes_lora.py --workdir=DIR
Hardware: two CPU cores, 7 minutes beside other work
Expected: final R@1 8.5 image to text, 6.7 text to image (zero-shot 30.0, 25.1), forgetting -26.9 and -33.1, seed 0
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config() -> ConfigDict:
    """Data and batches are those of configs/scenes_lpi.py."""
    config = lpi_config.intended()
    config.method.name = "lora"
    lpi_config.for_scenes(config)
    # Chosen among 0.1 and 1 on two of the development domains alone, with a seed of their own.
    config.train.lr = 0.1
    return config
