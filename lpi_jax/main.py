"""Command line: python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=DIR [--config.train.lr=0.1 ...]"""

import sys
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from lpi_jax.errors import UserError

USAGE = """Learns a stream of captioned pictures task by task and writes what it finds to --workdir.

  python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=DIR
  python -m lpi_jax.main --config=configs/scenes_lpi.py:released --workdir=DIR   the authors' release
  ... --config.task_id=oracle --config.train.lr=0.1                              any key of lpi_jax/config.py

The same command again goes on where it was interrupted. A finished run only prints its table."""


def parse(arguments: Sequence[str]) -> tuple[ConfigDict, str]:
    """The configuration and the run's directory; UserError for anything that is not a flag, a key or a value of it."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Configuration file, FILE or FILE:PRESET.", lock_config=True, flag_values=values
    )
    flags.DEFINE_string("workdir", None, "The run's directory: new, empty, or of the same run.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this text.", short_name="h", flag_values=values)
    if any(argument in ("--help", "-h", "-help") for argument in arguments[1:]):
        print(USAGE, values.main_module_help() or values.get_help(), sep="\n\n")
        sys.exit(0)
    try:
        rest = values(list(arguments))[1:]
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--config names {error.filename!r}, which cannot be read: {error.strerror}") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_reason(error, arguments)) from error
    if rest:
        raise UserError(f"argument {rest[0]!r} was not expected; flags begin with --")
    for name in ("config", "workdir"):
        if not values[name].value:
            raise UserError(f"--{name} is missing; see --help")
    return values.config, values.workdir


def _reason(error: Exception, arguments: Sequence[str]) -> str:
    """One sentence for what the flag parser objected to."""
    text = str(error.args[0] if error.args else error).strip().splitlines()
    return f"the command line cannot be used: {' '.join(line.strip() for line in text)}"


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit status: 0, or 2 for a user's mistake."""
    logging.set_verbosity(logging.ERROR)
    try:
        config, workdir = parse(arguments)
        from lpi_jax import continual, report  # here, because JAX takes seconds to import and --help needs none of it

        continual.run(config, workdir)
        print(report.table([workdir]))
        print(f"Results: {workdir}/results.json")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
