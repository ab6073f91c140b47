"""From the settings of a run's data to its stream. The one place that knows the sources by name.

A new source is one file with its `Options` and a function from them to a `Stream`, and a line in `SOURCES`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from lpi_jax import options
from lpi_jax.data import arrange, cache, transforms
from lpi_jax.data.questions import source as questions
from lpi_jax.data.scenes import source as scenes
from lpi_jax.data.sources import (
    coco,
    coin,
    folder,
    huggingface,
    instructions,
    jsonl,
    karpathy,
    multi,
    table,
    tfds,
    ucit,
    webdataset,
)
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.options import Option, Reader

Settings = Mapping[str, Any]  # the keys of `config.data`
CAPTIONS, INSTRUCTIONS = "captions", "instructions"


class Source(NamedTuple):
    """One source.

    Attributes:
      options: the dataclass of what it reads.
      build: an instance of them -> the stream.
      path: what config.data.path is; "": it may be empty, or is not read.
      said: what is said of its images.
    """

    options: type
    build: Callable[[Any], Stream]
    path: str = ""
    said: str = CAPTIONS


SOURCES: dict[str, Source] = {
    "scenes": Source(scenes.Options, scenes.build),
    "jsonl": Source(jsonl.Options, jsonl.jsonl, "the path of a JSON Lines file"),
    "coco": Source(coco.Options, coco.coco, "the folder of COCO 2014, or TFDS's data_dir"),
    "flickr30k": Source(karpathy.Options, karpathy.flickr30k, "the folder of Flickr30k"),
    "tfds": Source(tfds.Options, tfds.tfds),
    "webdataset": Source(webdataset.Options, webdataset.webdataset, "a folder of tar shards"),
    "table": Source(table.Options, table.table, "the path of a CSV or Parquet table, or of a folder of Parquet files"),
    "folder": Source(folder.Options, folder.folder, "a folder of images"),
    "huggingface": Source(
        huggingface.Options, huggingface.huggingface, "a folder that save_to_disk of Hugging Face datasets wrote"
    ),
    "instructions": Source(
        instructions.Options,
        instructions.instructions,
        "the path of a JSON or JSON Lines file of conversations",
        INSTRUCTIONS,
    ),
    "coin": Source(coin.Options, coin.coin, "the folder of CoIN's instructions", INSTRUCTIONS),
    "ucit": Source(ucit.Options, ucit.ucit, "the folder of UCIT's instructions", INSTRUCTIONS),
    "questions": Source(questions.Options, questions.build, said=INSTRUCTIONS),
}
NAMES = (*SOURCES, "multi")
FIRST = ("data.path", "data.task_order")
FIELDS = {  # by source: the names of columns or features that it reads
    name: tuple(key.removeprefix("fields.") for key in options.declared(source.options, "") if "fields." in key)
    for name, source in SOURCES.items()
}


@dataclass(frozen=True)
class Options:
    """Which source."""

    name: str = options.option("scenes", "the source", choices=NAMES)


def stream(settings: Settings, image_size: int) -> Stream:
    """The stream that the settings describe, its images from the cache if there is one.

    Args:
      settings: `config.data` with all its keys (see `lpi_jax.config`).
      image_size: side of the backbone's input, pixels; images that are drawn are drawn at that size.

    Raises:
      UserError: settings that fit no source, and whatever the source refuses.
    """
    if settings["name"] != "multi":
        multi.refuse_unread_fields("config.data", settings["name"], settings["fields"], FIELDS)
    built = _arranged(settings, image_size)
    if not settings["cache_dir"]:
        return built
    check_cache(settings, image_size)
    return cache.cached(built, settings["cache_dir"], settings["cache_side"])


def refuse_others(settings: Settings, said: str, problem: str, probes: Sequence[Mapping[str, Any]] = ()) -> None:
    """Raises UserError unless all sources, of `config.eval.probes` too, say of their images what the problem asks for.

    Args:
      settings: as for `stream`. said: CAPTIONS or INSTRUCTIONS. problem: its name.
    """
    parts = {"config.data": settings}
    if settings["name"] == "multi":
        parts = {f"config.data.streams[{number}]": part for number, part in enumerate(settings["streams"])}
    parts |= {f"config.eval.probes[{number}]": part for number, part in enumerate(probes)}
    for where, part in parts.items():
        source = SOURCES.get(part.get("name")) if isinstance(part, Mapping) else None
        if source and source.said != said:
            fitting = ", ".join(name for name, other in SOURCES.items() if other.said == said)
            raise UserError(
                f"{where}: the source {part['name']!r} has {source.said}, but config.problem.name={problem} asks for"
                f" {said}; expected one of {fitting}"
            )


def check_cache(settings: Settings, image_size: int) -> None:
    """Raises UserError if there is a cache whose images are smaller than the backbone's."""
    if settings["cache_dir"] and settings["cache_side"] < image_size:
        raise UserError(
            f"config.data.cache_side is {settings['cache_side']}, expected at least {image_size}, the side of the"
            f" backbone's images; use --config.data.cache_side={image_size}"
        )


def _arranged(settings: Settings, image_size: int) -> Stream:
    """The named source, its tasks shuffled and its training images thinned out if the settings say so."""
    name = settings["name"]
    if name not in NAMES:
        raise UserError(f"config.data.name is {name!r}, expected one of {', '.join(NAMES)}")
    if name != "multi" and SOURCES[name].path and not settings["path"]:
        raise UserError(f"config.data.path is empty, expected {SOURCES[name].path}")
    if not all(isinstance(one, str) for one in settings["task_order"]):
        raise UserError(f"config.data.task_order is {settings['task_order']!r}, expected names")
    if name == "multi":
        built = _multi(settings, image_size)
    else:
        source = SOURCES[name]
        built = source.build(options.chosen(source.options, {**settings, "image_size": image_size}))
    return arrange.arranged(built, options.chosen(arrange.Options, settings))


def _multi(settings: Settings, image_size: int) -> Stream:
    """The streams of `config.data.streams` one after the other; what one does not set is as in `config.data`."""
    parts = multi.parts(settings, FIELDS)
    together = arrange.combined([_arranged(part, image_size) for part in parts.values()], list(parts))
    return arrange.ordered(together, settings["task_order"]) if settings["task_order"] else together


def probes(settings: Settings, chosen: Sequence[Mapping[str, Any]], image_size: int) -> dict[str, Stream]:
    """The streams of `config.eval.probes` by name; what one does not set is as in `config.data`."""
    if not chosen:
        return {}
    parts = multi.parts({**settings, "streams": chosen}, FIELDS, "config.eval.probes")
    return {name: _arranged(part, image_size) for name, part in parts.items()}


# ---- the keys of config.data -----------------------------------------------------------------------------------------


def declared() -> dict[str, Option]:
    """Every key of `config.data` by its dotted name, each with all that read it."""
    by_source = {name: options.declared(source.options, "data") for name, source in SOURCES.items()}
    by_source["multi"] = options.declared(multi.Options, "data")
    sections = [options.declared(section, "data") for section in (Options, cache.Options, transforms.Options)]
    general, *last = sections
    of_all = options.declared(arrange.Options, "data")
    known = dict(general)
    for key in dict.fromkeys(key for keys in (FIRST, of_all, *by_source.values()) for key in keys):
        by_name = {name: keys[key] for name, keys in by_source.items() if key in keys}
        known[key] = _together(key, by_name, of_all.get(key))
    return known | {key: option for keys in last for key, option in keys.items()}


def _together(key: str, by_name: Mapping[str, Option], of_all: Option | None) -> Option:
    """One key that sources, by their names, and maybe whatever arranges any stream declare in the same words."""
    declarations = [*by_name.values(), *([of_all] if of_all else [])]
    for other in declarations[1:]:
        if other._replace(reader=None) != declarations[0]._replace(reader=None):
            raise ValueError(f"{key} is declared as {other} and as {declarations[0]}, expected one declaration")
    reader = _reader(by_name) if by_name else of_all.reader
    if by_name and of_all:
        reader = options.either(reader, of_all.reader)
    return declarations[0]._replace(reader=reader)


def _reader(by_name: Mapping[str, Option]) -> Reader | None:
    """When a key is read that these sources declare; neighbours with the same condition are told together."""
    others = [name for name in NAMES if name not in by_name]
    if len(others) < len(by_name) and not any(option.reader for option in by_name.values()):
        words = f"with every config.data.name but {' and '.join(others)}"
        return Reader(words, lambda values: values["data.name"] in by_name) if others else None
    readers = [
        options.both(options.with_("data.name", *names), condition)
        for condition, names in groupby(by_name, key=lambda name: by_name[name].reader)
    ]
    return functools.reduce(options.either, readers)
