"""Numbers that are no longer finite end a run, before they are saved."""

from typing import Any

import jax
import numpy as np

from lpi_jax.errors import UserError


class Watch:
    """Looks at the loss of every step, one step later: the device always has the next one to work on meanwhile.

    Args:
      rate: the learning rate, as configured, which is named as what may be wrong.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._unseen: tuple[int, dict[str, Any]] | None = None

    def begin(self) -> None:
        """A task begins: what was not looked at yet was another's."""
        self._unseen = None

    def look(self, task: str, done: int, terms: dict[str, Any], now: bool) -> None:
        """At the terms of the step before; `now`: at this one's, too, which waits for the device.

        Args:
          done: steps of the task, with this one. terms: the losses by name, scalars; "loss" is their sum.

        Raises:
          UserError: a loss is not finite.
        """
        before, self._unseen = self._unseen, (done, terms)
        for step, told in filter(None, (before, self._unseen if now else None)):
            if not np.isfinite(told["loss"]):
                parts = ", ".join(f"{name} {float(value):.4g}" for name, value in told.items() if name != "loss")
                raise UserError(
                    f"the loss is {float(told['loss'])} in task {task!r} after {step} steps ({parts});"
                    f" config.train.lr of {self._rate} may be too large"
                )

    def refuse(self, task: str, done: int, tree: Any) -> None:
        """Raises UserError where numbers of a tree after so many steps are not finite: no loss has seen them yet."""
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)):
            raise UserError(
                f"step {done} of task {task!r} ended in numbers that are not finite; config.train.lr of {self._rate}"
                " may be too large"
            )
