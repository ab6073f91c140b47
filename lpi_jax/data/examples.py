"""What every source of examples (lines, archive members, table rows) has in common: what an example is, and is not.

A source yields one `Example` per image, or a `BadExample` for what cannot be one; `builder` makes a stream of them.
"""

import difflib
import functools
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lpi_jax.data.captioned import Captioned
from lpi_jax.data.formats.written_lists import captions_in
from lpi_jax.data.images import StoredImage
from lpi_jax.data.transforms import clean_caption
from lpi_jax.errors import UserError

SPLITS = ("train", "val")


class BadExample(UserError):  # noqa: N818, like BadImage
    """Something that cannot be an example. `kind` is what it is counted under; `task`: the task it named, if any."""

    def __init__(self, kind: str, message: str, task: str | None = None):
        super().__init__(message)
        self.kind, self.task = kind, task


@dataclass(frozen=True, slots=True)
class Example:
    """One captioned image of one task.

    Attributes:
      source: the file that names it, for messages.
      place: where in that file ("line 3").
      key: what the user calls the image; unique within a split.
      image: where it lies.
      captions: at least one, each with something left after cleaning (see `checked_captions`).
      task, split: the task's name; train or val.
      description: what the task is about; None: its name says it.
      identity: equal for equal images, by which an image that is named twice is found; bytes are a hash of all that
        the image holds (`EmbeddedImage.content_hash`).
      annotation: what else is known of the image.
      faults: what is wrong with captions of it that are left out.
    """

    source: str
    place: str
    key: str
    image: StoredImage
    captions: tuple[str, ...]
    task: str
    split: str
    identity: Hashable
    description: str | None = None
    annotation: Any = None
    faults: tuple[BadExample, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.source}, {self.place}"

    def record(self) -> Captioned:
        """What a split keeps of it."""
        return Captioned(self.key, self.captions, self.annotation)


@dataclass
class Identity:
    """One name per image file, whatever the paths that lead to it."""

    # Folders repeat, so that only they are resolved in full, once each.
    _real_folder: Callable[[str], str] = field(default_factory=lambda: functools.cache(os.path.realpath))

    def __call__(self, path: str) -> str:
        try:
            folder, name = os.path.split(path)
            return os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real_folder(folder), name)
        except (OSError, ValueError):  # no such path: found again, and reported, when the image is checked
            return path


Fail = Callable[[str, str], NoReturn]  # (kind, message) -> raises BadExample


def failing_at(where: str, task: str | None = None) -> Fail:
    """A function (kind, message) that raises `BadExample` with the place in front."""

    def fail(kind: str, message: str) -> NoReturn:
        raise BadExample(kind, f"{where}: {message}", task)

    return fail


def checked_captions(captions: Sequence[object], fail: Fail) -> tuple[tuple[str, ...], tuple[BadExample, ...]]:
    """The captions with something left once they are cleaned, at least one, and what is wrong with the others.

    A list that was written as text counts as the captions in it (see `written_lists`).

    Raises:
      BadExample: by `fail`; there is no caption, one is no text or a list that cannot be read, or nothing is left of
        any.
    """
    if not captions:
        fail("no captions", "captions is an empty list; expected one caption or more")
    good: list[str] = []
    faults: list[BadExample] = []
    for caption in captions:
        if not isinstance(caption, str):
            fail("wrong type", f"captions holds {kind_of(caption)}; expected a list of strings")
        for one in _captions_in(caption, fail):
            if is_empty(one):
                try:
                    fail("empty caption", f"caption {shown(one)} is empty once it is cleaned of punctuation")
                except BadExample as fault:
                    faults.append(fault.with_traceback(None))  # which would keep all that the source is reading
            else:
                good.append(one)
    if not good and not faults:
        fail("no captions", f"caption {shown(captions[0])} is an empty list; expected one caption or more")
    if not good:
        raise faults[0]
    return tuple(good), tuple(faults)


def _captions_in(text: str, fail: Fail) -> list[str]:
    """The captions that one string holds; all of them are text."""
    refuse_what_is_no_text("captions", text, fail)
    try:
        captions = captions_in(text)
    except ValueError as error:
        fail("unreadable list", f"caption {shown(text)}: {error}; expected a caption, or a list of strings")
    for caption in captions:
        refuse_what_is_no_text("captions", caption, fail)  # escapes inside a list may stand for anything
    return captions


def is_empty(text: str) -> bool:
    """Whether nothing is left of a text once it is cleaned as captions are, so that there is nothing to encode."""
    try:
        clean_caption(text)
    except ValueError:
        return True
    return False


def refuse_what_is_no_text(key: str, value: str, fail: Fail) -> None:
    """Refuses what some formats allow in a text although it is none: NUL, and half of a surrogate pair ("\\ud800").

    A file that was damaged has NULs where text is lost, line ends included: what stands around them need not belong
    together.
    """
    if "\0" in value:
        fail("NUL character", f"{key} holds a NUL character ({shown(value)}); expected text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        fail("not UTF-8", f"{key} holds half of a surrogate pair ({value!a:.60}), which is no character")


def kind_of(value: object) -> str:
    """A JSON value's kind, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")


def shown(text: str) -> str:
    """Text in quotes, cut where it is long."""
    return repr(text) if len(text) <= 80 else repr(text[:77] + "...")


def listed(names: Sequence[str]) -> str:
    """Names in quotes, only the first where there are many."""
    first = ", ".join(map(shown, names[:20]))
    return first if len(names) <= 20 else f"{first} and {len(names) - 20} more"


def no_such_name(where: str, kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error for a column or the like that does not exist: it names the closest one and lists what there is."""
    close = difflib.get_close_matches(name, known, 1, 0.0)
    hint = f"the closest is {shown(close[0])}, of {listed(known)}" if close else "there is none at all"
    return UserError(f"{where}: there is no {kind} {name!r}; {hint}")
