"""ModalPrompt on questions about real pictures: titles, folders and choices of clip-art and Tux Paint's stamps.

Prepare:  python experiments/clipart/prepare.py --out runs/clipart
          python experiments/stamps/prepare.py --out runs/stamps
          python experiments/pictures.py --clipart runs/clipart --stamps runs/stamps --out runs/pictures.jsonl
Command:  python -m lpi_jax.main --config=configs/pictures_modalprompt.py --workdir=DIR
Hardware: one CPU core, 4 minutes
Expected: accuracy 0.0, as the frozen LLaVA; the best single answer to each task 14.4 (seeds 0 and 1): see the README
"""

from ml_collections import ConfigDict

from lpi_jax import config as lpi_config


def get_config(preset: str = "intended") -> ConfigDict:
    """`preset` is what stands behind the colon: intended or released."""
    config = lpi_config.preset(preset, "modalprompt")
    config.data.name = "instructions"
    config.data.path = "runs/pictures.jsonl"
    config.data.shots = 240  # training pictures of a task; the first collection has ten times as many
    if preset != "released":
        config.method.sets = 1
    # As chosen for the drawn questions; nothing was chosen on these pictures.
    config.train.batch, config.train.epochs, config.train.lr = 8, 5, 0.01
    config.problem.system = ""
    config.eval.max_new = 64  # the bundled LLaVA spells what its general questions do not say
    return config
