"""What the place of an image below a folder says of it: its task, its class, and whether it trains or validates."""

import os
from collections.abc import Collection
from dataclasses import dataclass

from lpi_jax.data.examples import listed
from lpi_jax.errors import UserError

SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # what folders are called


@dataclass(frozen=True, slots=True)
class Place:
    """What the folders around a file say.

    Attributes:
      task: the folder at the top, or the root's own name where it holds images alone; None: beside the tasks.
      side: train, val or test, if a folder says so; "": nothing does; None: beside the folders that say so.
      label: the folder of a class: the first below the task, or the task's; None: there is none.
    """

    task: str | None
    side: str | None
    label: str | None


class Layout:
    """folder -> place. Folders are train, val or test only where train has another of them beside it."""

    def __init__(self, root: str, folders: Collection[str]) -> None:
        """Looks at all folders that hold images.

        Args:
          root: the folder around them.
          folders: those that hold images themselves, relative to `root`, with slashes; "" is the root.

        Raises:
          UserError: a folder train (or val, test) alone.
        """
        paths = {_parts(folder) for folder in folders}
        self._sides = _sides(root, paths)
        if self._sides:
            paths = {parts[1:] for parts in paths}
        self._name = os.path.basename(os.path.abspath(root)) or root
        self._flat = not any(paths)
        self._sides_of_task: dict[str, dict[str, str]] = {}
        if not self._sides:
            for task in {parts[0] for parts in paths if parts}:
                inside = {parts[1:] for parts in paths if parts[:1] == (task,)}
                self._sides_of_task[task] = _sides(os.path.join(root, task), inside)

    def __call__(self, folder: str) -> Place:
        """What the folder says of the files in it."""
        side, parts = _side(self._sides, _parts(folder))
        if self._flat:
            return Place(self._name, side, None)
        if not parts:
            return Place(None, side, None)
        task, parts = parts[0], parts[1:]
        if not self._sides:
            side, parts = _side(self._sides_of_task.get(task, {}), parts)
        return Place(task, side, parts[0] if parts else task)


def _parts(folder: str) -> tuple[str, ...]:
    return tuple(folder.split("/")) if folder else ()


def _side(sides: dict[str, str], parts: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The side that the first part says, and the parts below it."""
    if not sides:
        return "", parts
    return sides.get(parts[0]) if parts else None, parts[1:]


def _sides(where: str, paths: Collection[tuple[str, ...]]) -> dict[str, str]:
    """The folders right below `where` that part the images, with what each says; empty if none do."""
    names = {parts[0] for parts in paths if parts}
    sides = {name: SIDES[name.lower()] for name in names if name.lower() in SIDES}
    if len(set(sides.values())) > 1 and "train" in sides.values():
        return sides
    if sides and len(sides) == len(names) and () not in paths:
        raise UserError(
            f"{where}: of its images, all are in {listed(sorted(sides))}; expected train and val (or validation, test)"
            f" beside each other, or the folder inside as config.data.path"
        )
    return {}
