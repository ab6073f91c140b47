"""A stream's images resized once and kept on disk, so that a JPEG is decoded once and not in every epoch.

A split has a folder of its own, named after what its images were made from, with ArrayRecord files (shards) of a few
hundred images each. A record is one image: checksum, number, height and width, then the pixels as they are. Nothing
found there is believed: a shard that is short, damaged or another one's is made again from the source.
"""

import fcntl
import hashlib
import json
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lpi_jax.data.loader import ahead
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError, reason
from lpi_jax.files import write_atomically
from lpi_jax.options import option, with_any
from lpi_jax.parallel.lock import flock
from lpi_jax.terminal.display import counting

VERSION = 1  # raise it with any change of what a record holds
SHARD = 256  # images: 67 MB of 341 x 256 pixels, made again in seconds
_OPEN = 64  # shards kept open in a process; opening one again costs no more than reading an image
_PROGRESS_FROM = 500  # images: fewer are resized in a moment
_HEAD = struct.Struct("<IIII")  # CRC-32 of what follows it, number of the image in its split, height, width
_CHECKED_FROM = 4  # byte
_WRITE_OPTIONS = "group_size:1,uncompressed"
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # for images here and there, not one after the other
_READ_BUFFER = 1 << 15  # bytes


@dataclass(frozen=True)
class Options:
    """Where images stay once they are decoded."""

    cache_mb: int = option(1024, "decoded images kept in memory", kind="speed", least=0)
    cache_dir: str = option("", "folder of images resized once, so that each is decoded once; '': none", kind="place")
    cache_side: int = option(256, "of their shorter side, pixels", least=1, reader=with_any("data.cache_dir"))


def cached(stream: Stream, folder: str | Path, side: int) -> Stream:
    """The same stream, its images shrunk (see `shrunk`) and read from files in `folder`.

    What is missing there is made first, with a progress bar if it is much; where an earlier start was interrupted, it
    goes on behind the last whole shard. Several processes may share the folder: one writes, the others wait.

    Args:
      stream: where the images come from, now and whenever a shard turns out to be damaged. Its fingerprint, with
        task, split, keys and side, tells its files from those of other streams.
      folder: of all caches; made if there is none.
      side: of the images, pixels. A centre view of this size is the same with and without the cache (unless one side
        of an image is over 32 times the other); random crops are cut from the smaller image.

    Returns:
      A stream whose splits load in any thread; they can be pickled if the source's can.

    Raises:
      UserError: `folder` cannot be written to. What the source raises for an image comes through unchanged.
    """
    if side < 1:
        raise UserError(f"the side of cached images is {side}, expected at least 1 pixel")
    tasks, missing = [], []
    for task in stream.tasks:
        splits = {"train": task.train, "val": task.val}
        for name, split in splits.items():
            made_from = json.dumps([VERSION, stream.fingerprint, task.name, name, side, split.keys])
            key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
            plain_name = re.sub(r"\W+", "_", task.name, flags=re.ASCII)[:40]
            kept = _Kept(split.load, Path(folder).absolute() / f"{plain_name}-{name}-{side}-{key}", len(split), side)
            missing += [(kept, shard) for shard in range(kept.shards) if not kept.whole(shard)]
            splits[name] = replace(split, load=kept)
        tasks.append(replace(task, **splits))
    total = sum(len(kept.numbers(shard)) for kept, shard in missing)
    with counting(total, "resizing images", "image", quiet=total <= _PROGRESS_FROM) as bar:
        for kept, shard in missing:
            kept.make(shard, bar.update)
    return replace(stream, tasks=tuple(tasks))


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """An image resized (bicubic, antialiased) until its shorter side is `side`; never enlarged.

    The longer side becomes int(side * long / short), as in `transforms.resize_and_crop`.
    """
    width, height = image.size
    short, long = min(height, width), max(height, width)
    if short <= side:
        return image
    long = int(side * long / short)
    size = (side, long) if width <= height else (long, side)
    return image.resize(size, Image.Resampling.BICUBIC)


class _Kept:
    """index -> image, from the shards of one split.

    Args:
      load: index -> image, the source. folder: of this split alone. count: images. side: see `cached`.
    """

    def __init__(self, load: Callable[[int], Image.Image], folder: Path, count: int, side: int) -> None:
        self._load, self._folder, self._count, self._side = load, folder, count, side
        self.shards = -(-count // SHARD)
        self._seed = zlib.crc32(folder.name.encode())  # of checksums: those in another split's files are others
        self._mending = threading.Lock()

    def __reduce__(self) -> tuple:  # a lock cannot be pickled
        return _Kept, (self._load, self._folder, self._count, self._side)

    def __call__(self, index: int) -> Image.Image:
        index = int(index)
        if not 0 <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        image = self._read(index)
        return self._mended(index) if image is None else image

    def numbers(self, shard: int) -> range:
        """The images in a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self._count))

    def whole(self, shard: int) -> bool:
        """Whether a shard is there with as many images as it should have, the last one being sound."""
        return self._read(self.numbers(shard)[-1]) is not None

    def make(self, shard: int, advance: Callable[[int], Any]) -> None:
        """Writes a shard, unless another process has done so meanwhile; `advance` is called with images done."""
        with _locked(self._folder):
            if self.whole(shard):
                advance(len(self.numbers(shard)))
            else:
                self._write(shard, advance)

    def _mended(self, index: int) -> Image.Image:
        """An image that could not be read, after its shard was made again."""
        with self._mending, _locked(self._folder):
            image = self._read(index)  # another thread or process may have mended it
            if image is None:
                self._write(index // SHARD, lambda images: None)
                image = self._read(index)
        if image is None:
            raise UserError(f"{self._path(index // SHARD)} cannot be read back although it was just written")
        return image

    def _read(self, index: int) -> Image.Image | None:
        """An image, or None where its record, its shard or the file is missing or damaged."""
        shard, place = divmod(index, SHARD)
        path = self._path(shard)
        try:
            status = os.stat(path)
            reader = _reader(path, status.st_ino, status.st_mtime_ns)
            if reader.num_records() != len(self.numbers(shard)):
                return None
            return _unpacked(reader.read([place])[0], index, self._seed)
        except Exception:  # damaged files raise nearly anything
            return None

    def _write(self, shard: int, advance: Callable[[int], Any]) -> None:
        """Makes a shard from the source: the whole file, or none."""
        path = Path(self._path(shard))
        if path.is_file():
            tqdm.write(f"{path} is damaged; its images are read from their source again", file=sys.stderr)

        of_the_source: list[OSError] = []

        def records() -> Iterator[bytes]:
            try:
                yield from ahead(self._record, self.numbers(shard))
            except OSError as error:
                of_the_source.append(error)
                raise

        def write(file: IO[bytes]) -> None:
            with _writer(file.name) as put:
                for record in records():
                    put(record)
                    advance(1)

        try:
            write_atomically(path, write)
        except OSError as error:
            if error in of_the_source:
                raise
            raise UserError(f"{path}: the cache of images cannot be written ({reason(error)})") from error

    def _record(self, index: int) -> bytes:
        return _packed(shrunk(self._load(index), self._side), index, self._seed)

    def _path(self, shard: int) -> str:
        return f"{self._folder}/{shard:05d}-of-{self.shards:05d}.array_record"


@lru_cache
def _warn_once(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


@lru_cache(maxsize=_OPEN)
def _reader(path: str, inode: int, changed: int) -> Any:
    """An open shard, for all threads; a file that was replaced or changed is another one."""
    from array_record.python.array_record_module import ArrayRecordReader  # here, because only a cache needs it

    return ArrayRecordReader(path, _READ_OPTIONS, file_reader_buffer_size=_READ_BUFFER)


def _packed(image: Image.Image, index: int, seed: int) -> bytes:
    """An image as a record."""
    body = _HEAD.pack(0, index, image.height, image.width)[_CHECKED_FROM:] + image.tobytes()
    return zlib.crc32(body, seed).to_bytes(_CHECKED_FROM, "little") + body


def _unpacked(record: bytes, index: int, seed: int) -> Image.Image | None:
    """The image in a record; None if it is not image number `index`, whole and sound."""
    if len(record) < _HEAD.size:
        return None
    checksum, number, height, width = _HEAD.unpack_from(record)
    sound = (
        number == index
        and min(height, width) > 0
        and len(record) == _HEAD.size + height * width * 3
        and zlib.crc32(memoryview(record)[_CHECKED_FROM:], seed) == checksum
    )
    if not sound:
        return None
    return Image.fromarray(np.frombuffer(record, np.uint8, offset=_HEAD.size).reshape(height, width, 3))


@contextmanager
def _writer(path: str) -> Iterator[Callable[[bytes], None]]:
    """A function that appends a record to a new file; UserError where the disk takes no more."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def attempt(write: Callable[..., Any], *record: bytes) -> None:
        try:
            write(*record)
        except RuntimeError as error:
            raise UserError(f"the cache of images cannot be written ({error})") from error

    writer = ArrayRecordWriter(path, _WRITE_OPTIONS)
    try:
        yield lambda record: attempt(writer.write, record)
    finally:
        attempt(writer.close)


def _locked(folder: Path) -> IO[bytes]:
    """Waits until no other process writes in `folder` (made if need be); others wait until the file is closed.

    That it waits is told, since the other process may have been stopped. On a file system without locks nobody waits.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "wb")  # noqa: SIM115 - the caller closes it
        try:
            if not flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _warn_once(f"{folder.parent}: a file system without locks (flock); only one process may fill the cache")
        except BlockingIOError:
            tqdm.write(f"{folder}: waiting for another process, which fills this part of the cache", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(f"{folder}: the cache of images cannot be written ({error.strerror})") from error
    return file
