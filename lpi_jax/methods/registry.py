"""The methods by name. Each is a module with a frozen dataclass `Options` and `build(options, sites, router)`."""

from types import ModuleType

from lpi_jax.methods import ewc, finetune, l2p, lora, lpi, modalprompt, replay, zero_shot

METHODS: dict[str, ModuleType] = {
    "lpi": lpi,
    "l2p": l2p,
    "lora": lora,
    "ewc": ewc,
    "replay": replay,
    "finetune": finetune,
    "zero_shot": zero_shot,
    "modalprompt": modalprompt,
}
