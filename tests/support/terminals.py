"""A terminal of a given width as stderr, and what stands on it in the end."""

import fcntl
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lpi_jax.terminal.display import columns


@contextmanager
def terminal(monkeypatch, width: int, encoding: str = "utf-8") -> Iterator[list[bytes]]:
    """stderr is a terminal of so many columns; what it was sent, once the block has ended."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    sent: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(reader, 4096):
                sent.append(data)
        except OSError:  # the other side is closed
            pass

    reading = threading.Thread(target=read)
    reading.start()
    with (
        open(writer, "w", encoding=encoding, errors="backslashreplace", newline="") as file,
        monkeypatch.context() as patch,
    ):
        patch.setattr("sys.stderr", file)
        yield sent
    reading.join()
    os.close(reader)


def screen(sent: list[bytes], width: int, encoding: str = "utf-8") -> list[str]:
    """The lines on the terminal; fails if any was ever drawn beyond its edge."""
    lines = []
    for part in b"".join(sent).decode(encoding).replace("\r\n", "\n").split("\n"):
        lines.append("")
        for drawn in part.split("\r"):
            assert columns(drawn) < width
            lines[-1] = drawn + lines[-1][len(drawn) :] if len(drawn) < len(lines[-1]) else drawn
    return [line.rstrip() for line in lines]
