"""python -m lpi_jax.report"""

import sys

from lpi_jax.report.command import main

sys.exit(main(sys.argv))
