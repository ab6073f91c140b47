"""The adapters of a memory, as answers need them: samples under different prompts share a batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lpi_jax.methods.base import PLAIN, Method
from lpi_jax.problems.instruction.sides import SITE
from lpi_jax.problems.made import made
from lpi_jax.types import Adapter, Tree


class Group(NamedTuple):
    """Samples that are answered together, and how.

    Attributes:
      rows: [n] int, which of the samples. params: of the backbone.
      prompts: [A, 1, M, D] float32, to choose from; None: none. present: [A, M] bool, which of them are there.
      chosen: [n] int, the row of both that each sample gets.
    """

    rows: np.ndarray
    params: Tree
    prompts: np.ndarray | None = None
    present: np.ndarray | None = None
    chosen: np.ndarray | None = None

    def plain(self, frozen: Tree) -> bool:
        """Whether the samples are answered by the frozen backbone as it is."""
        return self.params is frozen and self.prompts is None


class Adapters:
    """What a method makes of a memory; each adapter is made when it is first asked for.

    Args:
      frozen: the backbone, on the devices.
    """

    def __init__(self, method: Method, memory: Tree, frozen: Tree) -> None:
        self._method, self._memory, self.frozen = method, memory, frozen
        self._made: dict[int, Adapter] = {}

    def groups(self, ids: np.ndarray) -> Iterator[Group]:
        """The samples with these adapter ids [N], in as few groups as can be; every sample is in one of them."""
        adapters = [self._adapter(int(number)) for number in ids]
        plain, prompted, changed = [], [], {}
        for row, adapter in enumerate(adapters):
            if adapter.params is not self.frozen:
                changed.setdefault(int(ids[row]), []).append(row)
            else:
                (prompted if SITE in adapter.prompts else plain).append(row)
        if plain:
            yield Group(np.array(plain), self.frozen)
        if prompted:
            distinct, chosen = np.unique(ids[prompted], return_inverse=True)
            yield under([self._adapter(int(number)) for number in distinct], np.array(prompted), chosen.reshape(-1))
        for number, rows in changed.items():
            yield under([self._adapter(number)], np.array(rows), np.zeros(len(rows), int))

    def _adapter(self, number: int) -> Adapter:
        if number == PLAIN:
            return Adapter(self.frozen, {})
        if number not in self._made:
            self._made[number] = made(self._method, self._memory, number, self.frozen)
        return self._made[number]


def under(adapters: list[Adapter], rows: np.ndarray, chosen: np.ndarray) -> Group:
    """The samples `rows` [n], each under the adapter of the number in `chosen` [n]; all have the same parameters."""
    first = adapters[0]
    if SITE not in first.prompts:
        return Group(rows, first.params)
    prompts = np.stack([np.asarray(adapter.prompts[SITE]) for adapter in adapters])
    present = np.stack([_present(adapter) for adapter in adapters])
    return Group(rows, first.params, prompts, present, chosen)


def _present(adapter: Adapter) -> np.ndarray:
    told = (adapter.present or {}).get(SITE)
    return np.ones(adapter.prompts[SITE].shape[1], bool) if told is None else np.asarray(told)
