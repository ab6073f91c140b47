"""A stream from tar shards in WebDataset's layout: what shares a name up to its first dot is one example.

    path/TASK/train-000.tar     a folder per task: its name is the task's
    path/TASK/val-000.tar       a shard's name begins with its split, train or val
        0001.jpg                the image: .jpg, .jpeg, .png or .webp
        0001.txt                the caption: all of the text is one
        0001.json               or {"captions": ["...", ...]} (or "caption": text or list); these win over the .txt

The JSON may also name `task`, `split` and `description`. Shards directly in `path`, or `path` being one shard itself,
need the task there; where a folder or a shard's name says it too, both must agree. A link to another member of the
shard is that member under one more name. Members with other endings are ignored, and so are names that begin with a
dot.

Examples with equal images in one task and split are one image with the captions of all.

Nothing is ever extracted: the headers are read once, and images later from where they lie in the shard.
"""

import codecs
import hashlib
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lpi_jax.data.builder import assemble
from lpi_jax.data.examples import (
    SPLITS,
    BadExample,
    Example,
    Fail,
    checked_captions,
    failing_at,
    kind_of,
    refuse_what_is_no_text,
    shown,
)
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats.json_file import decoded, parse, text
from lpi_jax.data.images import ImageInside
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError, reason

MAX_TEXT_BYTES = 1_000_000  # of one caption or JSON member
IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json")

_MAX_HEADER_BYTES = 1 << 14  # of one header that extends another (long names, times): they are held in memory
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_COMPRESSED |= {b"\x04\x22\x4d\x18": "lz4", b"\x1f\x9d": "compress", b"\x5d\x00\x00": "lzma", b"LZIP": "lzip"}
_COMPRESSED_NAME = re.compile(r"\.(tar\.(gz|bz2|xz|zstd?|lz4|lzma|lz|z|br)|tgz|tbz2?|txz|tlz|tzst|taz)$", re.IGNORECASE)
_MOST_LINKS = 8  # from one link to the next


Options = FileOptions


def webdataset(options: Options) -> Stream:
    """Reads and checks all shards; images are decoded only when they are asked for.

    An archive that is damaged counts once as a bad example, and so does each example that lost a part there; what
    stands before the damage stays good.

    Args:
      options: `path` is a folder with shards (`*.tar`, uncompressed) or with folders of shards, in the order of their
        names; or one shard. Shards in deeper folders are an error. For the others see `builder.assemble`.

    Returns:
      The stream. Its fingerprint covers names and sizes of shards and members, captions and JSON, all bytes of the
      images used and the order of the tasks.

    Raises:
      UserError: a bad example (unless skipped), a task without train or val images, no shards, a compressed shard,
        or a wrong argument.
    """
    path = os.fspath(options.path)
    digest = hashlib.sha256()
    return assemble(
        path,
        _examples(path, digest.update),
        options,
        digest=digest,
        notes={"path": os.path.abspath(path)},
    )


@dataclass
class _Parts:
    """The members of one example by their ending, in lower case; texts with what they hold (None: too long).

    `nowhere` is an image or text that is neither a file nor a link to one in the shard.
    """

    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    texts: dict[str, bytes | None] = field(default_factory=dict)
    repeated: str | None = None
    nowhere: tarfile.TarInfo | None = None

    def names(self, endings: Container[str] | None = None) -> str:
        """The members' names, of all or of these endings."""
        return ", ".join(shown(m.name) for ending, m in self.members.items() if endings is None or ending in endings)


@dataclass(frozen=True)
class _Shard:
    """A tar file; `name` from the folder down; what its place says of task and split (None: nothing)."""

    path: str
    name: str
    task: str | None
    split: str | None


def _examples(path: str, update: Callable[[bytes], object]) -> Iterator[Example | BadExample]:
    for shard in _shards(path):
        parts, damage = _scanned(shard, update)
        if damage is not None:
            yield damage
        identity = os.path.realpath(shard.path)
        for name, members in parts.items():
            try:
                if (example := _example(shard, name, members, identity, damage is not None)) is not None:
                    yield example
            except BadExample as error:
                yield error


def _shards(path: str) -> list[_Shard]:
    """All shards, in the order of their names."""
    if os.path.isfile(path):
        return [_shard(path, os.path.basename(path))]
    if not os.path.isdir(path):
        raise UserError(f"{path}: there is no such folder or file; expected tar shards")
    root = Path(path)
    near = sorted(p.relative_to(root).as_posix() for pattern in ("[!.]*", "[!.]*/[!.]*") for p in root.glob(pattern))
    deeper = sorted(p.relative_to(root).as_posix() for p in root.glob("[!.]*/[!.]*/**/[!.]*"))
    for name in (*near, *deeper):
        if _COMPRESSED_NAME.search(name):
            raise UserError(
                f"{os.path.join(path, name)}: this shard is compressed; expected a plain .tar, unpack it first"
            )
    if deep := next((name for name in deeper if _is_shard(name)), None):
        raise UserError(
            f"{os.path.join(path, deep)}: this shard lies too deep; expected SHARD.tar or TASK/SHARD.tar in {path}"
        )
    shards = [_shard(os.path.join(path, name), name) for name in near if _is_shard(name)]
    if not shards:
        raise UserError(f"{path}: there are no shards; expected TASK/train-000.tar and the like")
    return shards


def _is_shard(name: str) -> bool:
    return name.lower().endswith(".tar")


def _shard(path: str, name: str) -> _Shard:
    folder, base = posixpath.split(name)
    return _Shard(path, name, folder or None, next((split for split in SPLITS if base.startswith(split)), None))


def _scanned(shard: _Shard, update: Callable[[bytes], object]) -> tuple[dict[str, _Parts], BadExample | None]:
    """Every example's parts by its name, and what ended the archive too early, if anything did."""
    parts: dict[str, _Parts] = {}
    if not os.path.isfile(shard.path):  # before opening: a pipe would block
        raise UserError(f"{shard.path}: this is not a regular file; expected a tar shard")
    members: list[tarfile.TarInfo] = []
    damage = None
    try:
        with open(shard.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            update(json.dumps([shard.name, size]).encode())
            try:
                for member in _members(shard, file, size):
                    members.append(member)
            except BadExample as error:
                damage = error
            stored = {_name(member): member for member in members}
            for member in members:
                _sort_in(member, _target(member, stored), file, parts, update)
    except OSError as error:
        raise UserError(f"{shard.path}: the shard cannot be read ({error.strerror})") from error
    return parts, damage


def _name(member: tarfile.TarInfo) -> str:
    return posixpath.normpath(member.name)


def _target(member: tarfile.TarInfo, stored: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The member itself, or if it is a link, the file it leads to; None where there is none in the shard."""
    target: tarfile.TarInfo | None = member
    for _ in range(_MOST_LINKS):
        if target is None or _is_file(target):
            return target
        if target.issym():  # a symbolic link is relative to its folder, a hard one is not
            target = stored.get(posixpath.normpath(posixpath.join(posixpath.dirname(target.name), target.linkname)))
        else:
            target = stored.get(posixpath.normpath(target.linkname)) if target.islnk() else None
    return None


def _is_file(member: tarfile.TarInfo) -> bool:
    """Whether the member's data lie in the shard as they are."""
    return member.isreg() and not member.issparse()


def _sort_in(
    member: tarfile.TarInfo, target: tarfile.TarInfo | None, file: BinaryIO, parts: dict[str, _Parts], update: Callable
) -> None:
    """Puts a member to its example, with what its `target` holds if that is text."""
    folder, base = posixpath.split(member.name.removeprefix("./"))
    stem, _, ending = base.partition(".")
    if not (stem and ending):
        return
    update(json.dumps([member.name, target.size if target else None]).encode())
    example, ending = parts.setdefault(posixpath.join(folder, stem), _Parts()), ending.lower()
    if ending in example.members:
        example.repeated = member.name
        return
    if target is None:
        example.nowhere = example.nowhere or (member if ending in IMAGES + TEXTS else None)
        return
    example.members[ending] = target.replace(name=member.name, deep=False)
    if ending in TEXTS:
        raw = None
        if target.size <= MAX_TEXT_BYTES:
            file.seek(target.offset_data)
            raw = file.read(target.size)
            update(raw)
        example.texts[ending] = raw


class _HeadersOnly:
    """A file of which only little can be read at once: a header that claims to be huge is an error."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)


def _members(shard: _Shard, file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file of `size` bytes that are no folders; files lie in it whole.

    Raises:
      BadExample: where the archive is damaged: `tarfile` itself takes a damaged header for the end.
      UserError: it is compressed.
    """
    start = file.read(8)
    if packer := next((packer for magic, packer in _COMPRESSED.items() if start.startswith(magic)), None):
        raise UserError(f"{shard.path}: this shard is compressed ({packer}); expected a plain .tar, unpack it first")
    file.seek(0)
    fail = failing_at(shard.path, shard.task)
    last, position = "at its start", -1
    try:
        with tarfile.open(fileobj=_HeadersOnly(file), mode="r:", encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # tarfile keeps them all
                end = member.offset_data + member.size
                if member.size < 0 or member.offset_data <= position:
                    fail("damaged archive", f"the header of member {shown(member.name)} makes no sense")
                if _is_file(member) and end > size:
                    fail("damaged archive", f"the file ends inside member {shown(member.name)}")
                if not member.isdir():
                    yield member
                last, position = f"after member {shown(member.name)}", member.offset_data
            end = archive.offset
    except UserError:
        raise
    except Exception as error:  # damaged headers raise nearly anything: TarError, ValueError, RecursionError, ...
        fail("damaged archive", f"the tar archive is damaged {last} ({reason(error)})")
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        fail("damaged archive", f"the tar archive is damaged or cut off {last} (no header and no end mark)")
    while rest := file.read(1 << 20):
        if rest.strip(b"\0"):
            fail("damaged archive", f"there is more {last}, behind the archive's end mark (two archives in one file?)")


def _example(shard: _Shard, name: str, parts: _Parts, identity: str, damaged: bool) -> Example | None:
    """The example of one name; None if none of its members is meant to be one."""
    fail = failing_at(f"{shard.path}, {shown(name)}", shard.task)
    refuse_what_is_no_text("the name", name, fail)
    images = [member for ending, member in parts.members.items() if ending in IMAGES]
    if parts.nowhere is not None:
        link = f"a link to {shown(parts.nowhere.linkname)}, which is " if parts.nowhere.linkname else ""
        fail("no such member", f"{shown(parts.nowhere.name)} is {link}no file in the shard")
    if not images and not parts.texts:
        if any(ending.rpartition(".")[2] in IMAGES + TEXTS for ending in parts.members):
            fail("unknown ending", f"{parts.names()}: an ending begins at the first dot; expected {_expected(IMAGES)}")
        return None
    if parts.repeated is not None:
        fail("repeated member", f"there are two members {shown(parts.repeated)}")
    if len(images) > 1:
        fail("repeated member", f"there are {len(images)} images, {parts.names(IMAGES)}; expected one")
    if damaged and not (images and parts.texts):
        fail("damaged archive", f"of this example the damaged archive holds only {parts.names()}")
    if not images:
        fail("caption without image", f"there is only {parts.names()}; expected {_expected(IMAGES)} beside it")
    if not parts.texts:
        fail("no captions", f"there is only {parts.names()}; expected {_expected(TEXTS)} beside it")
    record = _record(parts.texts, fail)
    task = _agreed("task", shard.task, record, fail)
    fail = failing_at(f"{shard.path}, {shown(name)}", task)
    split = _agreed("split", shard.split, record, fail)
    if split not in SPLITS:
        fail("unknown split", f"split is {shown(split)}; expected 'train' or 'val'")
    captions, faults = checked_captions(_captions(record, parts.texts, fail), fail)
    member = images[0]
    image = ImageInside(shard.path, member.offset_data, member.size, f"member {shown(member.name)}")
    return Example(
        source=shard.path,
        place=shown(name),
        key=f"{shard.name}/{name}",
        image=image,
        captions=captions,
        faults=faults,
        task=task,
        split=split,
        identity=image.content_hash() or (identity, name),
        description=_optional_text("description", record, fail),
    )


def _record(texts: dict[str, bytes | None], fail: Fail) -> dict:
    """What the JSON member says; nothing if there is none."""
    if "json" not in texts:
        return {}
    return parse(_raw("json", texts, fail), "its .json", '{"captions": [...]}', fail)


def _captions(record: dict, texts: dict[str, bytes | None], fail: Fail) -> list[object]:
    key, expected = "captions", "a list of strings"
    captions = record.get(key)
    if captions is None:
        key, expected = "caption", "a string or a list of strings"
        captions = record.get(key)
        captions = [captions] if isinstance(captions, str) else captions
    if captions is None and "txt" in texts:
        captions = [" ".join(decoded(_raw("txt", texts, fail), "its .txt", fail).split())]
    if captions is None:
        fail("no captions", "its .json has neither captions nor caption, and there is no .txt")
    if not isinstance(captions, list):
        fail("wrong type", f"{key} is {kind_of(captions)}; expected {expected}")
    return captions


def _raw(ending: str, texts: dict[str, bytes | None], fail: Fail) -> bytes:
    """What the text member holds, without the mark that some editors put at the start of UTF-8."""
    raw = texts[ending]
    if raw is None:
        fail("text too long", f"its .{ending} has more than {MAX_TEXT_BYTES} bytes")
    return raw.removeprefix(codecs.BOM_UTF8)


def _agreed(key: str, placed: str | None, record: dict, fail: Fail) -> str:
    """Task or split, as the shard's place and the JSON say; at least one of them must, and both the same."""
    said = _optional_text(key, record, fail)
    where = "the folder of the shard" if key == "task" else "the beginning of the shard's name"
    if said is None and placed is None:
        fail("missing key", f"there is no {key}; expected it in a .json or as {where}")
    if said is not None and placed is not None and said != placed:
        fail("contradiction", f"{key} is {shown(said)} in its .json but {shown(placed)} by {where}")
    agreed = said if placed is None else placed
    refuse_what_is_no_text(key, agreed, fail)  # folders' names need not be UTF-8
    return agreed


def _optional_text(key: str, record: dict, fail: Fail) -> str | None:
    return None if record.get(key) is None else text(record, key, fail)


def _expected(endings: Sequence[str]) -> str:
    return ", ".join(f".{ending}" for ending in endings)
