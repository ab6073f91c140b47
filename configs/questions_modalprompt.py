"""ModalPrompt on eight kinds of questions about drawn pictures, with a small LLaVA of yours.

Command:  python -m lpi_jax.main --config=configs/questions_modalprompt.py --workdir=DIR --config.backbone=LLAVA
          (--config=configs/questions_modalprompt.py:released for the release, whose last task's prompts stay as drawn)
          LLAVA is a directory of Hugging Face's; the folder clip in it, or --config.problem.clip, has CLIP's text tower
Hardware: two CPU cores for a few million parameters; minutes not measured
Expected: no number is known; results.json holds the frozen LLaVA on the same samples
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "intended") -> ConfigDict:
    """`preset` is what stands behind the colon: intended or released."""
    config = lpi_config.preset(preset, "modalprompt")
    config.train.batch = 16
    config.problem.system = ""  # LLaVA's text would be most of what a small model reads
    config.eval.max_new = 24  # the longest answer is a box, every digit of which is a token
    return config
