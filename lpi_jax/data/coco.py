"""The name under which COCO's manifest is made: python -m lpi_jax.data.coco (`lpi_jax.data.sources.coco`)."""

import sys

from lpi_jax.data.sources.coco import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
