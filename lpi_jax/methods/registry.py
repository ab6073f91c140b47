"""The methods by name. Each is a module with a frozen dataclass `Options` and `build(options, sites, router)`."""

from types import ModuleType

from lpi_jax.methods import ewc, finetune, lora, lpi, zero_shot

METHODS: dict[str, ModuleType] = {
    "lpi": lpi,
    "lora": lora,
    "ewc": ewc,
    "finetune": finetune,
    "zero_shot": zero_shot,
}
