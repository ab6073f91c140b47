"""The problems by name. Each is a module with `build(config, mesh)` and `look(config)` (`retrieval.assemble`)."""

from types import ModuleType

from lpi_jax.problems.retrieval import assemble as retrieval

PROBLEMS: dict[str, ModuleType] = {"retrieval": retrieval}
