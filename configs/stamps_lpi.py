"""LPI on ten tasks of Tux Paint's stamps, photographs and drawings with a sentence each, with the bundled backbone.

Prepare:  apt-get install tuxpaint-stamps-default librsvg2-bin
          python experiments/stamps/prepare.py --out runs/stamps
Command:  python -m lpi_jax.main --config=configs/stamps_lpi.py --workdir=DIR
          (--config=configs/stamps_lpi.py:released for the authors' release)
Hardware: two CPU cores, 6 minutes beside other work
Expected: final MRR 8.8 image to text, 6.8 text to image (zero-shot 6.9, 6.8), seed 0; the README says why so little
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "anchored") -> ConfigDict:
    """`preset` is what stands behind the colon: anchored, intended or released."""
    config = lpi_config.preset(preset)
    config.data.name = "jsonl"
    config.data.path = "runs/stamps/stream.jsonl"
    lpi_config.for_tiny_backbone(config)
    if preset != "released":  # the clip-art's settings, unchanged
        config.data.crop_scale = (0.5, 1.0)
        config.train.batch, config.train.epochs = 32, 8
    if preset == "anchored":  # many drawings share what is said of them
        config.problem.equal_texts = "one"
    if preset == "intended":
        config.train.lr = 0.2
    return config
