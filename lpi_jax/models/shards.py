"""The tensors of a Hugging Face directory: model.safetensors, or the shards that its index names.

Read one tensor at a time, of which the host holds no more than that one, or all together.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.models import tensor_files
from lpi_jax.models.tensor_files import brief, listed

ALONE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Shards:
    """What the files of a directory promise: `shapes`, by name of the tensor. `tensors` keeps the promise.

    Raises: UserError for files that are missing or damaged, for an index that does not say what the shards hold, and
      for one that names files elsewhere.
    """

    def __init__(self, directory: Path):
        self.files = [directory / name for name in _names(directory)]
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            shapes = tensor_files.shapes(file)
            if twice := shapes.keys() & self.shapes.keys():
                raise UserError(f"{file} repeats tensors of another shard: {listed(twice)}")
            self.shapes |= shapes
        if absent := _promised(directory) - self.shapes.keys():
            raise UserError(f"{directory / INDEX} promises tensors that its shards lack: {listed(absent)}")

    def tensors(self, names: set[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(name, array [...]) of each of the named tensors, file by file; raises UserError for a damaged file."""
        for file in self.files:
            with tensor_files.opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
                    if name in names:
                        yield name, tensors.get_tensor(name)


def directory_tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors [...] of a directory, by name. Raises: as `Shards`."""
    shards = Shards(directory)
    return dict(shards.tensors(set(shards.shapes)))


def _names(directory: Path) -> list[str]:
    """The names of the files with tensors, all of them beside config.json."""
    if (directory / ALONE).is_file() or not (directory / INDEX).is_file():
        return [ALONE]
    return sorted(set(_weight_map(directory).values()))


def _promised(directory: Path) -> set[str]:
    return set() if _names(directory) == [ALONE] else set(_weight_map(directory))


def _weight_map(directory: Path) -> dict[str, str]:
    where = tensor_files.json_object(directory / INDEX).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise UserError(f"{directory / INDEX}: weight_map must map tensor names to file names")
    for name in where.values():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise UserError(f"{directory / INDEX}: {brief(name)} is not the name of a .safetensors file beside it")
    return where
