"""ModalPrompt on CoIN's eight tasks of instruction tuning, with LLaVA-1.5-7B.

Command:  python -m lpi_jax.main --config=configs/coin_modalprompt.py --workdir=DIR --config.data.path=CoIN \
              --config.data.images=IMAGES
          (--config=configs/coin_modalprompt.py:released for the release, with its quirks)
          CoIN is one of its published folders of instructions, IMAGES the folder of the data sets' images
Hardware: one GPU of 80 GB; minutes not measured
Expected: no number is known; results.json holds the frozen LLaVA on the same samples
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "intended") -> ConfigDict:
    """`preset` is what stands behind the colon: intended or released."""
    config = lpi_config.preset(preset, "modalprompt")
    config.data.name = "coin"
    config.backbone = "llava-hf/llava-1.5-7b-hf"
    config.problem.clip = "openai/clip-vit-large-patch14-336"
    config.train.remat = "blocks"
    config.dtype = "bfloat16"
    config.train.batch = 16
    # The release's batches are eight times these: 128, 128, 256, 96, 256, 64, 96, 192.
    config.train.batches = (16, 16, 32, 12, 32, 8, 12, 24)
    config.train.accumulate = 8
    config.eval.batch = 16
    return config
