"""Continual vision-language learning with prompts, in JAX.

`lpi_jax.load(workdir)` opens what a run has trained; `python -m lpi_jax.main --help` trains it.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from lpi_jax.serving.load import load


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `import lpi_jax` takes no time, and the command line can answer --help without JAX.
    if name == "load":
        from lpi_jax.serving.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
