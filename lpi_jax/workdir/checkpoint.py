"""Checkpoints: the memory at each task boundary, the train state inside a task.

checkpoints/task_003/ holds everything known after task 3 and is never changed again; checkpoints/inside/ holds the
newest state inside a task. Where several processes run, the first reads and writes, and tells the others: it is little,
and no file system need be shared.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.files import RESUME, writing
from lpi_jax.parallel import processes
from lpi_jax.types import Tree
from lpi_jax.workdir import checkpoint_folder as folders
from lpi_jax.workdir import description

ARRAYS = "arrays"  # in the meta of a task boundary: the shapes and dtypes of its memory
_BEFORE = "delete it to go on from the one before"


class Checkpoints:
    """The checkpoints of one run's directory. Reading changes nothing there; whoever saves calls `prepare` before.

    Saving waits until the files are on disk. Where the directory cannot be read or written, or is no longer the one
    that was prepared, every method raises UserError.

    Args:
      workdir: the run's directory. kept: how many task boundaries, the newest, are kept; 0: all.
    """

    def __init__(self, workdir: Path, kept: int = 0) -> None:
        self._workdir, self._kept = workdir, kept
        self._tasks = (workdir / "checkpoints").absolute()
        self._inside = self._tasks / "inside"
        self._prepared: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Makes the folders, and removes what a kill left half written or half deleted."""

        def make() -> None:
            with writing(self._workdir, RESUME):
                self._inside.mkdir(parents=True, exist_ok=True)
                self._prepared = self._identity()
                folders.clean(self._tasks)
                folders.clean(self._inside)

        processes.agreed(make)

    def require_place(self) -> None:
        """Raises UserError if the directory was removed or moved since it was prepared."""
        processes.agreed(self._require_place)

    def finished_tasks(self) -> int:
        """How many tasks the newest boundary checkpoint holds; 0 without one."""
        return processes.agreed(lambda: max(folders.numbers(self._tasks, "task"), default=0))

    def save_task(self, count: int, memory: Tree, meta: dict[str, Any]) -> None:
        """Saves what is known after `count` tasks.

        The last state inside the task stays until one inside a later task replaces it.

        Args:
          memory: nested dictionaries of arrays, none of which is empty; the checkpoint describes it. meta: JSON.
        """
        meta = {**meta, ARRAYS: description.of(memory)}
        processes.agreed(lambda: self._save(self._tasks, "task", count, ("memory", memory, meta), self._kept))

    def load_task(self, count: int) -> tuple[Tree, dict[str, Any]] | None:
        """Memory and meta after `count` tasks; None if the run has deleted them meanwhile, behind newer ones.

        Args:
          count: from `finished_tasks`.

        Raises:
          UserError: the checkpoint is damaged or holds something else than it says.
        """
        folder = folders.path(self._tasks, "task", count)

        def read(name: str | None, expected: Tree) -> tuple[Tree, dict[str, Any]] | None:
            instead = _BEFORE if folders.numbers(self._tasks, "task")[:1] < [count] else "delete it to begin anew"
            return folders.read(folder, name, expected, instead)

        def read_meta() -> tuple[dict[str, Any], int] | None:
            found = read(None, None)
            room = description.room(folder)  # the others do not see the folder
            return (found[1], room) if found and folder.exists() else None

        found = processes.agreed(read_meta)
        if found is None:
            return None
        meta, room = found
        expected = memory = description.expected(meta.pop(ARRAYS, None), folder, room)

        def read_memory() -> bool:
            nonlocal memory
            content = read("memory", expected)
            if content is not None:
                memory, _ = content
                # Orbax pads or cuts arrays of another shape without a word.
                if jax.tree.map(np.shape, memory) != jax.tree.map(np.shape, expected):
                    raise UserError(f"checkpoint {folder} holds arrays of other shapes than it says; {_BEFORE}")
            return content is not None

        return (processes.copied(memory), meta) if processes.agreed(read_memory) else None

    def save_inside(self, task: int, step: int, state: Tree, flops: int = 0) -> None:
        """Saves the train state `step` steps into task number `task` (from 0); it must be whole on every device.

        flops: floating point operations that these steps took.
        """
        state = jax.tree.map(np.asarray, state)

        def save() -> None:
            number = max(folders.numbers(self._inside, "step"), default=-1) + 1
            self._save(
                self._inside, "step", number, ("state", state, {"task": task, "step": step, "flops": flops}), kept=1
            )

        processes.agreed(save)

    def steps_inside(self, task: int) -> int:
        """How many steps into task number `task` the newest state inside it was saved; 0 without one."""
        return self._told_inside(task).get("step", 0)

    def flops_inside(self, task: int) -> int:
        """Floating point operations that these steps took; 0 without any."""
        return self._told_inside(task).get("flops", 0)

    def _told_inside(self, task: int) -> dict[str, Any]:
        """The meta of the newest state inside task number `task`; {} without one."""

        def read() -> dict[str, Any]:
            _, meta = self._newest_inside(None, None) or (None, {"task": None})
            return meta if meta["task"] == task else {}  # else of a task that has been finished since

        return processes.agreed(read)

    def load_inside(self, task: int, expected: Tree) -> Tree | None:
        """The newest train state inside task number `task`, as host arrays of the shapes and dtypes of `expected`.

        None without one.
        """
        if not self.steps_inside(task):
            return None
        state = expected

        def read() -> bool:
            nonlocal state
            found = self._newest_inside("state", expected)
            state = found[0] if found else expected
            return found is not None

        return processes.copied(state) if processes.agreed(read) else None

    def _newest_inside(self, name: str | None, expected: Tree) -> tuple[Tree, dict[str, Any]] | None:
        numbers = folders.numbers(self._inside, "step")
        return (
            folders.read(folders.path(self._inside, "step", numbers[-1]), name, expected, _BEFORE) if numbers else None
        )

    def _save(
        self, parent: Path, prefix: str, number: int, content: tuple[str, Tree, dict[str, Any]], kept: int
    ) -> None:
        """A whole checkpoint, or none; once it is there, all but the `kept` newest are deleted (0: none)."""
        self._require_place()
        folder = folders.path(parent, prefix, number)
        with writing(self._workdir, RESUME):
            try:
                coming = folders.write(folder, *content)
            finally:
                self._require_place(folder)
            coming.rename(folder)
            for old in folders.numbers(parent, prefix)[:-kept] if kept else ():
                folders.delete(folders.path(parent, prefix, old))

    def _identity(self) -> tuple[int, int]:
        """Of the run's record, which never changes; a number of its own would soon be another file's."""
        record = os.stat(self._workdir / "config.json")
        return record.st_ino, record.st_mtime_ns

    def _require_place(self, folder: Path | None = None) -> None:
        """See `require_place`. folder: a checkpoint that has just been written; orbax makes missing folders anew."""
        with suppress(OSError):
            if self._identity() == self._prepared:
                return
        if folder is not None:
            folders.withdraw(folder)
            for parent in (self._inside, self._tasks, self._workdir):
                with suppress(OSError):  # not empty: not of our making
                    parent.rmdir()
        raise UserError(
            f"{self._workdir} was removed or moved during the run; the same command goes on from what is left"
        )
