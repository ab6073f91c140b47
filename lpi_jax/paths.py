"""Paths as people write them: `~` is the home folder, and what lies on another machine has to be fetched first."""

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.errors import UserError

# Keys of a configuration that name a file or folder (some may hold a word or a hub id instead).
DATA_KEYS = ("path", "manifest", "cache_dir", "val_list")
KEYS = (
    "reuse",
    "backbone",
    "tokenizer",
    "compilation_cache",
    "method.similarity",
    *(f"data.{key}" for key in DATA_KEYS),
)


def local(path: str | os.PathLike[str], name: str) -> Path:
    """The path on this machine that a user means.

    Args:
      path: as it was given.
      name: of the flag or argument, for the message.

    Raises:
      UserError: it is a URL, or nothing that could be a path.
    """
    return Path(expanded(path, name))


def expanded(path: str | os.PathLike[str], name: str) -> str:
    """The same as `local`, in the user's own words but for `~` and `~somebody` in front."""
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str):
        raise UserError(f"{name} is a {type(path).__name__}, expected a path")
    # Of "gs://bucket" pathlib makes "gs:/bucket"; what has one letter in front is a drive of Windows.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise UserError(f"{name} is {text}, a URL; expected a path on this machine: fetch or mount what is there first")
    if "\0" in text:
        raise UserError(f"{name} is {text!r}, expected a path, which holds no NUL")
    whole = os.path.expanduser(text)
    if whole.startswith("~") and not os.path.exists(whole):
        somebody = whole.partition("/")[0]
        raise UserError(f"{name} is {text}, but {somebody} is nobody's home folder here; expected a path")
    return whole


def in_config(config: ConfigDict) -> ConfigDict:
    """A copy of a checked configuration with its paths `expanded`. Raises UserError, naming the key, as that does."""
    config = copy.deepcopy(config)
    for key in KEYS:
        group, _, last = key.rpartition(".")
        section = config[group] if group else config
        section[last] = expanded(section[last], f"config.{key}")
    config.data.streams = tuple(
        _in_part(part, f"config.data.streams[{number}]") for number, part in enumerate(config.data.streams)
    )
    return config


def _in_part(part: Any, name: str) -> Any:
    """One of several streams; whatever is no such dictionary is left to those who read it."""
    if not isinstance(part, Mapping):
        return part
    return {
        key: expanded(value, f"{name}.{key}") if key in DATA_KEYS and isinstance(value, str) else value
        for key, value in part.items()
    }
