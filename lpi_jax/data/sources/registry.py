"""From the settings of a run's data to its stream. The one place that knows the sources by name."""

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from lpi_jax.data import arrange
from lpi_jax.data.cache import cached
from lpi_jax.data.scenes.source import DOMAINS, scenes
from lpi_jax.data.sources.coco import coco
from lpi_jax.data.sources.folder import folder
from lpi_jax.data.sources.huggingface import huggingface
from lpi_jax.data.sources.jsonl import jsonl
from lpi_jax.data.sources.karpathy import flickr30k
from lpi_jax.data.sources.table import table
from lpi_jax.data.sources.tfds import tfds
from lpi_jax.data.sources.webdataset import webdataset
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError

Settings = Mapping[str, Any]  # the keys of `config.data`


def stream(settings: Settings, image_size: int) -> Stream:
    """The stream that the settings describe, its pictures from the cache if there is one.

    Args:
      settings: `config.data` with all its keys (see `lpi_jax.config`).
      image_size: side of the backbone's input, pixels; pictures that are drawn are drawn at that size.

    Raises:
      UserError: settings that fit no source, and whatever the source refuses.
    """
    if settings["name"] != "multi":
        _refuse_unread_fields("config.data", settings["name"], settings["fields"])
    found = _arranged(settings, image_size)
    if not settings["cache_dir"]:
        return found
    check_cache(settings, image_size)
    return cached(found, settings["cache_dir"], settings["cache_side"])


def check_cache(settings: Settings, image_size: int) -> None:
    """Raises UserError if there is a cache whose pictures are smaller than the backbone's."""
    if settings["cache_dir"] and settings["cache_side"] < image_size:
        raise UserError(
            f"config.data.cache_side is {settings['cache_side']}, expected at least {image_size}, the side of the"
            f" backbone's pictures; use --config.data.cache_side={image_size}"
        )


def _arranged(settings: Settings, image_size: int) -> Stream:
    """The named source, its tasks shuffled and its training pictures thinned out if the settings say so."""
    name = settings["name"]
    if name not in SOURCES:
        raise UserError(f"config.data.name is {name!r}, expected one of {', '.join(SOURCES)}")
    if name in WHERE and not settings["path"]:
        raise UserError(f"config.data.path is empty, expected {WHERE[name]}")
    for key in ("task_order", "domains"):
        if not all(isinstance(one, str) for one in settings[key]):
            raise UserError(f"config.data.{key} is {settings[key]!r}, expected names")
    found = SOURCES[name](settings, image_size)
    if settings["order_seed"] >= 0:
        found = arrange.shuffled(found, settings["order_seed"])
    return arrange.shots(found, settings["shots"], settings["seed"]) if settings["shots"] else found


def _scenes(settings: Settings, image_size: int) -> Stream:
    domains = tuple(settings["domains"]) or DOMAINS
    found = scenes(domains, settings["seed"], settings["train"], settings["val"], image_size)
    return arrange.ordered(found, settings["task_order"]) if settings["task_order"] else found


def _jsonl(settings: Settings, image_size: int) -> Stream:
    return jsonl(settings["path"], **_common(settings))


def _folder(settings: Settings, image_size: int) -> Stream:
    chosen = {key: settings[key] for key in ("val_list", "val_share", "seed", "evaluate")}
    return folder(settings["path"], **chosen, **_common(settings))


def _coco(settings: Settings, image_size: int) -> Stream:
    chosen = {key: settings[key] for key in ("rule", "manifest", "split", "evaluate")}
    return coco(settings["path"], **chosen, **_common(settings))


def _flickr30k(settings: Settings, image_size: int) -> Stream:
    chosen = {key: settings[key] for key in ("manifest", "evaluate")}
    return flickr30k(settings["path"], **chosen, **_common(settings))


def _tfds(settings: Settings, image_size: int) -> Stream:
    if not settings["builder"]:
        raise UserError("config.data.builder is empty, expected a TFDS data set such as 'coco_captions/2014'")
    fields = _fields(settings)
    return tfds(settings["builder"], data_dir=settings["path"], **fields, **_common(settings))


def _webdataset(settings: Settings, image_size: int) -> Stream:
    return webdataset(settings["path"], **_common(settings))


def _table(settings: Settings, image_size: int) -> Stream:
    return table(settings["path"], separator=settings["separator"], **_fields(settings), **_common(settings))


def _huggingface(settings: Settings, image_size: int) -> Stream:
    chosen = {key: settings[key] for key in ("val_share", "seed", "evaluate")}
    return huggingface(settings["path"], **chosen, **_fields(settings), **_common(settings))


def _multi(settings: Settings, image_size: int) -> Stream:
    """The streams of `config.data.streams` one after the other; what one does not set is as in `config.data`."""
    parts = settings["streams"]
    if not parts:
        raise UserError("config.data.streams is empty, expected one dictionary of config.data's keys for each stream")
    inherited = {**settings, "path": "", "task_order": (), "order_seed": -1, "shots": 0}
    whole = [{**inherited, **_checked_part(number, part, settings)} for number, part in enumerate(parts)]
    # The same source may come twice ("jsonl", "jsonl 2"): tasks of equal names are told apart by it.
    seen: Counter[str] = Counter()
    names = []
    for part in whole:
        seen[part["name"]] += 1
        names.append(part["name"] if seen[part["name"]] == 1 else f"{part['name']} {seen[part['name']]}")
    found = arrange.combined([_arranged(part, image_size) for part in whole], names)
    return arrange.ordered(found, settings["task_order"]) if settings["task_order"] else found


def _checked_part(number: int, part: Any, settings: Settings) -> dict[str, Any]:
    """One of the streams' own settings, each a key of `config.data` with a value of the usual kind."""
    where = f"config.data.streams[{number}]"
    sources = [name for name in SOURCES if name != "multi"]
    if not isinstance(part, Mapping) or part.get("name") not in sources:
        raise UserError(f"{where} is {part!r}, expected a dictionary whose 'name' is one of {', '.join(sources)}")
    for key, value in part.items():
        if key not in settings:
            near = difflib.get_close_matches(str(key), settings, 1, 0.0)[0]
            raise UserError(f"{where} has the key {key!r}, which config.data has not; the closest is {near!r}")
        usual = settings[key]
        kinds = (
            (tuple, list) if isinstance(usual, tuple | list) else Mapping if isinstance(usual, Mapping) else type(usual)
        )
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(usual, bool):
            raise UserError(f"{where}: {key} is {value!r}, expected something like {usual!r}")
    fields = part.get("fields", {})
    for key, value in fields.items():
        if key not in settings["fields"]:
            near = difflib.get_close_matches(str(key), settings["fields"], 1, 0.0)[0]
            raise UserError(f"{where}: fields has no key {key!r}; the closest is {near!r}")
        if not isinstance(value, str):
            raise UserError(f"{where}: fields.{key} is {value!r}, expected text")
    _refuse_unread_fields(where, part["name"], fields)
    return {**part, "fields": {**settings["fields"], **fields}}


def _refuse_unread_fields(where: str, name: str, fields: Mapping[str, str]) -> None:
    """Refuses what would be ignored without a word."""
    for key, value in fields.items():
        if value and name in SOURCES and key not in FIELDS.get(name, ()):
            read = f"fields.{', fields.'.join(FIELDS[name])}" if name in FIELDS else "none of the fields"
            raise UserError(f"{where}: fields.{key} is {value!r}, but the source {name!r} reads {read}")


def _common(settings: Settings) -> dict[str, Any]:
    """What every source of files takes."""
    return {
        "task_order": tuple(settings["task_order"]),
        "on_bad_example": settings["on_bad_example"],
        "max_pixels": settings["max_pixels"],
    }


def _fields(settings: Settings) -> dict[str, str]:
    """The names of columns or features that are set; the source has its own for the others."""
    return {name: settings["fields"][name] for name in FIELDS[settings["name"]] if settings["fields"][name]}


SOURCES: dict[str, Callable[[Settings, int], Stream]] = {
    "scenes": _scenes,
    "folder": _folder,
    "jsonl": _jsonl,
    "coco": _coco,
    "flickr30k": _flickr30k,
    "tfds": _tfds,
    "webdataset": _webdataset,
    "table": _table,
    "huggingface": _huggingface,
    "multi": _multi,
}
FIELDS = {
    "tfds": ("image", "caption", "task", "train", "val"),
    "table": ("image", "caption", "task", "split", "time", "description"),
    "huggingface": ("image", "caption", "task", "split", "time", "description"),
}
WHERE = {
    "folder": "a folder of images",
    "jsonl": "the path of a JSON Lines file",
    "coco": "the folder of COCO 2014, or TFDS's data_dir",
    "flickr30k": "the folder of Flickr30k",
    "webdataset": "a folder of tar shards",
    "huggingface": "a folder that save_to_disk of Hugging Face datasets wrote",
    "table": "the path of a CSV or Parquet table, or of a folder of Parquet files",
}
