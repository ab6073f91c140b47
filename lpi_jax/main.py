"""Command line: python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=DIR [--config.train.lr=0.1 ...]"""

import sys
from collections.abc import Sequence

from absl import logging

from lpi_jax import terminal
from lpi_jax.config import command_line

DRY = "--dry-run"


@terminal.command(interrupted="interrupted; the same command goes on from the last checkpoint")
def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0, 2 for a user's mistake (told in one line on stderr), 130 after Ctrl-C.
    """
    logging.set_verbosity(logging.ERROR)
    if command_line.asks_for_help(arguments[1:]):
        print(command_line.usage())
        return terminal.OK
    given = [argument for argument in arguments[1:] if argument != DRY]
    config, workdir = command_line.parse(given)
    # Here, because JAX takes seconds to import and --help needs none of it.
    from lpi_jax import report
    from lpi_jax.parallel import processes
    from lpi_jax.run import continual, dry

    if DRY in arguments:
        told = dry.tell(config, workdir)
        if processes.first():
            print(told)
        return terminal.OK
    continual.run(config, workdir)
    if processes.first():
        print(report.table([workdir]))
        print(f"Results: {workdir}/results.json")
    return terminal.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv))
