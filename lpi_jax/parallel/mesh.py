"""Devices: one mesh with a data axis; frozen weights and prompts on every device, batches split over them.

The devices may belong to several processes (`hosts`), each of which makes its own rows of a batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lpi_jax.errors import UserError
from lpi_jax.parallel.devices import available


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh over the first `devices` devices (0: all of them), axis `data`.

    Raises:
      UserError: there are none (see `devices.available`) or fewer than asked for, or some process would have fewer
        than others.
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
    # Auto axes: the compiler places what we do not annotate.
    return Mesh(np.asarray(chosen), ("data",), axis_types=(AxisType.Auto,))


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
    return NamedSharding(mesh, P("data"))


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
