"""L2P on twelve domains of drawn scenes, with the bundled backbone.

Command:  python -m lpi_jax.main --config=configs/scenes_l2p.py --workdir=DIR
Hardware: two CPU cores, 12 minutes beside other work
Expected: final R@1 15.5 image to text, 13.7 text to image (zero-shot 30.0, 25.1), forgetting -21.6 and -19.9, seed 0
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config() -> ConfigDict:
    """Data and batches are those of configs/scenes_lpi.py."""
    config = lpi_config.intended()
    config.method.name = "l2p"
    lpi_config.for_scenes(config)
    # Eight prompts an item, as for LPI: 25 hide the 36 patches.
    config.method.prompt_length, config.method.chosen = 2, 4
    # Chosen among 0.005 and 0.02 (and Adam's 0.003) on two of the development domains alone, with a seed of their own.
    config.train.lr = 0.02
    return config
