"""Paths as people write them: `~` is the home folder, and what lies on another machine has to be fetched first."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.errors import UserError

# The keys of a configuration that name files or folders (some of them may hold another word or a hub id instead).
DATA_KEYS = ("path", "manifest", "cache_dir", "val_list")
KEYS = ("reuse", "backbone", "tokenizer", "compilation_cache", "loss.similarity", *(f"data.{key}" for key in DATA_KEYS))


def local(path: str | os.PathLike[str], name: str) -> Path:
    """A path on this machine, `~` and `~user` replaced by the home folders.

    Args:
      path: as the user gave it. name: of the flag, key or argument, for the message.

    Raises:
      UserError: it is a URL, or nothing that could be a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{name} is a {type(path).__name__}, expected a path")
    text = os.fspath(path)
    # pathlib makes "gs:/bucket" of "gs://bucket". A drive of Windows has one letter.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise UserError(f"{name} is {text}, a URL; expected a path on this machine: copy it here, or mount it, first")
    if "\0" in text:
        raise UserError(f"{name} is {text!r}, expected a path, which holds no NUL")
    return Path(os.path.expanduser(text))


def in_config(config: ConfigDict) -> ConfigDict:
    """A copy of a configuration, its paths as `local` makes them. Raises UserError as that does, naming the key."""
    config = ConfigDict(config)
    with config.unlocked():
        changed = {key: _local(config, key) for key in KEYS}
        config.update_from_flattened_dict(changed)
        config.data.streams = tuple(
            _in_part(part, f"config.data.streams[{number}]") for number, part in enumerate(config.data.streams)
        )
    return config
