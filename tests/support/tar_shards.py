"""Tar shards of images with texts, made member by member."""

import io
import tarfile

from PIL import Image


def image(shade, kind="png", side=4):
    """An encoded image whose red is `shade`."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (shade, 0, 0)).save(file, kind, **({"lossless": True} if kind == "webp" else {}))
    return file.getvalue()


def pair(number, caption=None, folder=""):
    """Members of one example; the image's red is its number."""
    caption = f"number {number}" if caption is None else caption
    return [(f"{folder}{number:04d}.png", image(number)), (f"{folder}{number:04d}.txt", caption.encode())]


def tarred(members, form=tarfile.GNU_FORMAT, mtime=0):
    """The bytes of a tar file; members are (name, bytes) or (name, `tarfile.TarInfo`)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(content, bytes) else content
            info.mtime, raw = mtime, content if isinstance(content, bytes) else b""
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return file.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def shard(folder, name, members, **how):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(members if isinstance(members, bytes) else tarred(members, **how))
    return path


GOOD = pair(1) + pair(2)
