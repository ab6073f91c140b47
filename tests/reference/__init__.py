"""The independent NumPy reference: every formula of `lpi_jax`, written slowly and plainly from the specification alone.

Float64 in, float64 out; loops where a loop says it best; no JAX, no shortcut, nothing imported from the package. The
tests hold the package against these files, and `reference_test.py` holds these files against numbers worked by hand.
"""
