"""The adapters of a memory, as the encoder needs them: items under different prompts share a batch."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import PLAIN, Method
from lpi_jax.problems.made import made
from lpi_jax.types import Adapter, Tree


class Group(NamedTuple):
    """Items that are encoded together, and how.

    Attributes:
      rows: [n] int, which of the items.
      params: the towers' parameters.
      table: [A, L, P, D], prompts to choose from; None: the plain tower.
      chosen: [n] int32, the row of the table that each item gets.
      tuned: (trainable, constants) of a method that makes the prompts of each item from its queries; None: as above.
    """

    rows: np.ndarray
    params: Tree
    table: Array | None = None
    chosen: np.ndarray | None = None
    tuned: tuple[Tree, Tree] | None = None

    def plain(self, frozen: Tree) -> bool:
        """Whether the items are what the frozen backbone makes of them."""
        return self.params is frozen and self.table is None and self.tuned is None


class Adapters:
    """What a method makes of a memory; each adapter is made when it is first asked for.

    Args:
      frozen: the backbone, on the devices.
    """

    def __init__(self, method: Method, memory: Tree, frozen: Tree) -> None:
        self._method, self._memory, self.frozen = method, memory, frozen
        self._made: dict[int, Adapter] = {}

    def groups(self, site: str, ids: np.ndarray) -> Iterator[Group]:
        """The items with these adapter ids [N], in as few groups as can be; every item is in one of them."""
        if len(rows := np.flatnonzero(ids == PLAIN)):
            yield Group(rows, self.frozen)
        rows = np.flatnonzero(ids != PLAIN)
        if not len(rows):
            return
        distinct, chosen = np.unique(ids[rows], return_inverse=True)
        if self._method.wants_queries:
            for place, adapter in enumerate(distinct):
                yield Group(rows[chosen == place], self.frozen, tuned=self._method.view(self._memory, int(adapter)))
            return
        adapters = [self._adapter(int(adapter)) for adapter in distinct]
        if all(adapter.params is self.frozen and site in adapter.prompts for adapter in adapters):
            table = jnp.stack([adapter.prompts[site] for adapter in adapters])
            # Room for more, so that few programs are compiled while tasks arrive.
            room = memories.capacity(len(adapters)) - len(adapters)
            table = jnp.pad(table, [(0, room), (0, 0), (0, 0), (0, 0)])
            yield Group(rows, self.frozen, table, chosen.astype(np.int32))
            return
        for place, adapter in enumerate(adapters):
            prompts = adapter.prompts.get(site)
            table = None if prompts is None else prompts[None]
            yield Group(rows[chosen == place], adapter.params, table)

    def _adapter(self, number: int) -> Adapter:
        if number not in self._made:
            self._made[number] = made(self._method, self._memory, number, self.frozen)
        return self._made[number]


def encoded(
    plain: np.ndarray,
    ids: np.ndarray,
    adapters: Adapters,
    site: str,
    encode: Callable[[np.ndarray, Group], np.ndarray],
) -> np.ndarray:
    """Features of items under their adapters; those that no method touches are what they are without.

    Args:
      plain: [N, E] float32, features without a method. ids: [N] int32, adapter ids.
      encode: (items [n] int, their group) -> features [n, E].

    Returns:
      [N, E] float32.
    """
    features = plain.copy()
    for group in adapters.groups(site, ids):
        if not group.plain(adapters.frozen):
            features[group.rows] = encode(group.rows, group)
    return features
