"""The methods by name. Each is a module with a frozen dataclass `Options` and `build(options, sites, router)`."""

from types import ModuleType

from lpi_jax.methods import ewc, finetune, l2p, lora, lpi, modalprompt, moe_lora, o_lora, replay, zero_shot

METHODS: dict[str, ModuleType] = {
    "lpi": lpi,
    "l2p": l2p,
    "lora": lora,
    "o_lora": o_lora,
    "moe_lora": moe_lora,
    "ewc": ewc,
    "replay": replay,
    "finetune": finetune,
    "zero_shot": zero_shot,
    "modalprompt": modalprompt,
}
