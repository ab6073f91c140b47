"""The name under which a folder is searched: python -m lpi_jax.search (`lpi_jax.serving.search`)."""

import sys

from lpi_jax.serving.search import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
