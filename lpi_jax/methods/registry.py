"""The methods by name. Each is a module with a frozen dataclass `Options` and `build(options, sites, router)`."""

from types import ModuleType

from lpi_jax.methods import lpi, zero_shot

METHODS: dict[str, ModuleType] = {"lpi": lpi, "zero_shot": zero_shot}
