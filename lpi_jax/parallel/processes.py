"""Several processes that run one command together, as on a TPU pod: the first keeps the run's directory for all.

Every process computes the same, on its own rows of each batch. What only one of them may do or can know (writing,
reading what was written) is done by the first, and the others are told: no file system has to be shared but the data's.
With one process each function here does nothing but what it is given.
"""

import atexit
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lpi_jax.errors import UserError, reason

Tree = TypeVar("Tree")

_GRACE = 20.0  # seconds a process waits at its end for the others to end, too
_LEAST = 4096  # bytes; what is sent is filled up to a power of two, so that few sizes are ever compiled


def start() -> None:
    """Finds the other processes; before JAX is used for anything else, and once.

    On TPU pods, under Slurm and under Open MPI JAX knows them by itself. Elsewhere JAX_COORDINATOR_ADDRESS
    (HOST:PORT of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0) tell of them. Where they cannot be reached,
    JAX waits for five minutes and then ends the process.

    Raises:
      UserError: they are not told.
    """
    if jax.distributed.is_initialized():
        return
    # JAX would take SIGTERM for itself, and a process that got one before it learns would neither end nor leave.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID"))
    except (IndexError, RuntimeError, TypeError, ValueError) as error:  # IndexError: an address without a port
        raise UserError(
            f"config.distributed is True, but the other processes were not found ({reason(error)}); expected a TPU pod,"
            " Slurm, Open MPI, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    atexit.register(_leave)


def first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def agreed(make: Callable[[], Any]) -> Any:
    """What `make` returns, called by the first process alone: JSON, the same for all.

    Raises:
      UserError: `make` raised it. (Whatever else it raises comes up in the first process; in others RuntimeError.)
    """
    if jax.process_count() == 1:
        return make()
    message, failure = "", None
    if first():
        try:
            message = json.dumps({"value": make()})
        except Exception as error:  # told to the others, which would wait forever else
            message, failure = json.dumps({"error": str(error), "mistake": isinstance(error, UserError)}), error
    answer = json.loads(_sent(message.encode()))
    if failure is not None:
        raise failure
    if "error" in answer:
        raise (UserError if answer["mistake"] else RuntimeError)(answer["error"])
    return answer["value"]


def copied(tree: Tree) -> Tree:
    """The first process's NumPy arrays, for all. In the others only the shapes and dtypes of `tree` count."""
    if jax.process_count() == 1:
        return tree

    def copy(leaf: np.ndarray) -> np.ndarray:
        raw = _broadcast(np.frombuffer(leaf.tobytes(), np.uint8))
        return np.frombuffer(raw.tobytes(), leaf.dtype).reshape(leaf.shape).copy()

    return jax.tree.map(copy, tree)


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any process. All must ask at the same point, and wait for their devices there."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(flag)).any())


def refuse_differences(values: Mapping[str, Any]) -> None:
    """Raises UserError, in every process, unless all have the same JSON values."""
    if jax.process_count() == 1:
        return
    digests = {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest() for name, value in values.items()
    }
    leading, *others = [json.loads(message) for message in _gathered(json.dumps(digests).encode())]
    for process, own in enumerate(others, 1):
        if names := [name for name in {**leading, **own} if leading.get(name) != own.get(name)]:
            raise UserError(
                f"process {process} has another {' and another '.join(names)} than process 0; expected all processes to"
                " run the same command on the same files"
            )


def _leave() -> None:
    """Waits for the others to end, but not for ever: they may be waiting for this one, which then has failed alone.

    Left by it they cannot go on: JAX ends them, at once where a connection breaks, within two minutes elsewhere. The
    exit status of one that leaves so is 2, whatever ended it.
    """
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(_GRACE)
    if leaving.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    return None if text is None else int(text)


def _gathered(message: bytes) -> list[bytes]:
    """Every process's message, whatever their lengths."""
    sizes = multihost_utils.process_allgather(np.int32(len(message)))
    rooms = multihost_utils.process_allgather(np.frombuffer(message.ljust(_room(sizes.max())), np.uint8))
    return [room.tobytes()[:size] for room, size in zip(rooms, sizes, strict=True)]


def _sent(message: bytes) -> bytes:
    """The first process's message, whatever its length."""
    size = _broadcast(np.frombuffer(len(message).to_bytes(8, "little"), np.uint8))
    return _broadcast(np.frombuffer(message, np.uint8), int.from_bytes(size.tobytes(), "little")).tobytes()


def _broadcast(raw: np.ndarray, size: int | None = None) -> np.ndarray:
    """[size] uint8 of the first process. Bytes, because broadcasting is a sum, in which -0.0 would become 0.0."""
    size = len(raw) if size is None else size
    room = np.zeros(_room(size), np.uint8)
    room[: min(size, len(raw))] = raw[:size]
    return np.asarray(multihost_utils.broadcast_one_to_all(room))[:size]


def _room(size: int) -> int:
    return max(_LEAST, 1 << (int(size) - 1).bit_length())
