"""Following instructions about images: LLaVA answers questions, and is trained and measured on their answers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpi_jax.models.llava.generation import generate as generate


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command line reads the options in this folder without any model.
    if name == "generate":
        from lpi_jax.models.llava.generation import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
