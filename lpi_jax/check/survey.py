"""What is found out about a stream by reading all of it once: what is in it, what is bad, what comes again.

A run would meet the same images and captions; `lpi_jax.data.check` tells a person what was found.
"""

import hashlib
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from lpi_jax.data.contact_sheet import Tile, thumbnail
from lpi_jax.data.examples import SPLITS
from lpi_jax.data.images import BadImage
from lpi_jax.data.loader import ahead
from lpi_jax.data.stream import Split, Stream
from lpi_jax.data.transforms import clean_caption
from lpi_jax.terminal.display import counting

LISTED = 20  # bad images that are told one by one
TILES = 12  # images of each split on a contact sheet

_BITS, _COLOUR = 2, 8  # what two images that look alike may differ in: signs out of 64, and colour out of 255
_CROWD = 256
_PROGRESS_FROM = 500  # images: fewer are read in a moment

Said = Callable[[Any], Sequence[str]]  # a record -> what is said of its image, in texts


@dataclass(frozen=True)
class Words:
    """Length of cleaned captions, in words: the median, the longest, and how many are longer than what is read.

    None where all is read.
    """

    median: float
    longest: int
    too_long: int | None


@dataclass(frozen=True)
class Sizes:
    """(width, height) in pixels of the smallest, the median and the largest image by area."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class Repeats:
    """How many images and captions come more than once.

    Attributes:
      train_same: train images with the pixels of an earlier one. train_alike: others that look like an earlier one.
      val_same: val images with the pixels of a train image. val_alike: others that look like a train image.
      captions: val captions that are, as they are read, train captions too.
    """

    train_same: int
    train_alike: int
    val_same: int
    val_alike: int
    captions: int


@dataclass(frozen=True)
class Row:
    """What is in one task, or in all of them.

    Attributes:
      name: the task's.
      images, captions: how many, by split.
      words: of both splits' captions.
      cut: captions that the text tower cannot take whole; None: not counted.
      sizes: of both splits' images; None: not one could be decoded.
      repeats: within the task, or across all tasks.
      bad: examples that were left out when the stream was read and images that could not be decoded, by kind.
    """

    name: str
    images: Mapping[str, int]
    captions: Mapping[str, int]
    words: Words
    cut: int | None
    sizes: Sizes | None
    repeats: Repeats
    bad: Mapping[str, int]


@dataclass(frozen=True)
class Findings:
    """What is in a stream.

    Attributes:
      stream, fingerprint: as in `Stream`.
      max_words: how many words of a caption are read; None: all.
      tasks: a row each. total: the row of all tasks together.
      unplaced: bad examples of which no task is known, by kind; `total` counts them, too.
      bad: what is wrong with the first LISTED bad ones.
      remarks: as in `Stream`, the first LISTED.
      tiles: per task and split, at most TILES images for its contact sheet.
    """

    stream: str
    fingerprint: str
    max_words: int | None
    tasks: tuple[Row, ...]
    total: Row
    unplaced: Mapping[str, int]
    bad: tuple[str, ...]
    remarks: tuple[str, ...]
    tiles: tuple[Mapping[str, Sequence[Tile]], ...]


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """What is kept of an image: width and height, sha256 of its pixels, and what `_first_alike` compares."""

    size: tuple[int, int]
    digest: bytes
    signs: int
    colours: bytes


class _Bad(NamedTuple):
    """What is kept of a `BadImage`, which itself holds on to the image that was being decoded."""

    kind: str
    message: str


class _Part(NamedTuple):
    """One split of one task, or of all. said: captions as they are read; words: their lengths before they are cut."""

    looks: list[_Look]
    bad: list[_Bad]
    said: list[str]
    words: list[int]
    tiles: list[Tile]


def survey(
    stream: Stream,
    max_words: int | None,
    count_cut: Callable[[Split], int] | None = None,
    said: Said = attrgetter("captions"),
) -> Findings:
    """Reads every image of a stream once, in threads, and keeps a few hashes of each and some thumbnails.

    Args:
      stream: any. An image that raises `BadImage` when it is loaded is counted, and the survey goes on.
      max_words: how many words of a caption are read; None: all.
      count_cut: a split -> how many of its captions the backbone cannot take whole.
      said: what is said of an image, here called its captions.
    """
    cuts: list[int | None] = [None] * len(stream.tasks)
    if count_cut:
        cuts = [sum(count_cut(getattr(task, split)) for split in SPLITS) for task in stream.tasks]
    count = sum(len(getattr(task, split)) for task in stream.tasks for split in SPLITS)
    with counting(count, "checking images", "image", quiet=count <= _PROGRESS_FROM) as bar:
        read = [{split: _read(getattr(task, split), said, max_words, bar) for split in SPLITS} for task in stream.tasks]
    together = {split: _joined([parts[split] for parts in read]) for split in SPLITS}
    refused = stream.refused
    bad = [*refused.first, *(one.message for parts in read for split in SPLITS for one in parts[split].bad)]
    return Findings(
        stream=stream.name,
        fingerprint=stream.fingerprint,
        max_words=max_words,
        tasks=tuple(
            _row(task.name, parts, max_words, cut, refused.counts.get(task.name, {}))
            for task, parts, cut in zip(stream.tasks, read, cuts, strict=True)
        ),
        total=_row("all", together, max_words, sum(cuts) if count_cut else None, stream.skipped),
        unplaced=refused.counts.get("", {}),
        bad=tuple(bad[:LISTED]),
        remarks=stream.remarks[:LISTED],
        tiles=tuple({split: parts[split].tiles for split in SPLITS} for parts in read),
    )


def _spoken(split: Split, said: Said) -> list[str]:
    return [text for record in split.records for text in said(record)]


def _read(split: Split, said: Said, max_words: int | None, bar: tqdm) -> _Part:
    # A record without an image has a black one, which tells nothing.
    seen = [index for index, record in enumerate(split.records) if getattr(record, "has_image", True)]
    most = min(TILES, len(seen))
    chosen = {seen[k * len(seen) // most] for k in range(most)}

    def look(index: int) -> tuple[_Look | _Bad, Image.Image | None]:
        try:
            image = split.load(index)
        except BadImage as error:
            return _Bad(error.kind, " ".join(str(error).split())), None
        return _look(image), thumbnail(image) if index in chosen else None

    part = _Part([], [], [], [], [])
    for index, (looked, small) in zip(seen, ahead(look, seen), strict=True):
        (part.bad if isinstance(looked, _Bad) else part.looks).append(looked)
        if index in chosen:
            part.tiles.append(Tile(small, said(split.records[index])[0]))
        bar.update()
    bar.update(len(split) - len(seen))
    for caption in _spoken(split, said):
        words = _words(caption)
        part.words.append(len(words))
        part.said.append(" ".join(words[:max_words]))
    return part


def _words(caption: str) -> list[str]:
    try:
        return clean_caption(caption, sys.maxsize).removesuffix(".").split()
    except ValueError:  # nothing but signs
        return []


def _look(image: Image.Image) -> _Look:
    digest = hashlib.sha256("{} {} ".format(*image.size).encode())
    digest.update(image.tobytes())
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    signs = np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
    colours = image.resize((4, 4), Image.Resampling.BOX).tobytes()
    return _Look(image.size, digest.digest(), int.from_bytes(signs), colours)


def _joined(parts: Sequence[_Part]) -> _Part:
    return _Part(*(list(chain.from_iterable(lists)) for lists in zip(*parts, strict=True)))


# ---- counting --------------------------------------------------------------------------------------------------------


def _row(
    name: str, parts: Mapping[str, _Part], max_words: int | None, cut: int | None, refused: Mapping[str, int]
) -> Row:
    both = _joined(list(parts.values()))
    sizes = sorted((look.size for look in both.looks), key=lambda size: (size[0] * size[1], size))
    return Row(
        name=name,
        images={split: len(part.looks) + len(part.bad) for split, part in parts.items()},
        captions={split: len(part.said) for split, part in parts.items()},
        words=Words(statistics.median(both.words), max(both.words), _longer(both.words, max_words)),
        cut=cut,
        sizes=Sizes(sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1]) if sizes else None,
        repeats=_repeats(parts["train"], parts["val"]),
        bad=dict(Counter(refused) + Counter(one.kind for one in both.bad)),
    )


def _longer(words: Iterable[int], max_words: int | None) -> int | None:
    return None if max_words is None else sum(count > max_words for count in words)


def _repeats(train: _Part, val: _Part) -> Repeats:
    distinct = {look.digest: look for look in train.looks}
    unlike_train = [look for look in val.looks if look.digest not in distinct]
    first = _first_alike([*distinct.values(), *unlike_train])
    known = set(train.said)
    return Repeats(
        train_same=len(train.looks) - len(distinct),
        train_alike=int(np.sum(first[: len(distinct)] < np.arange(len(distinct)))),
        val_same=len(val.looks) - len(unlike_train),
        val_alike=int(np.sum(first[len(distinct) :] < len(distinct))),
        captions=sum(caption in known for caption in val.said),
    )


def _first_alike(looks: Sequence[_Look]) -> np.ndarray:
    """[N] int: for each image the number of the first that looks like it, which may be its own.

    Images look alike if of the 64 signs of their horizontal gradient (8 rows of 9 grey values, the difference hash)
    at most _BITS differ, and no colour of their 4 x 4 reduction differs by more than _COLOUR: signs alone take every
    two drawings on a plain ground for one. Signs that differ in two bits are equal in at least two of four quarters,
    so only images with two equal quarters are compared, each with the _CROWD next to it in brightness: among
    thousands of blank pages a pair may be missed, but time does not grow with the square of their number.
    """
    signs = np.array([look.signs for look in looks], np.uint64)
    colours = np.array([list(look.colours) for look in looks], np.int16).reshape(-1, 48)
    quarters = signs[:, None] >> np.arange(0, 64, 16, np.uint64) & np.uint64(0xFFFF)
    first = np.arange(len(looks))
    for i, j in combinations(range(4), 2):
        key = quarters[:, i] << np.uint64(16) | quarters[:, j]
        order = np.lexsort((colours.sum(1), key))
        for step in range(1, _CROWD + 1):
            pairs = np.stack([order[:-step], order[step:]])
            pairs = pairs[:, key[pairs[0]] == key[pairs[1]]]
            if not pairs.size:
                break
            pairs = pairs[:, np.bitwise_count(signs[pairs[0]] ^ signs[pairs[1]]) <= _BITS]
            pairs = pairs[:, np.abs(colours[pairs[0]] - colours[pairs[1]]).max(1) <= _COLOUR]
            np.minimum.at(first, pairs, pairs[::-1])
    return first
