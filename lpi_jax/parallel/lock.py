"""One start of a run in a folder at a time: a lock for the life of the process, which a killed one does not leave.

The lock is flock's on the file `run.lock`, which the system gives back however a process ends. The file also tells who
holds it, and while the holder lives its time is renewed: the sign of life that counts where flock is missing or, as on
some network file systems, knows only the processes of its own host.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from lpi_jax.errors import UserError
from lpi_jax.terminal import one_line
from lpi_jax.terminal.display import Display

NAME = "run.lock"
_BEAT = 5.0  # seconds between two signs of life
_PATIENCE = 3 * _BEAT  # seconds without one after which a holder counts as dead
_SETTLE = 1.0  # seconds in which two that begin at once see one another without flock
_TRIES, _PAUSE = 5, 0.1  # another start only looks, or the process before this one is just ending
_MISSING = (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_LONGEST = 1000  # bytes of the file that are read


class Lock:
    """Keeps a run's folder for this start, from `take` until the block ends."""

    def __init__(self, workdir: Path) -> None:
        self._workdir, self._path = workdir, workdir / NAME
        self._file: IO[bytes] | None = None
        self._ended, self._living = threading.Event(), threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> "Lock":
        return self

    def take(self) -> None:
        """Takes the folder, which is made if need be.

        Raises:
          UserError: another process has it (the message tells which, and since when), or it cannot be written.
        """
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
            file, alone = _locked(self._path)
            try:
                self._refuse_living(alone)
                self._sign(file, alone)
            except BaseException:
                file.close()
                raise
        except BlockingIOError as error:
            raise _held(self._workdir) from error
        except OSError as error:
            raise UserError(f"--workdir is {self._workdir}, which cannot be used: {error.strerror}") from error
        self._file = file
        self._living.start()

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        self._ended.set()
        self._living.join(_SETTLE)
        with suppress(OSError):  # the folder has become read-only, or another's
            if _is_at(self._file, self._path):
                self._path.unlink()
        self._file.close()
        self._file = None

    def _refuse_living(self, alone: bool) -> None:
        """Raises BlockingIOError if the process the file tells of gives a sign of life."""
        content, before = _read(self._path)
        if not content or (alone and _told(content).get("host") == socket.gethostname()):
            return
        Display().line(f"{self._workdir} was in use by {_who(content)}; {_PATIENCE:.0f} s to see whether it still is")
        latest = time.monotonic() + _PATIENCE
        while time.monotonic() < latest:
            time.sleep(_PAUSE)
            if _read(self._path) != (content, before):
                raise BlockingIOError

    def _sign(self, file: IO[bytes], alone: bool) -> None:
        """Writes who has the folder. Raises BlockingIOError if, without flock, another start did so a moment later."""
        own = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": _now()}).encode()
        file.truncate(0)
        file.write(own)
        if alone:
            return
        Display().line(
            f"{self._workdir} is on a file system without locks (flock); another start is told by signs of life"
        )
        time.sleep(_SETTLE)
        if _read(self._path)[0] != own:
            raise BlockingIOError

    def _live(self) -> None:
        """Gives signs of life; a disk that takes none is the run's to notice."""
        while not self._ended.wait(_BEAT):
            with suppress(OSError):
                os.utime(self._file.fileno())


def refuse_held(workdir: Path) -> None:
    """Raises UserError if another process has the folder, as far as can be known at once; writes nothing."""
    try:
        with open(workdir / NAME, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _held(workdir) from error
    except OSError:  # there is none, or the file system has no locks: `take` will find out
        pass


def flock(file: IO[bytes], operation: int) -> bool:
    """flock's operation on an open file; False where the file system has no locks. Raises OSError, as flock does."""
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return False
    return True


def _locked(path: Path) -> tuple[IO[bytes], bool]:
    """The file, open for writing, and whether flock has locked it. Raises BlockingIOError if another process has it."""
    for attempt in range(_TRIES):
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the lock
        try:
            if not flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                return file, False
            if _is_at(file, path):
                return file, True
            file.close()  # its holder has just removed it
        except BlockingIOError:
            file.close()
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
        except BaseException:
            file.close()
            raise
    raise BlockingIOError


def _held(workdir: Path) -> UserError:
    who = _who(_read(workdir / NAME)[0])
    return UserError(
        f"--workdir is {workdir}, which is in use by {who}; expected one start at a time (several processes of one run"
        " are started together, with --config.distributed=true)"
    )


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is (still) the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _read(path: Path) -> tuple[bytes, int]:
    """What the file says and when it was changed; opened anew, because network file systems look only then."""
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return b"", 0


def _who(content: bytes) -> str:
    told = _told(content)
    return f"process {told['process']} on {told['host']} since {told['since']}" if told else "another process"


def _told(content: bytes) -> dict[str, str]:
    """Process, host and time in the file, fit to be printed; empty if it holds anything else."""
    try:
        found = json.loads(content)
        told = {key: str(found[key]) for key in ("process", "host", "since")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {key: one_line(text) for key, text in told.items()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
