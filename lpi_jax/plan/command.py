"""What a run would need on TPUs that are not there: python -m lpi_jax.plan --config=FILE --topology=v5e:4x4"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lpi_jax import terminal
from lpi_jax.errors import UserError
from lpi_jax.plan.chips import GIB, Chip, chip, devices
from lpi_jax.plan.largest import largest
from lpi_jax.terminal.display import room

if TYPE_CHECKING:
    from jax.sharding import Mesh
    from ml_collections import ConfigDict

    from lpi_jax.plan.compiled import Compiled

USAGE = """\
Compiles the programs of a run ahead of time, for TPUs that are not there, and prints what each
needs of a chip. Reads no weights and no data. Needs pip install 'lpi_jax[tpu]'; minutes of CPU.

  python -m lpi_jax.plan --config=configs/coco_lpi.py --topology=v5e:2x2

  --config=FILE[:PRESET]  configuration file, as for lpi_jax.main
  --config.KEY=VALUE      changes one key of it; several are allowed, such as train.batch
  --topology=T[,T ...]    kind and shape of the slice: v5e:4x4, v5p:2x2x2, v6e:16x16, v4:2x2x1, ...
  --largest               also looks for the largest training batch that fits, in up to six
                          more compilations
  --help                  shows this text

Exit status: 0 where every program fits into a chip's memory; 1 where one does not; 2 for a
mistake in the command line.
"""
LEGEND = """\
Of one chip. rows: of the batch, over all chips. GiB: of arguments (backbone, batch, state), of results
and temporaries, and of all; has: of the chip. TFLOP, GB: computed, and moved to and from memory, as the
compiler counts them; what stands in a loop (the tokens of an answer, the parts of
train.microbatch) counts once. ms: the roofline's,
the time of the part that would be busy longest at its peak, and which part that is; a real step takes
longer. sent: collectives, how many of a kind among how many chips, with the bytes that a chip gets.
"""
COLUMNS = ("topology", "program", "rows", "arguments", "temporaries", "GiB", "has", "TFLOP", "GB", "ms", "limit")
FITS, TOO_LARGE = terminal.OK, 1
LARGEST = "--largest"


@terminal.command()
def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0; 1 where a program does not fit; 2 for a user's mistake; 130 after Ctrl-C.
    """
    from lpi_jax.config import command_line

    if command_line.asks_for_help(arguments[1:]):
        print(USAGE, end="")
        return terminal.OK
    given = [argument for argument in arguments[1:] if argument != LARGEST]
    config, named = command_line.parse(given, "topology", path=False)
    kinds = {topology: chip(topology) for topology in named.split(",")}
    import jax  # here, because it takes seconds to import and --help needs none of it

    jax.config.update("jax_platforms", "cpu")  # what there is of other devices is another program's
    from lpi_jax.parallel import mesh as meshes
    from lpi_jax.plan.compiled import TooLargeError, compiled
    from lpi_jax.plan.programs import TRAINING, programs

    print(f"| {' | '.join(COLUMNS)} | sent |\n|{' --- |' * (len(COLUMNS) + 1)}", flush=True)
    fits, remarks = True, []
    for topology, kind in kinds.items():
        found = devices(topology)
        if len(found) % config.fsdp:
            raise UserError(f"config.fsdp is {config.fsdp}, expected a divisor of the {len(found)} chips of {topology}")
        mesh = meshes.mesh_of(found, config.fsdp)
        planned = programs(config, mesh)
        for name, call in planned.items():
            rows = config.train.batch if name == TRAINING else config.eval.batch
            try:
                program = compiled(call)
                columns, needed = list(cells(program, kind)), program.peak
            except TooLargeError as error:
                columns, needed = ["", "", f"over {error.needed / GIB:.2f}", f"{kind.memory:g}", *[""] * 5], math.inf
            print(f"| {' | '.join([topology, name, str(rows), *columns])} |", flush=True)
            fits &= needed < kind.memory * GIB
        if LARGEST in arguments and TRAINING in planned:
            remarks.append(_largest(config, mesh, topology, kind))
    print("".join(f"\n{remark}" for remark in remarks) + f"\n{LEGEND}", end="")
    return FITS if fits else TOO_LARGE


def _largest(config: "ConfigDict", mesh: "Mesh", topology: str, kind: Chip) -> str:
    """A sentence on the largest training batch that fits."""
    from lpi_jax.plan.compiled import TooLargeError, compiled
    from lpi_jax.plan.programs import TRAINING, programs

    own, memory = config.copy_and_resolve_references(), kind.memory * GIB

    def peak(rows: int) -> int:
        own.train.batch, own.train.batches = rows, ()
        try:
            return compiled(programs(own, mesh)[TRAINING]).peak
        except TooLargeError as error:
            return max(error.needed, int(memory))  # the compiler has less than the chip, and says maybe a part

    step = own.train.microbatch or mesh.size
    rows, needed = largest(peak, -(-own.train.batch // step) * step, step, memory)
    if not rows:
        return (
            f"{topology}: no training batch fits; the smallest that was tried needs {needed / GIB:.2f} GiB of a chip."
        )
    return f"{topology}: the largest training batch found to fit is {rows}, {needed / GIB:.2f} GiB of a chip."


def cells(program: "Compiled", kind: Chip) -> Iterator[str]:
    """What a program needs of a chip, as columns from `arguments` on."""
    yield f"{program.memory['arguments'] / GIB:.2f}"
    yield f"{(program.memory['results'] + program.memory['temporaries']) / GIB:.2f}"
    yield f"{program.peak / GIB:.2f}"
    yield f"{kind.memory:g}"
    yield f"{program.flops / 1e12:.3g}"
    yield f"{program.moved / 1e9:.3g}"
    times = program.times(kind)
    limit = max(times, key=lambda part: times[part])
    yield f"{1e3 * times[limit]:.1f}"
    yield limit
    if program.collectives is None:
        yield "not known: this version of JAX cannot read the program"
        return
    yield ", ".join(
        f"{one.count} {one.kind} among {one.chips or 'all'}: {room(one.size)}" for one in program.collectives
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
