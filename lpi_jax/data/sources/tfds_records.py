"""The records of a data set that TensorFlow Datasets has prepared in array_record files, and the images in them.

Reading needs no TensorFlow, and nothing is downloaded or built. Images stay encoded until they are asked for, and are
then read like any other.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lpi_jax.data.examples import listed, shown
from lpi_jax.data.formats.json_file import load
from lpi_jax.data.images import MAX_BYTES, TOO_LARGE, UNREADABLE, BadImage, EmbeddedImage
from lpi_jax.errors import UserError, reason
from lpi_jax.terminal.display import counting

_PROGRESS_FROM = 500  # records: fewer are read in a moment


def prepared(builder: str, data_dir: str = "") -> str:
    """The folder of a prepared data set: the version that `builder` names, else the highest.

    Nothing but folders is looked at: the code that TFDS has for a data set is not needed, and not imported.

    Raises:
      UserError: it is not there, or has several configurations and `builder` names none.
    """
    if not data_dir:
        from tensorflow_datasets.core import constants

        data_dir = os.path.expanduser(constants.DATA_DIR)
    name, _, version = builder.partition(":")
    folder = os.path.abspath(os.path.join(data_dir, name, version))
    if found := _highest_version(folder):
        return found
    configs = {entry: _highest_version(os.path.join(folder, entry)) for entry in _entries(folder)}
    configs = {entry: found for entry, found in configs.items() if found}
    if len(configs) > 1:
        known = listed([f"{name}/{config}" for config in sorted(configs)])
        raise UserError(f"{folder}: this data set has several configurations; expected one of {known}")
    if not configs:
        raise UserError(f"{folder}: no data set is prepared here; it is prepared by {_command(builder, data_dir)}")
    return next(iter(configs.values()))


def _command(builder: str, data_dir: str) -> str:
    made = f"tfds.builder({builder!r}, data_dir={data_dir!r}, file_format='array_record')"
    return f'python -c "import tensorflow_datasets as tfds; {made}.download_and_prepare()"'


def _highest_version(folder: str) -> str | None:
    """The folder itself if it holds a data set, else that of the highest version in it that does."""
    versions = [entry for entry in _entries(folder) if re.fullmatch(r"\d{1,9}(\.\d{1,9}){2}", entry)]
    versions.sort(key=lambda version: [int(number) for number in version.split(".")], reverse=True)
    folders = [folder, *(os.path.join(folder, version) for version in versions)]
    return next((found for found in folders if os.path.isfile(os.path.join(found, "features.json"))), None)


def _entries(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


@functools.lru_cache(maxsize=8)
def opened(folder: str) -> Any:
    """TFDS's builder of the data set prepared in a folder. UserError if TFDS cannot open it."""
    _refuse_foreign_classes(os.path.join(folder, "features.json"))
    try:
        import tensorflow_datasets

        return tensorflow_datasets.builder_from_directory(folder)
    except Exception as error:
        raise UserError(f"{folder}: TFDS cannot open this data set ({reason(error)})") from error


def _refuse_foreign_classes(path: str) -> None:
    """TFDS imports whatever class the description of the features names; a data set must not choose what is run."""
    waiting: list[Any] = [load(path, "TFDS's description of the features")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for name in (value.get("pythonClassName"), value.get("type")):  # the second in files of early versions
                if isinstance(name, str) and not name.startswith("tensorflow_datasets.core.features."):
                    raise UserError(f"{path}: class {shown(name)} is none of TFDS's own features")


class Leaf(NamedTuple):
    """A feature that holds no others, and whether it stands in a sequence."""

    path: str
    feature: Any
    several: bool


def leaves_of(feature: Any, path: str = "", several: bool = False) -> Iterator[Leaf]:
    """The features that hold no others, each with its path ("objects/label")."""
    from tensorflow_datasets import features

    if type(feature) is features.Sequence:
        yield from leaves_of(feature.feature, path, True)
    elif type(feature) is features.FeaturesDict:
        for key, inner in feature.items():
            yield from leaves_of(inner, f"{path}/{key}" if path else key, several)
    else:
        yield Leaf(path, feature, several)


class Records:
    """Some features of the records of a split, read when they are asked for (see `records`). Threads may share it.

    Attributes:
      places: (file, position in it) of each record.
    """

    def __init__(self, folder: str, split: str, paths: Sequence[str]) -> None:
        from tensorflow_datasets import decode

        info = opened(folder).info
        if "array_record" not in [one.value for one in info.available_file_formats()]:
            again = _command(":".join(info.full_name.rsplit("/", 1)), "ANOTHER_FOLDER")
            raise UserError(f"{folder}: its files are not array_record; such files are prepared by {again}")
        how = {"deserialize_method": decode.DeserializeMethod.RAW_BYTES, "file_format": "array_record"}
        try:
            files = info.splits[split].file_instructions
            self._records = opened(folder).as_data_source(split, **how) if files else []
        except Exception as error:
            known = listed(list(info.splits))
            raise UserError(
                f"{folder}: split {split!r} cannot be read ({reason(error)}); its splits are {known}"
            ) from error
        for file in files:
            _refuse_what_cannot_hold(file.filename, file.take)
        self.places = [(file.filename, file.skip + number) for file in files for number in range(file.take)]
        self._split, self._paths = split, paths

    def __getitem__(self, index: int) -> list[list[Any]]:
        """The features' values as they are stored; raises nearly anything if the record is damaged.

        TFDS's own decoding is not used: it looks at all features of a record, and for some it needs TensorFlow.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        found = tf_example_pb2.Example.FromString(self._records[index]).features.feature
        return [_stored(found, path) for path in self._paths]

    def numbered_places(self) -> Iterator[tuple[int, tuple[str, int]]]:
        """(index, place) of each record, with a bar on the terminal where there are many."""
        quiet = len(self.places) <= _PROGRESS_FROM
        return enumerate(counting(len(self.places), f"reading {self._split}", "record", quiet, self.places))


@functools.lru_cache(maxsize=16)
def records(folder: str, split: str, paths: tuple[str, ...]) -> Records:
    """The records of a split of the data set prepared in a folder, of each the features at `paths`, in that order.

    Raises:
      UserError: no such split, other files than array_record, one that is missing, or more records than fit in one.
    """
    return Records(folder, split, paths)


def _stored(features: Mapping[str, Any], path: str) -> list[Any]:
    """The values of one feature, in the order of all sequences that it stands in."""
    key = path if path in features else f"{path}/ragged_flat_values"  # the second in sequences of sequences
    if key not in features:
        raise ValueError(f"it has no feature {path!r}")
    kind = features[key].WhichOneof("kind")
    return list(getattr(features[key], kind).value) if kind else []


def _refuse_what_cannot_hold(path: str, count: int) -> None:
    """Before a list of all records is made: their number is only what the data set's description says."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file, but the data set's description says that there is")
    if count > (size := os.path.getsize(path)):
        raise UserError(f"{path}: {count} records cannot be in the {size} bytes of this file")


@dataclass(frozen=True, slots=True)
class ImageInRecord(EmbeddedImage):
    """The image in feature `image` of record `index` of a split of the data set prepared in `folder`."""

    folder: str
    split: str
    index: int
    image: str

    @property
    def _called(self) -> str:
        return f"{self.split}[{self.index}], feature {self.image!r}"

    def _bytes(self) -> bytes:
        try:
            ((content,),) = records(self.folder, self.split, (self.image,))[self.index]
        except Exception as error:  # the library raises nearly anything for a damaged file
            raise BadImage(UNREADABLE, f"{self._called}: the record cannot be read ({reason(error)})") from error
        if not isinstance(content, bytes):
            raise BadImage(UNREADABLE, f"{self._called}: the record holds a number, no image")
        if len(content) > MAX_BYTES:
            raise BadImage(TOO_LARGE, f"{self._called}: {len(content)} bytes are more than the {MAX_BYTES} allowed")
        return content
