"""LLaVA: a LLaMA that reads the patches of CLIP's image tower, with soft prompts at its input."""

from lpi_jax.models.llava.llava import LLaVA as LLaVA
