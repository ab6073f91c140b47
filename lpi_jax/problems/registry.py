"""The problems by name. Each is a module with `build(config, mesh)`, `look(config)` and `examples(split)`.

They are named, not imported: a backbone's code is slow to load, and the names alone serve `--help`.
"""

import importlib
from types import ModuleType

PROBLEMS: dict[str, str] = {
    "retrieval": "lpi_jax.problems.retrieval.assemble",
}


def module(name: str) -> ModuleType:
    """The module that builds the problem `name`, one of PROBLEMS."""
    return importlib.import_module(PROBLEMS[name])
