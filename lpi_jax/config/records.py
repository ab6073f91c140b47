"""What a run's config.json says: its configuration, also of an older version, and what of it makes its numbers."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax.config.table import OPTIONS, RENAMED, REVALUED, is_read, option
from lpi_jax.errors import UserError
from lpi_jax.options import flat

Record = Mapping[str, Any]  # config.json: "config", hashes of what the run was made from, "environment"


def configuration(record: Record, path: str | Path) -> ConfigDict:
    """The configuration that a run recorded, with all of today's keys.

    A key that is not there is newer than the run, which did what the key's default says.

    Args:
      record: the parsed config.json. path: where it lies, for messages.

    Returns:
      The configuration, locked and checked.

    Raises:
      UserError: a key of another version, or values that no run could have used.
    """
    values = {RENAMED.get(key, key): _now(key, value) for key, value in flat(record["config"]).items()}
    tree = configs.intended().to_dict()
    tree["train"]["optimizer_args"] = {}
    if not _on_cpu(record):  # before there was the key, products were as fast as the device could make them
        tree["matmul_precision"] = "default"
    for key, value in values.items():
        known = option(key)
        if known is None:
            raise UserError(f"{path}: there is no key {key!r}; expected a run of this version or an older one")
        *parents, name = key.split(".")
        section = tree
        for part in parents:
            section = section.setdefault(part, {})
        section[name] = tuple(value) if isinstance(known.default, tuple) and isinstance(value, list) else value
    config = ConfigDict(tree)
    try:
        configs.check(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    config.lock()
    config.train.optimizer_args.unlock()
    return config


def _now(key: str, value: Any) -> Any:
    """What a value of an older version is called today."""
    return REVALUED[key].get(value, value) if key in REVALUED else value


def _on_cpu(record: Record) -> bool:
    devices = record["environment"].get("devices") if isinstance(record.get("environment"), Mapping) else None
    return not isinstance(devices, list) or all(str(device).lower() == "cpu" for device in devices)


def telling(record: Record, path: str | Path) -> dict[str, Any]:
    """What of a run's configuration its numbers follow from: dotted keys with their values.

    Left out are keys that change no number, places, and what the run did not read; where a hash tells the content of a
    file, it stands for the file's name.

    Args, Raises: as `configuration`.
    """
    values = flat(configuration(record, path))
    read = {key: _compared(key, value) for key, value in values.items() if is_read(key, values)}
    hashed = {key: record.get(option(key).content) or value for key, value in read.items() if option(key).content}
    return {key: hashed.get(key, value) for key, value in read.items() if option(key).kind == "numbers"}


def differences(there: Record, here: Record, path: str | Path) -> dict[str, tuple[Any, Any]]:
    """What of two records changes a run's numbers: dotted name -> its value there and here.

    Args:
      there: the older record. here: the newer. path: where the older lies, for messages.

    Raises: as `configuration`.
    """
    hashes = {key for key in {*there, *here} - {"started"} if isinstance(there.get(key, here.get(key)), str)}
    of_both = {name for name in hashes if name in there and name in here}
    one, other = (flat(configuration(record, path)) for record in (there, here))
    found = {}
    for key in sorted({*one, *other}):
        known = option(key)
        if known.kind == "speed" or known.content in of_both or not (is_read(key, one) or is_read(key, other)):
            continue
        values = one.get(key, "missing"), other.get(key, "missing")
        if _compared(key, values[0]) != _compared(key, values[1]):
            found[f"config.{key}"] = values
    return found | {name: (there[name], here[name]) for name in sorted(of_both) if there[name] != here[name]}


def fingerprint(record: Record) -> str:
    """sha256 (hexadecimal) of what a run was made from: its configuration and the hashes."""
    hashes = {key: value for key, value in record.items() if isinstance(value, str) and key != "started"}
    made_from = {"config": record["config"], **hashes}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _compared(key: str, value: Any) -> Any:
    """What counts of a value."""
    known = option(key)
    if known.kind == "place" and not known.content:
        return bool(value)
    if key == "data.streams":
        return [_of_stream(part) for part in value]
    return value


def _of_stream(part: Any) -> Any:
    """What counts of the keys of one of several streams: their places' contents are in the hash of the whole."""
    if not isinstance(part, Mapping):
        return part
    return {
        name: value
        for name, value in flat(part).items()
        if (known := OPTIONS.get(f"data.{name}")) is None or known.kind == "numbers"
    }
