"""What instruction following calls its one site and its one side."""

from lpi_jax.methods.base import LANGUAGE

SITE = LANGUAGE  # where prompts enter
SIDE = "sample"  # what queries are made of
