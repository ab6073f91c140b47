"""TensorBoard events of a run: a by-product, which neither holds the run up nor ends it."""

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar


class Events:
    """Appends scalars to a new file of events. Where the disk takes no more, that is told once and the rest is dropped.

    The file is written where `add` is called: tensorboardX's own writer hands events to a thread through a queue, and
    once that thread has died the queue is full after ten and blocks for ever.

    Args:
      folder: of all starts' files; made if there is none. first_step: what earlier starts wrote from this step on is
        hidden by TensorBoard. tell: prints a line.
    """

    def __init__(self, folder: Path, first_step: int, tell: Callable[[str], object]) -> None:
        self._folder, self._tell = folder, tell
        self._file: IO[bytes] | None = None
        resumed = folder.exists()
        try:
            folder.mkdir(exist_ok=True)
            now = time.time_ns()  # two starts within a second must not share a file
            name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}"
            self._file = open(folder / name, "xb", buffering=0)  # noqa: SIM115 - open as long as the run
        except OSError as error:
            self._end(error)
        self._write(Event(file_version="brain.Event:2"))
        if resumed:
            self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by name, as they are after `step` steps."""
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar(name, value)))

    def close(self) -> None:
        """Ends the file, which is whole without it, too."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: Event) -> None:
        if self._file is None:
            return
        event.wall_time = time.time()
        record = _record(event.SerializeToString())
        try:
            if self._file.write(record) < len(record):
                raise OSError(0, "the disk took only a part")
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self.close()
        self._tell(f"{self._folder}: TensorBoard events are no longer written ({error.strerror}); the run goes on")


def _record(data: bytes) -> bytes:
    """TFRecord: length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
