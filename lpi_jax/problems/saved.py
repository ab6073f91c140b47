"""What evaluators have computed, kept at a task boundary: arrays by the set of items they belong to and their name."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lpi_jax.errors import UserError, reason
from lpi_jax.files import RESUME, write_atomically, writing
from lpi_jax.parallel import processes

Arrays = Mapping[str, Mapping[str, np.ndarray]]


def save(path: Path, arrays: Arrays) -> None:
    """Writes arrays [...] by set and name into a folder of a run's directory: a resumed run computes nothing twice."""
    flat = {f"{name}.{key}": part for name, parts in arrays.items() for key, part in parts.items()}

    def write() -> None:
        with writing(path.parent.parent, RESUME):
            path.parent.mkdir(exist_ok=True)  # the run's directory itself is there, or has been removed
            write_atomically(path, lambda file: np.savez(file, **flat))

    processes.agreed(write)


def saved(path: Path, wanted: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """What `save` wrote [...], by set and name, in every process; wanted: has the same names.

    Raises:
      UserError: the file is damaged.
    """
    names = [f"{name}.{key}" for name, parts in wanted.items() for key in parts]
    found: dict[str, np.ndarray] = {}

    def read() -> list[tuple[list[int], str]]:
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found.update({name: arrays[name] for name in names})
        except Exception as error:  # a damaged archive makes the readers raise nearly anything
            raise UserError(f"{path} cannot be read ({reason(error)}); delete it to have it computed again") from error
        return [(found[name].shape, str(found[name].dtype)) for name in names]

    expected = processes.agreed(read)
    arrays = [found[name] for name in names] if found else [np.empty(shape, dtype) for shape, dtype in expected]
    arrays = dict(zip(names, processes.copied(arrays), strict=True))
    return {name: {key: arrays[f"{name}.{key}"] for key in parts} for name, parts in wanted.items()}
