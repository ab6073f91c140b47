"""Checkpoints: the memory at each task boundary, the train state inside a task. The only file that imports orbax.

checkpoints/task_003/ holds everything known after task 3 and is never changed again; checkpoints/inside/ holds the
newest state inside a task. Trees of arrays and JSON only: nothing that could run code when read. Where several
processes run, the first reads and writes, and tells the others: it is little, and no file system need be shared.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lpi_jax import hosts
from lpi_jax.errors import UserError
from lpi_jax.files import write_json
from lpi_jax.methods.base import Tree

HASHES = "sha256.json"  # in a checkpoint's folder: what was written, file by file


class Checkpoints:
    """The checkpoints of one run's directory. Saving waits until the files are on disk."""

    def __init__(self, workdir: Path) -> None:
        self._folder = (workdir / "checkpoints").absolute()

        def start() -> None:
            self._tasks = _manager(self._folder, "task", keep=None)
            self._inside = _manager(self._folder / "inside", "step", keep=1)

        hosts.agreed(start)

    def close(self) -> None:
        """Lets orbax's threads end."""
        if hosts.first():
            self._tasks.close()
            self._inside.close()

    def finished_tasks(self) -> int:
        """How many tasks have a boundary checkpoint."""
        return hosts.agreed(lambda: self._tasks.latest_step() or 0)

    def save_task(self, count: int, memory: Tree, meta: dict[str, Any]) -> None:
        """Saves what is known after `count` tasks. memory: arrays; meta: JSON.

        The last state inside the task stays until one inside a later task replaces it: deleting is not atomic, and what
        a kill left of it would be taken for a checkpoint.
        """
        items = {"memory": ocp.args.StandardSave(memory), "meta": ocp.args.JsonSave(meta)}
        hosts.agreed(lambda: _save(self._tasks, count, items))

    def load_task(self, count: int, expected: Tree) -> tuple[Tree, dict[str, Any]]:
        """Memory and meta after `count` tasks; `expected`: host arrays of the shapes and dtypes of the memory.

        Raises:
          UserError: the checkpoint is damaged or holds something else.
        """
        items = {"memory": ocp.args.StandardRestore(expected), "meta": ocp.args.JsonRestore()}
        found = {"memory": expected}

        def read() -> dict[str, Any]:
            found.update(_restore(self._tasks, count, items))
            # Orbax pads or cuts arrays of another shape without a word.
            if jax.tree.map(np.shape, found["memory"]) != jax.tree.map(np.shape, expected):
                raise UserError(f"checkpoint {count} in {self._folder} holds arrays of other shapes than this run's")
            return found["meta"]

        meta = hosts.agreed(read)
        return hosts.copied(found["memory"]), meta

    def save_inside(self, task: int, step: int, state: Tree) -> None:
        """Saves the train state `step` steps into task number `task` (from 0); it must be whole on every device."""
        state = jax.tree.map(np.asarray, state)

        def save() -> None:
            number = self._inside.latest_step()
            items = {"state": ocp.args.StandardSave(state), "meta": ocp.args.JsonSave({"task": task, "step": step})}
            _save(self._inside, 0 if number is None else number + 1, items)

        hosts.agreed(save)

    def steps_inside(self, task: int) -> int:
        """How many steps into task number `task` the newest state inside it was saved; 0 without one."""

        def read() -> int:
            number = self._inside.latest_step()
            if number is None:
                return 0
            meta = _restore(self._inside, number, {"meta": ocp.args.JsonRestore()})["meta"]
            return meta["step"] if meta["task"] == task else 0  # else of a task that has been finished since

        return hosts.agreed(read)

    def load_inside(self, task: int, expected: Tree) -> Tree | None:
        """The newest train state inside task number `task`, as host arrays of the shapes and dtypes of `expected`.

        None without one.
        """
        if not self.steps_inside(task):
            return None
        found = {"state": expected}
        items = {"state": ocp.args.StandardRestore(expected)}
        hosts.agreed(lambda: found.update(_restore(self._inside, self._inside.latest_step(), items)))
        return hosts.copied(found["state"])


def _manager(folder: Path, prefix: str, keep: int | None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        step_prefix=prefix,
        step_format_fixed_length=3,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
        create=False,  # orbax would, but not for one process of several
        # The first process alone: orbax must not wait for the others.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix=prefix
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(folder, options=options)


def _save(manager: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> None:
    manager.save(step, args=ocp.args.Composite(**items), force=True)
    manager.wait_until_finished()
    folder = _folder(manager, step)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    write_json(folder / HASHES, {name: _sha256(folder / name) for name in names})


def _restore(manager: ocp.CheckpointManager, step: int, items: dict[str, Any]) -> Any:
    folder = _folder(manager, step)
    try:
        # Orbax does not notice a changed byte in an array. (A run killed before the hashes were written has none.)
        written = json.loads((folder / HASHES).read_bytes()) if (folder / HASHES).exists() else {}
        for name, expected in written.items():
            if _sha256(folder / name) != expected:
                raise ValueError(f"{name} is not what was written")
        return manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # orbax raises many kinds for a damaged checkpoint; for the user they are one
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"checkpoint {folder} cannot be read ({first_line[:200]}); delete it to go on from the one before"
        ) from error


def _folder(manager: ocp.CheckpointManager, step: int) -> Path:
    (folder,) = Path(manager.directory).glob(f"*_{step:03d}")
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
