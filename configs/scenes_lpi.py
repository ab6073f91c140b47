"""LPI on twelve domains of drawn scenes, with the bundled backbone.

Command:  python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=DIR
          (--config=configs/scenes_lpi.py:intended for the method as the paper has it, :released for the release)
Hardware: two CPU cores, 3 minutes; 6 beside other work
Expected: final R@1 57.7 image to text, 49.6 text to image, seed 0 (zero-shot 30.0, 25.1; with the routing prior 53.0,
          43.7; intended 33.8, 29.8)
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "anchored") -> ConfigDict:
    """`preset` is what stands behind the colon: anchored, intended or released."""
    config = lpi_config.preset(preset)
    lpi_config.for_tiny_backbone(config)
    if preset != "released":
        lpi_config.for_scenes(config)
        if preset == "intended":
            # A task has few steps; the rate was chosen on the development domains alone, by experiments/choose_lr.py.
            config.train.lr = 1.0
    else:  # crops, flips and batches are the release's own
        config.data.name = "scenes"
        config.data.train, config.data.val = 150, 50
    return config
