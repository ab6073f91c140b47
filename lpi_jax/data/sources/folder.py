"""A stream from a folder of images: the folders at its top are the tasks, and a text beside an image has its captions.

    path/TASK/0001.jpg          path/TASK/dog/0001.jpg        path/train/TASK/...     path/TASK/train/...
    path/TASK/0001.txt          (no texts: "dog")             path/val/TASK/...       path/TASK/val/...

Each line of a text is a caption. A task without any text has classes, as ImageFolder's: the folder's name is the
caption. A folder of images alone is one task of its name. Images validate by folders, by a list, or by a seeded share.
"""

import codecs
import hashlib
import json
import os
import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lpi_jax.data import share
from lpi_jax.data.builder import assemble
from lpi_jax.data.examples import (
    BadExample,
    Example,
    Fail,
    Identity,
    checked_captions,
    failing_at,
    listed,
    shown,
)
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats.file_tree import files
from lpi_jax.data.formats.json_file import decoded
from lpi_jax.data.images import ImageInFile
from lpi_jax.data.sources.folder_layout import Layout, Place
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.options import option, without

MAX_TEXT_BYTES = 1_000_000  # of one text file
IMAGES = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "avif")

_NOT_READ = (".json", ".caption", ".captions", ".cap", ".text")  # what others write captions into, beside an image
_ABOUT_THE_DATA = ("readme", "license", "licence", "copying", "notice")  # texts that are no captions
_COUNTED = 20  # endings of other files


@dataclass(frozen=True)
class Options(FileOptions):
    """Beside the folder: which of its images validate."""

    val_list: str = option(
        "", "a text file that names the validation images, one a line", kind="place", content="stream"
    )
    val_share: float = option(share.USUAL, share.MEANING, least=0, most=1, reader=without("data.val_list"))
    seed: int = option(0, "decides which images", least=0, reader=without("data.val_list"))
    evaluate: str = option(
        "test", "the split to measure on, of Karpathy's, or of a source that has both", choices=("test", "val")
    )


def folder(options: Options) -> Stream:
    """Reads all names and texts, and checks all images; they are decoded only when they are asked for.

    Args:
      options: for those of all sources see `builder.assemble`.
        path: the folder. Names that begin with a dot are passed over, links are followed, other files counted in
          `Stream.notes` by their endings.
        val_list: where no folders train and val (validation, test) part the images: a text file that names those that
          validate, one a line, relative to `path`.
        val_share, seed: where there is no list either: see `share.chosen`. A share is refused where folders decide.
        evaluate: where there are folders val and test: the one that validates. The other is left out; the notes say so.
        task_order: empty: the order of their names.

    Returns:
      The stream. Its fingerprint covers names, captions, tasks, splits, the sizes of the images and the order of the
      tasks.

    Raises:
      UserError: a bad example (unless skipped), a task without train or val images, no images at all, a folder train
        without val or the other way round, a list that names what is not there, or a wrong argument.
    """
    path, val_list, digest = os.fspath(options.path), options.val_list, hashlib.sha256()
    tree = _tree(path)
    examples, left_out = _examples(path, tree, options.evaluate)
    if any(isinstance(example, Example) and not example.split for example in examples):
        validates = share.listed(val_list, _undecided(tree), path) if val_list else None
        examples = share.parted(examples, validates, options.val_share, options.seed)
    elif val_list:
        raise UserError(
            f"config.data.val_list is {val_list!r}, but folders in {path} say which images validate; expected ''"
        )
    share.refuse_unread(options.val_share, f"folders in {path} say which images validate", unread=not _undecided(tree))
    for example in examples:
        if isinstance(example, Example):
            said = [example.key, example.captions, example.task, example.split]
            digest.update(json.dumps(said).encode())
    notes = {"other_files": tree.others} if tree.others else {}
    return assemble(
        path,
        examples,
        options,
        digest=digest,
        notes={"path": os.path.abspath(path), **notes, **({"left_out": left_out} if left_out else {})},
    )


@dataclass(slots=True)
class _Stem:
    """The files that share a folder and a name up to their ending, relative to the root, and where they are.

    `unread`: those that may hold captions, but in a form that is not read.
    """

    place: Place
    images: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Tree:
    """What lies in the folder: files by stem, in order; tasks that have texts; links not followed; other files."""

    stems: tuple[_Stem, ...]
    with_texts: frozenset[str]
    repeated: tuple[str, ...]
    others: dict[str, int]


def _tree(root: str) -> _Tree:
    names, repeated = files(root)
    split = [(name, *os.path.splitext(name)) for name in names]
    kinds = [_kind(stem, ending) for _, stem, ending in split]
    folders = {posixpath.dirname(name) for name, kind in zip(names, kinds, strict=True) if kind == "image"}
    if not folders:
        raise UserError(f"{root}: there are no images in this folder; expected {', '.join(IMAGES)}")
    layout = Layout(root, folders)
    stems: dict[str, _Stem] = {}
    others: Counter[str] = Counter()
    for (name, stem, ending), kind in zip(split, kinds, strict=True):
        if kind is None:
            others[ending.lower()] += 1
            continue
        if stem not in stems:
            stems[stem] = _Stem(layout(posixpath.dirname(name)))
        (stems[stem].images if kind == "image" else stems[stem].texts).append(name)
    for name, stem, ending in split:
        if ending.lower() in _NOT_READ and (beside := stems.get(stem) or stems.get(os.path.splitext(stem)[0])):
            beside.unread.append(name)  # 1.json, and 1.jpg.json
    ordered = sorted(stems.items(), key=lambda item: (item[1].place.task or "", item[0]))
    with_texts = frozenset(stem.place.task for stem in stems.values() if stem.texts and stem.place.task is not None)
    _refuse_texts_apart(root, stems)
    return _Tree(tuple(stem for _, stem in ordered), with_texts, tuple(repeated), dict(others.most_common(_COUNTED)))


def _kind(stem: str, ending: str) -> str | None:
    """Whether a file is an image or a text with captions; None: neither."""
    ending = ending.lower()
    if ending == ".txt" and posixpath.basename(stem).lower() not in _ABOUT_THE_DATA:
        return "text"
    return "image" if ending[1:] in IMAGES else None


def _refuse_texts_apart(root: str, stems: Mapping[str, _Stem]) -> None:
    """Refuses captions in a folder of their own: without them the images would be taken for classes."""
    with_images = {stem.place.task for stem in stems.values() if stem.images}
    if any(stem.images and stem.texts for stem in stems.values()):
        return
    for stem in stems.values():
        if stem.texts and stem.place.task is not None and stem.place.task not in with_images:
            raise UserError(
                f"{root}: {shown(stem.texts[0])} has no image beside it, nor has any other text an image; expected each"
                " text in the folder of its image, with the same name up to the ending"
            )


def _undecided(tree: _Tree) -> list[str]:
    """Images of which no folder says whether they validate."""
    return [image for stem in tree.stems for image in stem.images if stem.place.side == ""]


def _examples(root: str, tree: _Tree, evaluate: str) -> tuple[list[Example | BadExample], dict[str, int]]:
    """Examples, with split '' where no folder says one, and bad ones; how many images of which side are left out."""
    message = "this link leads to a folder that is read under another name"
    examples: list[Example | BadExample] = [
        BadExample("repeated folder", f"{root}, {shown(link)}: {message}") for link in tree.repeated
    ]
    sides: dict[str | None, set[str | None]] = {}
    for stem in tree.stems:
        sides.setdefault(stem.place.task, set()).add(stem.place.side)
    other = "val" if evaluate == "test" else "test"
    left_out: Counter[str] = Counter()
    identity = Identity()
    for stem in tree.stems:
        place = stem.place
        if place.side == other and evaluate in sides[place.task]:
            left_out[other] += len(stem.images)
        elif stem.images or place.task in tree.with_texts:
            try:
                examples.append(_example(root, stem, place.task in tree.with_texts, identity))
            except BadExample as error:
                examples.append(error)
    return examples, dict(left_out)


def _example(root: str, stem: _Stem, with_texts: bool, identity: Identity) -> Example:
    """The example of one stem; split is '' if no folder says it."""
    place, names = stem.place, [*stem.images, *stem.texts]
    if any("\ud800" <= letter <= "\udfff" for letter in names[0]):  # bytes that are no text
        failing_at(f"{root}, {shown(names[0])}")("not UTF-8", "the name of this file is not UTF-8")
    fail = failing_at(f"{root}, {names[0]}", place.task)
    if len(stem.images) > 1 or len(stem.texts) > 1:
        fail("repeated name", f"there are {listed(names)}; expected one image and at most one text of a name")
    if not stem.images:
        fail("caption without image", "there is no image of this name beside the text")
    if place.side is None:
        fail("unknown split", "this image lies beside the folders train and val; expected it in one of them")
    if place.task is None:
        fail("no task", "this image lies beside the folders of the tasks; expected it in one of them")
    captions, faults = checked_captions(_captions(root, stem, with_texts, fail), fail)
    path = os.path.join(root, names[0])
    return Example(
        source=root,
        place=names[0],
        key=names[0],
        image=ImageInFile(path),
        captions=captions,
        faults=faults,
        task=place.task,
        split={"test": "val"}.get(place.side, place.side),
        identity=identity(path),
        description=_in_words(place.task),
    )


def _captions(root: str, stem: _Stem, with_texts: bool, fail: Fail) -> list[str]:
    """The lines of the text beside an image; of a task without texts, the name of the class."""
    if stem.texts:
        lines = _text(root, stem.texts[0], fail).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        captions = [line.strip() for line in lines if line.strip()]
        if not captions:
            fail("no captions", f"{shown(stem.texts[0])} has no line with text; expected a caption on each")
        return captions
    if with_texts or stem.place.label is None:
        expected = posixpath.basename(os.path.splitext(stem.images[0])[0]) + ".txt"
        fail("no captions", f"there is no text beside the image; expected {shown(expected)}, a caption on each line")
    if stem.unread:
        beside = listed([posixpath.basename(name) for name in stem.unread])
        fail("no captions", f"there is {beside} beside the image, which is not read; expected captions in a .txt")
    return [_in_words(stem.place.label)]


def _text(root: str, name: str, fail: Fail) -> str:
    path = os.path.join(root, name)
    if not os.path.isfile(path):  # before opening: a pipe would block
        fail("unreadable text", f"{shown(name)} is not a regular file")
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        fail("unreadable text", f"{shown(name)} cannot be read ({error.strerror})")
    if len(raw) > MAX_TEXT_BYTES:
        fail("text too long", f"{shown(name)} has more than {MAX_TEXT_BYTES} bytes")
    return decoded(raw.removeprefix(codecs.BOM_UTF8), shown(name), fail)


def _in_words(name: str) -> str:
    """A folder's name as one would say it."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or name
