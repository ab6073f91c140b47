"""Devices without hardware, and what a chip of each kind can do."""

import difflib
import importlib.util
import os
import re
from typing import Any, NamedTuple

from lpi_jax.errors import UserError
from lpi_jax.parallel.peaks import PEAKS

GIB = 2**30


class Chip(NamedTuple):
    """Peaks of one chip: bfloat16 TFLOP/s, GiB of memory, GB/s to it, and GB/s to other chips, all links together."""

    tflops: float
    memory: float
    bandwidth: float
    links: float


# Google's pages on each kind (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e); links in one direction.
CHIPS = {
    "v4": Chip(PEAKS["TPU v4"], 32, 1228, 300),
    "v5e": Chip(PEAKS["TPU v5 lite"], 16, 819, 200),
    "v5p": Chip(PEAKS["TPU v5"], 95, 2765, 600),
    "v6e": Chip(PEAKS["TPU v6 lite"], 32, 1638, 400),
}


# What libtpu otherwise asks the machine for that it runs on.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken, so that two plans may be made at once
}


def chip(topology: str) -> Chip:
    """Of the kind that a topology such as "v5e:4x4" is of. Raises UserError for one that is not known."""
    kind, colon, shape = topology.partition(":")
    if kind not in CHIPS:
        near = difflib.get_close_matches(kind, CHIPS, 1, 0.0)[0]
        raise UserError(f"--topology is {topology!r}; did you mean {near}:2x2? Known are {', '.join(CHIPS)}")
    if not colon or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
        raise UserError(f"--topology is {topology!r}, expected a kind and a shape such as {kind}:2x2")
    return CHIPS[kind]


def devices(topology: str) -> list[Any]:
    """The devices of a topology that is not there.

    Raises:
      UserError: libtpu is not installed, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("planning for TPUs needs their compiler; install it with pip install 'lpi_jax[tpu]'")
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # whatever the plugin raises for a shape it does not have
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--topology is {topology!r}, which libtpu does not make: {told[0][:200]}") from error
