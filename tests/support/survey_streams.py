"""Small streams for the tests of the survey and of the check: smooth images, a few captions, some of them damaged."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lpi_jax.data.images import BadImage
from lpi_jax.data.stream import Split, Stream, Task
from tests.support.splits import split_of


def photo(seed: int, height: int = 40, width: int = 60) -> Image.Image:
    """A smooth image unlike those of other seeds."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def split(images: Sequence[Image.Image], captions: Sequence[Sequence[str]] | None = None) -> Split:
    """A split of images at hand."""
    captions = captions or [[f"image {i}"] for i in range(len(images))]
    return loaded(images.__getitem__, captions)


def loaded(load: Callable[[int], Image.Image], captions: Sequence[Sequence[str]]) -> Split:
    """A split whose images come from a function."""
    return split_of(tuple(map(str, range(len(captions)))), captions, load)


def gone(index: int) -> Image.Image:
    """Fails to load an image: the first twenty are missing, the others unreadable."""
    raise BadImage("missing file" if index < 20 else "unreadable image", f"stream, line {index}:\nnot there")


def half_gone() -> Stream:
    """A stream of 71 images, 35 of which cannot be read."""
    train = loaded(lambda index: gone(index) if index % 2 else photo(index), [["a cat"]] * 70)
    return stream(("pets", train, split([photo(99)])))


def stream(*tasks: tuple[str, Split, Split]) -> Stream:
    """Tasks are (name, train, val)."""
    return Stream("toys", tuple(Task(name, name, train, val) for name, train, val in tasks), "f" * 64)


def manifest(folder: Path, rows: Iterable[tuple[Image.Image | bytes, list[str], str, str]]) -> Path:
    """Writes rows of (image or bytes, captions, task, split) as a manifest with its images beside it."""
    lines = []
    for number, (image, captions, task, part) in enumerate(rows):
        name = f"{number}.png"
        if isinstance(image, bytes):
            (folder / name).write_bytes(image)
        else:
            image.save(folder / name)
        lines.append({"image": name, "captions": captions, "task": task, "split": part})
    path = folder / "stream.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def damaged() -> bytes:
    """A JPEG whose header is sound: only decoding finds out."""
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(data, "JPEG")
    return data.getvalue()[:1500]
