"""COCO in twelve tasks, from its published files or from TFDS's; and the table that says which image is in which task.

    python -m lpi_jax.data.coco manifest --path DIR --out FILE.csv [--rule RULE] [--karpathy [test|val]]

Tasks, in this order: appliance, sports, outdoor, electronic, accessory, indoor, kitchen, furniture, vehicle, food,
animal, person.
"""

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpi_jax import files, paths, terminal
from lpi_jax.data.examples import BadExample, Example, checked_captions, failing_at, shown
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.sources import coco_annotations, coco_tfds, karpathy
from lpi_jax.data.sources import manifest as manifests
from lpi_jax.data.sources.coco_tasks import LARGEST_AREA, MANIFEST, RULES, TASKS, Coco, CocoImage, place_of, task_of
from lpi_jax.data.sources.manifest import Choice
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.options import option, with_

SPLITS = ("published", "karpathy")
COLUMN = "image_id"
Key = int | str  # an image's number, or "train/7" where the halves count apart
# By task, from the release's post-processing of results; probably how many images it evaluated.
RELEASE_WEIGHTS = dict(zip(TASKS, (73, 27, 44, 255, 210, 306, 474, 500, 500, 500, 500, 500), strict=True))


@dataclass(frozen=True)
class Options(FileOptions):
    """Beside the folder: tasks and splits of COCO."""

    rule: str = option(LARGEST_AREA, "how an image with several kinds of objects gets its task", choices=RULES)
    manifest: str = option(
        "",
        "a CSV table of image, task and split",
        kind="place",
        reader=with_("data.rule", MANIFEST),
        content="stream",
    )
    split: str = option(SPLITS[0], "whose splits", choices=SPLITS)
    evaluate: str = option(
        "test",
        "the split to measure on, of Karpathy's, or of a source that has both",
        choices=("test", "val"),
        reader=with_("data.split", "karpathy"),
    )


def coco(options: Options) -> Stream:
    """COCO 2014 as a stream of tasks, each image in one.

    Args:
      options: for those of all sources see `builder.assemble`.
        path: a folder with `annotations/`, `train2014/` and `val2014/`, or else one with TFDS's `coco_captions/`.
        rule: how an image gets its task: 'largest_area', 'most_objects' or 'single_only' (see `coco_tasks.task_of`), or
          'manifest'.
        manifest: for rule 'manifest': a CSV table with the header image_id,task,split (COCO's number, any name, train
          or val) that alone decides; images that are not in it are left out.
        split: for the other rules: 'published' (train2014 and val2014 are train and val) or 'karpathy' (his train and
          restval are train; `evaluate` is val, and what is left of his val and test is left out).
        evaluate: for split 'karpathy': 'test' or 'val'.
        task_order: empty: the order above, other tasks of a manifest after them.

    Returns:
      The stream: images by their numbers, captions by theirs with white space made single, as annotation a tuple of
      `coco_tasks.CocoObject`. Images to which the rule gives no task (those without objects, for one) are left out.
      Notes: the source, rule and split, how many images were chosen (before bad ones are taken out) and left out, and
      the SHA-256 of the canonical manifest of the choice. Fingerprint: see `manifest.assemble_chosen`; it is the same
      for both sources, and for a rule and its manifest.

    Raises:
      UserError: no COCO there, a file that holds what it should not, a bad example (an image without captions, a
        caption or object without image, a bad image) unless skipped, a task without train or val images, or a wrong
        argument.
    """
    path = os.fspath(options.path)
    selection = _select(path, options.rule, options.manifest, options.split, options.evaluate)
    return manifests.assemble_chosen(
        "coco",
        path,
        _examples(selection),
        COLUMN,
        selection.chosen,
        {
            "source": selection.coco.kind,
            "path": os.path.abspath(path),
            "rule": options.rule,
            "split": _split_in_words(options.rule, options.split, options.evaluate),
            "left_out": selection.left_out,
        },
        options,
    )


@dataclass(frozen=True)
class _Selection:
    """images: by key. chosen: key -> task and split, in the stream's order. left_out: reason -> how many."""

    coco: Coco
    images: Mapping[Key, CocoImage]
    chosen: Mapping[Key, Choice]
    left_out: Mapping[str, int]


def _select(path: str, rule: str, manifest: str, split: str, evaluate: str) -> _Selection:
    for name, value, allowed in (("rule", rule, RULES), ("split", split, SPLITS)):
        if value not in allowed:
            raise UserError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
    if (rule == MANIFEST) != bool(manifest):
        raise UserError(f"rule is {rule!r} and manifest is {manifest!r}; expected a table with rule 'manifest' only")
    if rule == MANIFEST and split != SPLITS[0]:
        raise UserError(f"split is {split!r} with rule 'manifest'; expected {SPLITS[0]!r}, as the table says the split")
    splits = karpathy.run_splits(evaluate)
    coco = _read(path, with_karpathy=split == "karpathy")
    images = _by_key(coco.images)
    if split == "karpathy" and len({image.file_name for image in coco.images}) < len(coco.images):
        raise UserError(f"{path}: a file name stands in both halves, so that Karpathy's file cannot say which is meant")
    left_out: Counter[str] = Counter()
    if rule == MANIFEST:
        unread = sum(error.kind == coco_tfds.UNREADABLE for error in coco.bad)
        chosen = manifests.read(manifest, COLUMN, {str(key): key for key in images}, path, unread)
        left_out["not in the manifest"] = len(images) - len(chosen)
    else:
        chosen = {}
        for key, image in images.items():
            in_run = image.published if split == "published" else splits.get(image.karpathy)
            task = task_of(image.objects, rule)
            if in_run and task:
                chosen[key] = Choice(task, in_run)
            else:
                left_out[_reason(image, in_run)] += 1
    return _Selection(coco, images, _in_order(chosen), dict(+left_out))


def _read(path: str, with_karpathy: bool) -> Coco:
    if os.path.isdir(os.path.join(path, coco_annotations.FOLDER)):
        return coco_annotations.read(path, with_karpathy)
    if os.path.isdir(os.path.join(path, coco_tfds.FOLDER)):
        return coco_tfds.read(path)
    raise UserError(
        f"{path}: here is neither {coco_annotations.FOLDER}/ ({coco_annotations.LAYOUT}) nor {coco_tfds.FOLDER}/ (a"
        " data_dir of TFDS)"
    )


def _by_key(images: Iterable[CocoImage]) -> dict[Key, CocoImage]:
    """Images by number, in the order of their numbers; by "train/7" and the like where both halves count from 0.

    UserError if a number or a file name stands twice in one half.
    """
    images = sorted(images, key=lambda image: (image.id, image.published))
    numbers: dict[tuple[str, int], CocoImage] = {}
    names: dict[tuple[str, str], CocoImage] = {}
    for image in images:
        if first := numbers.get((image.published, image.id)):
            raise UserError(f"{image.where}: image id {image.id} stands already in {first.where}")
        if first := names.get((image.published, image.file_name)):
            raise UserError(f"{image.where}: file name {shown(image.file_name)} stands already in {first.where}")
        numbers[image.published, image.id] = names[image.published, image.file_name] = image
    if len({image.id for image in images}) == len(images):
        return {image.id: image for image in images}
    return {f"{image.published}/{image.id}": image for image in images}


def _reason(image: CocoImage, in_run: str | None) -> str:
    if in_run is None:
        return karpathy.not_evaluated(image.karpathy) if image.karpathy else "not in Karpathy's file"
    return "objects of several tasks" if image.objects else "no objects"


def _in_order(chosen: Mapping[Key, Choice]) -> dict[Key, Choice]:
    """By task (`coco_tasks.place_of`); within a task by key."""
    return dict(sorted(chosen.items(), key=lambda item: (place_of(item[1].task), item[0])))


def _split_in_words(rule: str, split: str, evaluate: str) -> str:
    if rule == MANIFEST:
        return "manifest"
    return f"Karpathy's, measured on {evaluate}" if split == "karpathy" else split


def _examples(selection: _Selection) -> Iterator[Example | BadExample]:
    yield from selection.coco.bad
    for key, choice in selection.chosen.items():
        try:
            yield _example(selection.images[key], choice, selection.coco.descriptions.get(choice.task))
        except BadExample as error:
            yield error


def _example(image: CocoImage, choice: Choice, description: str | None) -> Example:
    fail = failing_at(image.where, choice.task)
    if not image.captions:
        fail("no captions", f"image {shown(image.file_name)} has no captions; expected one or more")
    captions, faults = checked_captions(image.captions, fail)
    return Example(
        source=image.source,
        place=image.place,
        key=image.file_name,
        image=image.stored,
        captions=captions,
        faults=faults,
        task=choice.task,
        split=choice.split,
        identity=image.stored,
        description=description,
        annotation=image.objects,
    )


@terminal.command(interrupted="interrupted; nothing was written")
def main(arguments: Sequence[str]) -> int:
    """Runs the command line, `sys.argv` without the program's name.

    Returns:
      The exit status: 0, 2 for a user's mistake (told in one line on stderr), 130 after Ctrl-C.
    """
    given = _parser().parse_args(arguments)
    given.path, given.out, given.manifest = (
        paths.expanded(getattr(given, name), f"--{name}") for name in ("path", "out", "manifest")
    )
    split = "karpathy" if given.karpathy else "published"
    selection = _select(given.path, given.rule, given.manifest, split, given.karpathy or "test")
    content = manifests.table(COLUMN, selection.chosen)
    try:
        files.write_atomically(Path(given.out), lambda file: file.write(content))
    except (OSError, ValueError) as error:  # ValueError: the name is no file name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{given.out!r}: the file cannot be written ({reason})") from error
    print(_report(selection, hashlib.sha256(content).hexdigest(), given.out))
    return terminal.OK


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(prog="python -m lpi_jax.data.coco", description="COCO in twelve tasks.")
    command = parser.add_subparsers(required=True, metavar="manifest").add_parser(
        "manifest", help="write which image is in which task and split"
    )
    command.add_argument("--path", required=True, help="COCO's folder, or TFDS's data_dir")
    command.add_argument("--out", required=True, help="the CSV table to write")
    command.add_argument("--rule", default=LARGEST_AREA, help=f"one of {', '.join(RULES)} (%(default)s)")
    command.add_argument("--manifest", default="", help="the table to read, for rule manifest")
    command.add_argument(
        "--karpathy", nargs="?", const="test", help="Karpathy's splits, measured on his test (the default) or val"
    )
    return parser


def _report(selection: _Selection, sha256: str, out: str) -> str:
    rows: list[tuple[Any, ...]] = [("task", "train", "val", "release")]
    for task, numbers in manifests.counts(selection.chosen).items():
        rows.append((terminal.one_line(task), numbers["train"], numbers["val"], RELEASE_WEIGHTS.get(task, "")))
    width = max(len(task) for task, *_ in rows)
    lines = [f"{task:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for task, *cells in rows]
    lines += ["release: weights in the release's post-processing, probably its evaluation counts"]
    lines += [f"left out: {count} ({reason})" for reason, count in sorted(selection.left_out.items())]
    bad = Counter(error.kind for error in selection.coco.bad)
    lines += [f"bad: {count} ({kind})" for kind, count in sorted(bad.items())]
    return "\n".join([*lines, f"{sha256}  {out}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
