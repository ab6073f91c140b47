"""The problems by name. Each is a module with `build(config, mesh)`, `look(config)`, `examples(split)`, `texts(record)`
and `SAID`, what its streams say of images (`lpi_jax.data.sources.registry`); for `lpi_jax.plan` also `planned(config,
mesh)`.

They are named, not imported: a backbone's code is slow to load, and names and options alone serve `--help`.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

from lpi_jax.data import transforms
from lpi_jax.models.options import Towers
from lpi_jax.options import Option, declared
from lpi_jax.problems.instruction import options as instruction
from lpi_jax.problems.retrieval import options as retrieval

Options = tuple[tuple[str, type], ...]  # sections of the configuration, each with a dataclass of what is read of it

RETRIEVAL: Options = (
    ("", retrieval.Pixels),
    ("problem", retrieval.Loss),
    ("towers", Towers),
    ("data", transforms.Options),
    ("eval", retrieval.Evaluation),
)
INSTRUCTION: Options = (("problem", instruction.Asked), ("eval", instruction.Evaluation))


class Known(NamedTuple):
    """One problem: where it is built, and the options that it reads."""

    module: str
    options: Options


PROBLEMS: dict[str, Known] = {
    "retrieval": Known("lpi_jax.problems.retrieval.assemble", RETRIEVAL),
    "instruction": Known("lpi_jax.problems.instruction.assemble", INSTRUCTION),
}


def module(name: str) -> ModuleType:
    """The module that builds the problem `name`, one of PROBLEMS."""
    return importlib.import_module(PROBLEMS[name].module)


def options() -> Mapping[str, Mapping[str, Option]]:
    """By problem the options that it reads, by dotted key."""
    return {
        name: {key: option for section, read in known.options for key, option in declared(read, section).items()}
        for name, known in PROBLEMS.items()
    }
