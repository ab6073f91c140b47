"""Runs as tables, pictures and a page: python -m lpi_jax.report."""

from lpi_jax.report.command import main, table

__all__ = ["main", "table"]
