"""Following instructions about images: LLaVA answers questions, and is trained and measured on their answers."""

from lpi_jax.models.llava.generation import generate as generate
