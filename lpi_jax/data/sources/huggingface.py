"""A stream from a data set that Hugging Face `datasets` saved to disk, read with pyarrow alone.

    path/dataset_dict.json      {"splits": ["train", "validation"]}; without it `path` is one split itself
    path/train/state.json       which files hold its rows, in order
    path/train/dataset_info.json    its columns; those of classes are numbers, with the names here
    path/train/data-00000-of-00001.arrow

Columns are used as those of a table, and rows that name the same image are one image with several captions.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lpi_jax.data import share
from lpi_jax.data.examples import BadExample, Example, failing_at, listed
from lpi_jax.data.file_options import FileOptions
from lpi_jax.data.formats import arrow, arrow_stream, json_file
from lpi_jax.data.formats.arrow import Row
from lpi_jax.data.sources.folder_layout import SIDES
from lpi_jax.data.sources.table import Columns, Fields, stream_of
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.options import option, section

_SAVED = "a folder that save_to_disk of datasets wrote (Parquet files are read by data.name=table)"


@dataclass(frozen=True)
class Options(FileOptions):
    """Beside the folder: its columns, and which of its rows validate."""

    fields: Fields = section(Fields)
    val_share: float = option(share.USUAL, share.MEANING, least=0, most=1)
    seed: int = option(0, "decides which images", least=0)
    evaluate: str = option(
        "test", "the split to measure on, of Karpathy's, or of a source that has both", choices=("test", "val")
    )


def huggingface(options: Options) -> Stream:
    """Reads and checks all rows; images are decoded only when they are asked for.

    Args:
      options: for those of all sources see `builder.assemble`.
        path: the folder that was given to `save_to_disk`.
        fields.image, caption, task, time, description: names of columns, see `table.table`. A column of classes holds
          their names.
        fields.split: a column with train or val; "": the data set's own splits say it, train and validation (val,
          test); where there is only one of them, a column split, and without it a share.
        val_share, seed: see `share.chosen`; equal images are one. A share is refused where splits or a column
          decide.
        evaluate: where there are validation and test: the one that validates, test or val. The other is left out.

    Returns:
      The stream. Its fingerprint covers the values of all good rows, their splits, the sizes of the images used and
      the order of the tasks.

    Raises:
      UserError: a bad row (unless skipped), a task without train or val images, a missing column, a folder or file
        that is not what `save_to_disk` writes (or stops being it somewhere inside), or a wrong argument.
    """
    path, split = os.fspath(options.path), options.fields.split
    parts = _parts(path)
    sides = _sides(path, parts, split, options.evaluate)
    undecided = "" in sides.values()
    if undecided and not split and "split" in _columns(parts):
        split = "split"
    columns = replace(options.fields, split=split).columns()
    by_share = undecided and not split
    decides = f"column {columns.split!r} says" if split else "its splits say"
    share.refuse_unread(options.val_share, f"{path}: {decides} which rows validate", unread=not by_share)
    parted = functools.partial(_parted, val_share=options.val_share, seed=options.seed)
    left_out = [name for name in parts if name not in sides]
    return stream_of(
        path,
        _rows(parts, sides, columns, column=bool(split)),
        columns,
        options,
        parted=parted if by_share else None,
        notes={"left_out": left_out} if left_out else {},
    )


@dataclass(frozen=True)
class _Part:
    """One split as it was saved: its data files in order, and the names of the classes by column."""

    files: tuple[str, ...]
    classes: Mapping[str, Sequence[str]]


def _parts(path: str) -> dict[str, _Part]:
    """The splits that were saved, by name; one called '' where `path` is a split itself."""
    if not os.path.isdir(path):
        instead = "this is a file" if os.path.exists(path) else "there is no such folder"
        raise UserError(f"{path}: {instead}; expected {_SAVED}")
    index = os.path.join(path, "dataset_dict.json")
    if not os.path.exists(index):
        if not os.path.exists(os.path.join(path, "state.json")):
            raise UserError(f"{path}: there is neither dataset_dict.json nor state.json in it; expected {_SAVED}")
        return {"": _part(path)}
    names = json_file.load(index, "the names of the splits").get("splits")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{index}: splits is {names!r:.80}; expected the names of the splits")
    fail = failing_at(index)
    return {name: _part(json_file.file_inside(path, {"splits": name}, "splits", fail)) for name in names}


def _part(folder: str) -> _Part:
    path = os.path.join(folder, "state.json")
    state = json_file.load(path, "the state of a saved split")
    if state.get("_indices_data_files"):
        raise UserError(f"{path}: the split is a choice among its rows; expected one saved after flatten_indices()")
    files = []
    for place, entry in json_file.entries(path, state, "_data_files"):
        fail = failing_at(f"{path}, {place}")
        files.append(json_file.file_inside(folder, json_file.checked_object(entry, fail), "filename", fail))
    info = os.path.join(folder, "dataset_info.json")
    features = json_file.load(info, "the columns of a saved split").get("features")
    return _Part(tuple(files), _classes(info, features if isinstance(features, dict) else {}))


def _classes(path: str, features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The names of the classes of each column that holds some."""
    classes = {}
    for column, feature in features.items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise UserError(f"{path}: the names of the classes of column {column!r} are no list of strings")
            classes[column] = names
    return classes


def _columns(parts: Mapping[str, _Part]) -> set[str]:
    return {name for part in parts.values() for file in part.files[:1] for name in arrow_stream.columns(file)}


def _sides(path: str, parts: Mapping[str, _Part], split: str, evaluate: str) -> dict[str, str]:
    """The splits that are used, each with train or val; '' where not they, but their rows (or a share) decide."""
    if split or len(parts) == 1:
        return dict.fromkeys(parts, "")
    sides = {name: SIDES[name.lower()] for name in parts if name.lower() in SIDES}
    held = set(sides.values())
    validates = evaluate if {"val", "test"} <= held else "test" if "test" in held else "val"
    if not {"train", validates} <= held:
        raise UserError(
            f"{path}: its splits are {listed(list(parts))}; expected train and one of validation, val and test, or the"
            " column that says it as config.data.fields.split"
        )
    return {name: "train" if side == "train" else "val" for name, side in sides.items() if side in ("train", validates)}


def _rows(parts: Mapping[str, _Part], sides: Mapping[str, str], columns: Columns, column: bool) -> Iterator[Row]:
    """The rows of the splits that are used; `column`: whether a column says the split of each."""
    for name, side in sides.items():
        part, fixed = parts[name], {} if column else {columns.split: side or "train"}
        allowed = {key: kinds for key, kinds in columns.allowed().items() if key not in fixed}
        allowed |= {key: (arrow.NUMBER, *allowed[key]) for key in part.classes if key in allowed}
        for file in part.files:
            for row in arrow_stream.rows(file, allowed, columns.image):
                yield replace(row, cell=functools.partial(_cell, row.cell, part.classes, fixed))


def _cell(cell: Callable[[str], Any], classes: Mapping[str, Sequence[str]], fixed: Mapping[str, str], name: str) -> Any:
    """A value of a row: the name of its class where it is one."""
    if name in fixed:
        return fixed[name]
    value = cell(name)
    if name not in classes or not isinstance(value, int):
        return value
    if not -1 <= value < len(classes[name]):
        raise ValueError(f"{value} is none of its {len(classes[name])} classes")
    return None if value < 0 else classes[name][value]  # -1: not known


def _parted(examples: Sequence[Example | BadExample], val_share: float, seed: int) -> list[Example | BadExample]:
    """All examples, of whatever split, parted anew."""
    undecided = [replace(one, split="") if isinstance(one, Example) else one for one in examples]
    return share.parted(undecided, None, val_share, seed)
