"""Devices: one mesh with the axes data and fsdp. Batches are split over both, frozen weights over fsdp alone.

With an fsdp axis of 1, the usual one, every device has the whole backbone. What is trained is on every device. The
devices may belong to several processes, each of which makes its own rows of a batch.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lpi_jax.errors import UserError
from lpi_jax.parallel.devices import available

AXES = ("data", "fsdp")


def make_mesh(devices: int = 0, fsdp: int = 1) -> Mesh:
    """A mesh over the first `devices` devices (0: all of them); `fsdp` of them, neighbours, share one backbone.

    Raises:
      UserError: there are none (see `devices.available`) or fewer than asked for, or some process would have fewer
        than others, or they do not make whole groups of `fsdp`.
    """
    found = available()
    if not 0 <= devices <= len(found):
        raise UserError(f"config.devices is {devices}, expected 0 (all) to {len(found)}, the devices found here")
    chosen = found[: devices or len(found)]
    # By process, so that each holds neighbouring rows of a batch: `jax.make_mesh` may order devices otherwise.
    chosen = sorted(chosen, key=lambda device: (device.process_index, device.id))
    shares = np.bincount([device.process_index for device in chosen], minlength=jax.process_count())
    if shares.min() != shares.max():
        raise UserError(
            f"config.devices is {devices}, which gives the {len(shares)} processes {shares.min()} to {shares.max()}"
            " devices each; expected as many for each"
        )
    if fsdp < 1 or len(chosen) % fsdp:
        raise UserError(f"config.fsdp is {fsdp}, expected a divisor of the number of devices, {len(chosen)}")
    return mesh_of(chosen, fsdp)


def mesh_of(devices: Sequence[Any], fsdp: int = 1) -> Mesh:
    """The mesh [devices / fsdp, fsdp] of these devices, which may be those of a topology without hardware."""
    # Auto axes: the compiler places what we do not annotate.
    return Mesh(np.asarray(devices).reshape(-1, fsdp), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch(name: str, size: int, mesh: Mesh) -> None:
    """Raises UserError unless a batch of `size` splits evenly over the mesh."""
    if size < 1 or size % mesh.size:
        raise UserError(
            f"{name} is {size}, expected a multiple of the {mesh.size} devices it is split over; use"
            f" --{name}={max(size // mesh.size, 1) * mesh.size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, P(AXES))


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Places a tree of host arrays, equal in every process, on every device."""
    # Not `device_put`, which compares the whole tree between processes.
    return jax.make_array_from_process_local_data(replicated(mesh), tree)


def connect(mesh: Mesh) -> None:
    """Lets several processes meet over all devices of the mesh: on CPUs, those that first do must come within 30 s."""
    if jax.process_count() > 1:
        rows = put_rows(np.zeros(mesh.size // jax.process_count(), np.float32), mesh)
        jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated(mesh))(rows))


def put_rows(tree: Any, mesh: Mesh) -> Any:
    """Places a tree of host arrays, this process's rows of [B, ...], split over the devices of all processes."""
    return jax.make_array_from_process_local_data(split(mesh), tree)
