"""What the finished tasks of a run left, and how it is found again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lpi_jax.errors import UserError
from lpi_jax.types import Tree
from lpi_jax.workdir.checkpoint import Checkpoints


@dataclass
class Progress:
    """A boundary checkpoint holds all of it.

    Attributes:
      names: of the finished tasks. memory: the method's; {} before the first task.
      stages: what was measured after each task. seconds: spent on each task, by kind of work.
      cut: texts of finished tasks that are longer than the context.
      flops: floating point operations of each task's training steps; may lack those of tasks that an earlier version
        finished.
    """

    names: tuple[str, ...] = ()
    memory: Tree = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[dict[str, float]] = field(default_factory=list)
    cut: int = 0
    flops: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many tasks are finished."""
        return len(self.names)

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Counts the seconds of the block as this kind of work on the task at hand; its first kind begins it."""
        began = time.monotonic()
        yield
        spent = time.monotonic() - began
        if not self.seconds or work in self.seconds[-1]:
            self.seconds.append({})
        self.seconds[-1][work] = spent

    def measured(self, stage: dict[str, Any]) -> None:
        """One more stage. Only the newest keeps where items were routed to: a matrix for each would grow with T³."""
        for earlier in self.stages:
            for side in earlier["routing"].values():
                side.pop("confusion", None)
        self.stages.append(stage)

    def meta(self) -> dict[str, Any]:
        """All but the memory, as JSON."""
        return {
            "names": list(self.names),
            "stages": self.stages,
            "seconds": self.seconds,
            "flops": self.flops,
            "cut": self.cut,
        }


def restore(checkpoints: Checkpoints) -> Progress:
    """What the newest boundary checkpoint holds; the empty progress before the first. Writes nothing."""
    while True:  # a run that is at work may delete a boundary behind a newer one while it is read
        count = checkpoints.finished_tasks()
        if not count:
            return Progress()
        if (content := checkpoints.load_task(count)) is not None:
            break
    memory, meta = content
    try:
        told = (meta["stages"], meta["seconds"], meta["cut"])
        return Progress(tuple(meta["names"]), memory, *told, meta.get("flops", []))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {count} of this run lacks {error}; delete it to go on from the one before"
        ) from error
