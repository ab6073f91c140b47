"""One program compiled ahead of time: what a chip holds, computes and is sent."""

import math
import re
from collections import Counter
from typing import NamedTuple

import jax
import numpy as np

from lpi_jax.plan.chips import Chip
from lpi_jax.problems.base import Call

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(-start)?\((.*)")
_SHAPE = re.compile(r"(pred|[suf]\d+|bf16)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")
# How a program says who takes part: axes of a mesh, [groups, members], a list of groups.
_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}")
# How the compiler for TPUs says that there is no room.
_NEEDED = re.compile(r"[Rr]an out of memory .*?(?:temporaries \(|Used )([\d.]+)([KMGT])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_IOTA, _LISTED = re.compile(r"replica_groups=\[\d+,(\d+)\]"), re.compile(r"replica_groups=\{\{([\d,]*)\}")


class Collective(NamedTuple):
    """What chips send one another: the kind, among how many chips, how often in the program, and bytes a chip gets."""

    kind: str
    chips: int
    count: int
    size: int


class Compiled(NamedTuple):
    """A program on one chip.

    Attributes:
      memory: bytes by what they hold. flops, moved: floating point operations, and bytes to and from memory; what is in
        a loop counts once. collectives: likewise; None where JAX cannot read the program.
    """

    memory: dict[str, int]
    flops: float
    moved: float
    collectives: tuple[Collective, ...] | None

    @property
    def peak(self) -> int:
        """Bytes of memory."""
        return sum(self.memory.values())

    def times(self, chip: Chip) -> dict[str, float]:
        """Seconds that each part of the chip, as far as known, is busy at its peak; the longest is the roofline's."""
        own = {"compute": self.flops / (chip.tflops * 1e12), "memory": self.moved / (chip.bandwidth * 1e9)}
        if self.collectives is None:
            return own
        return own | {"links": sum(one.size for one in self.collectives) / (chip.links * 1e9)}


class TooLargeError(Exception):
    """A program that does not fit into a chip's memory. needed: bytes."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"it needs {needed} bytes")
        self.needed = needed


def compiled(call: Call) -> Compiled:
    """Compiles without running. Raises TooLargeError where the compiler itself finds no room."""
    try:
        program = call.run.lower(*call.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if (told := _NEEDED.search(str(error))) is None:
            raise
        raise TooLargeError(int(float(told[1]) * _UNITS[told[2]])) from error
    size, cost = program.memory_analysis(), program.cost_analysis() or {}
    memory = {
        "arguments": size.argument_size_in_bytes,
        "results": max(0, size.output_size_in_bytes - size.alias_size_in_bytes),
        "temporaries": size.temp_size_in_bytes,
        "program": size.generated_code_size_in_bytes,
    }
    flops, moved = (float(cost.get(name, np.nan)) for name in ("flops", "bytes accessed"))
    try:
        sent = collectives(program.as_text())
    except jax.errors.JaxRuntimeError:  # a newer compiler's program, which this version of JAX cannot write out
        sent = None
    return Compiled(memory, flops, moved, sent)


def collectives(text: str) -> tuple[Collective, ...]:
    """Those of a program's text (HLO), equal ones together, the largest first."""
    count: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    channels = set()
    for shapes, kind, start, rest in _COLLECTIVE.findall(text):
        # One that runs beside several other computations stands in the text of each of them.
        if (channel := _CHANNEL.search(rest)) is not None and (kind, channel[1]) in channels:
            continue
        channels.add((kind, channel and channel[1]))
        which = (kind, _members(rest))
        count[which] += 1
        size[which] += _bytes(kind, shapes, bool(start))
    found = (Collective(*which, count[which], size[which]) for which in count)
    return tuple(sorted(found, key=lambda one: (-one.size, one.kind, one.chips)))


def _members(rest: str) -> int:
    """Among how many chips; 2 of a permutation, 0 where the text does not say."""
    if (axes := _AXES.search(rest)) is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes[1])}
        return math.prod(sizes[name] for name in re.findall(r"\w+", axes[2]))
    if (iota := _IOTA.search(rest)) is not None:
        return int(iota[1])
    if (listed := _LISTED.search(rest)) is not None:
        return len(listed[1].split(","))
    return 2 if "source_target_pairs" in rest else 0


def _bytes(kind: str, shapes: str, start: bool) -> int:
    """Of what a collective gives. The start of some also names what they are given, first, and scalars of their own."""
    found = _SHAPE.findall(shapes)
    if start and kind in ("all-gather", "collective-permute"):
        arrays = [(dtype, axes) for dtype, axes in found if axes]
        found = arrays[len(arrays) // 2 :]
    return sum(_size(*one) for one in found)


def _size(dtype: str, axes: str) -> int:
    """Of an array written as bf16[128,4096]."""
    bits = {"pred": 8, "bf16": 16}.get(dtype) or int(re.sub(r"\D", "", dtype))
    return bits // 8 * int(np.prod([int(axis) for axis in axes.split(",") if axis], dtype=np.int64))
