"""python -m lpi_jax.plan (`lpi_jax.plan.command`)."""

import sys

from lpi_jax.plan.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
