"""The name under which the check is started: python -m lpi_jax.data.check (`lpi_jax.check.command`)."""

import sys

from lpi_jax.check.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
