"""The files below a folder that somebody collected, by name: without what systems leave there, and not in circles."""

import os
import posixpath
from collections.abc import Iterator

from lpi_jax.errors import UserError

_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")


def files(root: str) -> tuple[list[str], list[str]]:
    """The files below `root`, links followed, each folder read once whatever leads to it.

    Names that begin with a dot, and those that systems leave behind (Thumbs.db, __MACOSX), are not there.

    Args:
      root: the folder.

    Returns:
      (files, repeated): paths relative to `root`, with slashes, both sorted; files that are there, and links to folders
      that were read under another name. A link to a folder around itself is in neither.

    Raises:
      UserError: there is no such folder, or one in it cannot be read.
    """
    if not os.path.isdir(root):
        found = "this is a file" if os.path.exists(root) else "there is no such folder"
        raise UserError(f"{root}: {found}; expected a folder of images")
    found: list[str] = []
    repeated: list[str] = []
    seen: set[tuple[int, int]] = {_number(root)}
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_number(root),))]  # folders, and those around them
    while waiting:
        folder, around = waiting.pop()
        folders = []
        for name, is_folder in _entries(root, folder):
            path = posixpath.join(folder, name)
            if not is_folder:
                found.append(path)
            elif (number := _number(os.path.join(root, path))) not in seen:
                seen.add(number)
                folders.append((path, (*around, number)))
            elif number not in around:
                repeated.append(path)
        waiting += reversed(folders)
    return sorted(found), sorted(repeated)


def _entries(root: str, folder: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a folder) of what lies in a folder, by name."""
    path = os.path.join(root, folder) if folder else root
    try:
        with os.scandir(path) as entries:
            listed = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        raise UserError(f"{path}: the folder cannot be read ({error.strerror})") from error
    for name, is_folder in listed:
        if not name.startswith(".") and name.lower() not in _LEFT_BY_SYSTEMS:
            yield name, is_folder


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reported when it is opened
        return False


def _number(folder: str) -> tuple[int, int]:
    """What tells folders apart, whatever their names."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return status.st_dev, status.st_ino
