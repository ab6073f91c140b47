"""Karpathy and Li's splits (`dataset_coco.json`, `dataset_flickr30k.json`), and Flickr30k as a stream.

Their train and restval images are trained on; of val and test one is what a run is measured on, the other is left out.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpi_jax.data.examples import BadExample, Example, checked_captions, failing_at, kind_of, shown
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats import json_file
from lpi_jax.data.formats.json_file import file_inside
from lpi_jax.data.images import ImageInFile
from lpi_jax.data.sources import manifest as manifests
from lpi_jax.data.sources.manifest import Choice
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.options import option

SPLITS = ("train", "restval", "val", "test")
EVALUATE = ("test", "val")
FILE = "dataset_flickr30k.json"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
COLUMN = "image"


@dataclass(frozen=True, slots=True)
class KarpathyImage:
    """One entry of the file's `images`.

    Attributes:
      place: where in the file: images[3].
      filename: the image's file, without its folder.
      split: one of `SPLITS`.
      entry: the whole entry, of which only file name and split are checked.
    """

    place: str
    filename: str
    split: str
    entry: Mapping[str, Any]


class BadEntry(BadExample):
    """An entry of the file's `images` that is none. `filename`: the image's file, None where that cannot be read."""

    def __init__(self, kind: str, message: str, filename: str | None):
        super().__init__(kind, message)
        self.filename = filename


def read(path: str) -> Iterator[KarpathyImage | BadEntry]:
    """The images of one of Karpathy's files, in its order. Raises UserError if it is no such file."""
    expected = 'one of Karpathy\'s files, an object like {"images": [...], "dataset": ...}'
    record = json_file.load(path, expected, without=("tokens",))
    for place, entry in json_file.entries(path, record, "images"):
        fail, filename = failing_at(f"{path}, {place}"), None
        try:
            json_file.checked_object(entry, fail)
            filename = json_file.text(entry, "filename", fail)
            split = json_file.text(entry, "split", fail)
            if split not in SPLITS:
                fail("unknown split", f"split is {shown(split)}; expected one of {', '.join(SPLITS)}")
            yield KarpathyImage(place, filename, split, entry)
        except BadExample as error:
            yield BadEntry(error.kind, str(error), filename)


def run_splits(evaluate: str) -> dict[str, str]:
    """Karpathy's split -> train or val in the run; the split that is left out is missing. UserError: no such split."""
    if evaluate not in EVALUATE:
        raise UserError(f"evaluate is {evaluate!r}; expected 'test' or 'val', the split of Karpathy's to measure on")
    return {"train": "train", "restval": "train", evaluate: "val"}


def not_evaluated(split: str) -> str:
    """The reason for which an image of the other evaluation split is left out."""
    return f"Karpathy's {split}, not evaluated"


@dataclass(frozen=True)
class Options(FileOptions):
    """Beside the folder: tasks, and the split to measure on."""

    manifest: str = option("", "a CSV table of image, task and split", kind="place", content="stream")
    evaluate: str = option(
        "test", "the split to measure on, of Karpathy's, or of a source that has both", choices=("test", "val")
    )


def flickr30k(options: Options) -> Stream:
    """Flickr30k: one task of its name, or the tasks that a manifest says.

    Args:
      options: for those of all sources see `builder.assemble`.
        path: the folder with Karpathy's `dataset_flickr30k.json`, the images in `flickr30k-images/`, in
          `flickr30k_images/`, in `images/` or beside it.
        manifest: a CSV table with the header image,task,split (file name, any name, train or val), which then decides
          alone; images that are not in it are left out.
        evaluate: which of Karpathy's splits is val in the run: 'test' (the usual 1,000 images) or 'val'.

    Returns:
      The stream, captions in the file's order with white space made single. Notes: the folder, what chose, how many
      were chosen and left out, and the canonical manifest's SHA-256.

    Raises:
      UserError: files that are missing or broken, a bad image (unless skipped), a task without train or val images,
        or a wrong argument.
    """
    path, manifest, evaluate = os.fspath(options.path), options.manifest, options.evaluate
    splits = run_splits(evaluate)
    source = os.path.join(path, FILE)
    entries = list(read(source))
    images = [image for image in entries if isinstance(image, KarpathyImage)]
    left_out: Counter[str] = Counter()
    if manifest:
        names = [entry.filename for entry in entries]  # those of bad entries, too: their rows are no mistakes
        keys = {name: name for name in names if name is not None}
        chosen = manifests.read(manifest, COLUMN, keys, source, unread=names.count(None))
        left_out["not in the manifest"] = sum(image.filename not in chosen for image in images)
    else:
        # The first entry of an image counts, as in the stream.
        chosen = {i.filename: Choice("flickr30k", splits[i.split]) for i in reversed(images) if i.split in splits}
        left_out.update(not_evaluated(image.split) for image in images if image.split not in splits)
    return manifests.assemble_chosen(
        "flickr30k",
        source,
        _examples(source, _image_folder(path, chosen), entries, chosen, {} if manifest else splits),
        COLUMN,
        chosen,
        {
            "path": os.path.abspath(path),
            "split": "manifest" if manifest else f"Karpathy's, measured on {evaluate}",
            "left_out": dict(+left_out),
        },
        options,
    )


def _image_folder(path: str, names: Collection[str]) -> str:
    """The folder of the images. UserError: there is none, and none of the images lies in `path` itself."""
    for name in FOLDERS:
        if os.path.isdir(folder := os.path.join(path, name)):
            return folder
    if names and not any(os.path.isfile(os.path.join(path, name)) for name in names):
        folders = ", ".join(f"{name}/" for name in FOLDERS)
        raise UserError(f"{path}: here is no image of {FILE}; expected them in one of {folders} or beside the file")
    return path


def _examples(
    source: str,
    folder: str,
    entries: Sequence[KarpathyImage | BadEntry],
    chosen: Mapping[str, Choice],
    splits: Mapping[str, str],
) -> Iterator[Example | BadExample]:
    """All examples that were chosen. `splits`: what each entry's own split is in the run; empty: a manifest decides."""
    for image in entries:
        choice = chosen.get(image.filename)
        if isinstance(image, BadEntry):
            yield BadExample(image.kind, str(image), choice and choice.task)
        elif choice and (split := splits.get(image.split) if splits else choice.split):
            try:
                yield _example(source, folder, image, choice._replace(split=split))
            except BadExample as error:
                yield error


def _example(source: str, folder: str, image: KarpathyImage, choice: Choice) -> Example:
    fail = failing_at(f"{source}, {image.place}", choice.task)
    file = file_inside(folder, image.entry, "filename", fail)
    sentences = image.entry.get("sentences", [])
    if not isinstance(sentences, list):
        fail("wrong type", f"sentences is {kind_of(sentences)}; expected a list of objects")
    if not sentences:
        fail("no captions", "this image has no sentences; expected one or more")
    for sentence in sentences:
        if not isinstance(sentence, dict) or not isinstance(sentence.get("raw"), str):
            fail("wrong type", 'sentences holds something else than objects like {"raw": "A dog runs."}')
    captions, faults = checked_captions([" ".join(sentence["raw"].split()) for sentence in sentences], fail)
    return Example(
        source=source,
        place=image.place,
        key=image.filename,
        image=ImageInFile(file),
        captions=captions,
        faults=faults,
        task=choice.task,
        split=choice.split,
        identity=os.path.normpath(file),
    )
