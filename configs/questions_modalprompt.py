"""ModalPrompt on eight kinds of questions about drawn pictures, with the bundled LLaVA.

Command:  python -m lpi_jax.main --config=configs/questions_modalprompt.py --workdir=DIR
          (--config=configs/questions_modalprompt.py:released for the release, whose last task's prompts stay as drawn)
Hardware: two CPU cores, minutes: see README
Expected: see README
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "intended") -> ConfigDict:
    """`preset` is what stands behind the colon: intended or released."""
    config = lpi_config.preset(preset, "modalprompt")
    config.train.batch = 16
    config.eval.max_new = 24  # the longest answer is a box, every digit of which is a token
    return config
