"""LLaMA tokenizers of a few hundred pieces, learnt by the script that makes the tiny LLaVA's."""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "experiments" / "pretrain_tiny_llava" / "tokenizer.py"


@functools.cache
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("tiny_llava_tokenizer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder: Path, samples: int = 200, pieces: int = 440) -> Path:
    """The folder, now with a tokenizer learnt from so many general samples."""
    from lpi_jax.data.questions.general import general

    script().write(script().learn(script().sentences(general(0, samples).records), pieces), folder)
    return folder
