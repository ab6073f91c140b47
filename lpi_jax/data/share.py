"""Which images validate where nothing that came with them says so: those on a list, or a share chosen by a seed."""

import difflib
import hashlib
import json
import os
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from lpi_jax.data.examples import BadExample, Example, shown
from lpi_jax.errors import UserError
from lpi_jax.files import require_file

MAX_BYTES = 1 << 27  # of a list
USUAL = 0.2  # of a task's images
MEANING = "share of each task's images that is kept for validation, neither none nor all, chosen by data.seed"


def parted(
    examples: Sequence[Example | BadExample], validates: Collection[str] | None, share: float, seed: int
) -> list[Example | BadExample]:
    """The same examples, those with split '' parted into train and val.

    Args:
      examples: examples, whose names are their identities where these are a hash (of what is in the image), else their
        keys; and bad ones, which stay as they are.
      validates: the keys of those that validate; None: a share of each task's.
      share, seed: see `chosen`.

    Raises:
      UserError: a share that is not between 0 and 1.
    """
    undecided = [example for example in examples if isinstance(example, Example) and not example.split]
    if validates is None:
        tasks: dict[str, list[str]] = {}
        for example in undecided:
            tasks.setdefault(example.task, []).append(_name(example))
        names = chosen(tasks, share, seed)
        validates = {example.key for example in undecided if _name(example) in names}
    return [
        replace(one, split="val" if one.key in validates else "train")
        if isinstance(one, Example) and not one.split
        else one
        for one in examples
    ]


def chosen(tasks: Mapping[str, Iterable[str]], share: float, seed: int) -> set[str]:
    """The images that validate: of each task those whose hash is below the share, but neither none nor all.

    An image's hash follows from its name and the seed alone, so that another one beside it changes nothing (but in a
    task so small that the one image of a side had to be named).

    Args:
      tasks: task -> names of its images, each unique among all.
      share: of each task's images that validate, above 0 and below 1.
      seed: which ones.

    Raises:
      UserError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UserError(f"config.data.val_share is {share!r}, expected more than 0 and less than 1")
    validating: set[str] = set()
    for names in tasks.values():
        place = {name: _place(name, seed) for name in names}
        ranked = sorted(place, key=lambda name: (place[name], name))
        count = sum(here < share for here in place.values())
        validating.update(ranked[: min(max(count, 1), max(len(ranked) - 1, 0))])
    return validating


def refuse_unread(share: float, instead: str, unread: bool) -> None:
    """Refuses a share that somebody set where nothing is left for it to decide; `instead` says what decides."""
    if unread and share != USUAL:
        raise UserError(f"config.data.val_share is {share!r}, but {instead}; expected {USUAL}, as if it were not set")


def listed(path: str, names: Collection[str], source: str) -> set[str]:
    """The images that a text file names, one a line, each relative to the folder of the source.

    Args:
      path: the list, UTF-8; blank lines count for nothing.
      names: the images that may stand in it, with slashes.
      source: where they lie, for messages.

    Raises:
      UserError: no such file, too large, not UTF-8, a line that names no image, or no line at all.
    """
    expected = "a text file that names the validation images, one a line"
    known, named = frozenset(names), set()
    try:
        require_file(path, expected)
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise UserError(f"{path}: the file has {size} bytes, more than the {MAX_BYTES} allowed")
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not (said := line.strip()):
                    continue
                name = next((form for form in _forms(said) if form in known), None)
                if name is None:
                    raise _no_image(f"{path}, line {number}", said, known, source)
                named.add(name)
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the file is not UTF-8 ({error.reason}); expected {expected}") from error
    if not named:
        raise UserError(f"{path}: the list names no image; expected {expected}")
    return named


def _name(example: Example) -> str:
    """What an image is called wherever its data lie."""
    return example.identity.hex() if isinstance(example.identity, bytes) else example.key


def _place(name: str, seed: int) -> float:
    """Where between 0 and 1 an image stands."""
    digest = hashlib.sha256(json.dumps(["validates", seed, name]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _forms(said: str) -> Iterable[str]:
    """A path as it was written, and as it is written elsewhere."""
    return said, posixpath.normpath(said), posixpath.normpath(said.replace("\\", "/"))


def _no_image(where: str, said: str, known: Collection[str], source: str) -> UserError:
    # To find the closest of more takes long.
    close = difflib.get_close_matches(said[:1000], sorted(known), 1, 0.0) if len(known) <= 10_000 else []
    hint = f"the closest is {shown(close[0])}" if close else f"expected one of its {len(known)} images"
    return UserError(f"{where}: there is no image {shown(said)} in {source}; {hint}")
