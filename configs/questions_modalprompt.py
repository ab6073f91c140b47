"""ModalPrompt on eight kinds of questions about drawn pictures, with the bundled LLaVA.

Command:  python -m lpi_jax.main --config=configs/questions_modalprompt.py --workdir=DIR
          (--config=configs/questions_modalprompt.py:released for the release, whose last task's prompts stay as drawn)
Hardware: one CPU core, 2.5 minutes
Expected: accuracy 51.6; the frozen LLaVA 25.7, the best single answer to each task 23.2 (seed 0)
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "intended") -> ConfigDict:
    """`preset` is what stands behind the colon: intended or released."""
    config = lpi_config.preset(preset, "modalprompt")
    config.data.val = 60
    if preset != "released":
        config.method.sets = 1  # three disturb each other here: the README's table has both
    config.train.batch = 8
    config.train.epochs = 5
    config.train.lr = 0.01
    config.problem.system = ""  # LLaVA's text would be most of what a small model reads
    config.eval.max_new = 32  # the longest answer is a box, every digit of which is a token: 26
    return config
