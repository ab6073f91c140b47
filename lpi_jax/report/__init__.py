"""Runs as tables, pictures and a page: python -m lpi_jax.report."""

from lpi_jax.report.command import main, table, write
from lpi_jax.report.comparison import compare

__all__ = ["compare", "main", "table", "write"]
