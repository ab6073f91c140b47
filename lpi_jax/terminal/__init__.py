"""What every command does at its edges: how it prints, and how it ends.

A command is a `main` under `@command()`. Whatever is printed while it runs, by whomever, passes through a `Screen`, so
that nobody has to remember that a task's name may hold an escape sequence, a terminal no Greek, and a pipe no reader.
"""

import argparse
import contextlib
import errno
import functools
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from lpi_jax.errors import UserError

OK, MISTAKE, INTERRUPTED = 0, 2, 130

Main = Callable[[Sequence[str]], int]

# Control characters, invisible ones (some turn the direction of what follows), halves of characters, line separators.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_HARMLESS = "\n\t\u200c\u200d"  # the last two join letters, as in Persian, and the parts of an emoji


def command(interrupted: str = "interrupted") -> Callable[[Main], Main]:
    """Makes a command of a `main(arguments) -> exit status`.

    A `UserError` becomes one line on stderr and status 2, Ctrl-C the line `interrupted` and status 130. A reader of the
    output that has gone (`| head`) changes nothing: the work is done, and what it would have read is not written.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(arguments: Sequence[str]) -> int:
            with _screens():
                try:
                    try:
                        return main(arguments)
                    finally:
                        sys.stdout.flush()  # here, where it may still fail in one sentence
                except UserError as error:
                    print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
                    return MISTAKE
                except KeyboardInterrupt:
                    print(interrupted, file=sys.stderr)
                    return INTERRUPTED

        return run

    return decorate


class Parser(argparse.ArgumentParser):
    """A parser of arguments whose complaints are UserErrors."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; --help explains the command line")


def printable(text: str) -> str:
    """The text with question marks for what steers a terminal; ends of lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join("?" if unicodedata.category(c) in _STEERING and c not in _HARMLESS else c for c in text)


def one_line(text: str) -> str:
    """The text as `printable`, with question marks for ends of lines and tabs, too: for names inside a line."""
    return printable(text).replace("\n", "?").replace("\t", "?")


class Screen:
    """A text stream for people, in front of another one: it shows what can be shown.

    What steers a terminal and what the stream's encoding lacks become question marks. Once the reader has gone, or the
    stream is closed from the start, nothing is written any more.

    Args:
      stream: where to write; None, as Python has it for a closed one: nowhere.
      vital: whether it is a mistake if the stream cannot be written for another reason, such as a full disk; else that,
        too, only ends the writing.
    """

    def __init__(self, stream: TextIO | None, vital: bool) -> None:
        self._stream, self._vital, self._gone = stream, vital, stream is None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:  # whatever else a stream has
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text; a carriage return in front, by which a line is drawn anew, makes it one line."""
        shown = printable(text)
        if text.startswith("\r"):
            tail = "\r" if text.endswith("\r") and len(text) > 1 else ""
            shown = "\r" + one_line(text[1 : len(text) - len(tail)]) + tail
        shown = shown.encode(self.encoding, "replace").decode(self.encoding)
        if not self._gone:
            with self._reader_may_go():
                self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Writes what is pending."""
        if not self._gone:
            with self._reader_may_go():
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether somebody looks on."""
        return not self._gone and self._stream.isatty()

    @contextlib.contextmanager
    def _reader_may_go(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._gone = True
            _lead_nowhere(self._stream)
            if self._vital and not isinstance(error, ConnectionError) and error.errno != errno.EIO:
                raise UserError(f"what is printed cannot be written: {error.strerror}") from error


def _lead_nowhere(stream: TextIO) -> None:
    """Gives what the stream still holds to the null device, or Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError):  # not a file of the system
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


@contextlib.contextmanager
def _screens() -> Iterator[None]:
    out, err = Screen(sys.stdout, vital=True), Screen(sys.stderr, vital=False)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
