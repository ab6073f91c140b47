"""Several streams one after the other: each a dictionary of config.data's keys, which inherits what it does not set."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpi_jax.errors import UserError
from lpi_jax.options import option

# What a stream does not take over from config.data.
NOT_INHERITED = {"path": "", "task_order": (), "order_seed": -1, "shots": 0}


@dataclass(frozen=True)
class Options:
    """The streams, and the order of their tasks."""

    streams: tuple[Mapping[str, Any], ...] = option((), "a dictionary of these keys for each stream")
    task_order: tuple[str, ...] = option((), "names of the tasks; (): the stream's own order")


def parts(
    settings: Mapping[str, Any], sources: Mapping[str, Sequence[str]], key: str = "config.data.streams"
) -> dict[str, dict[str, Any]]:
    """The settings of each stream, by what the stream is called.

    Args:
      settings: the keys of `config.data`.
      sources: the names that a stream may have, each with the fields that it reads.
      key: where they are set, for messages.

    Raises:
      UserError: no streams, or one that is no dictionary of these keys with values of the usual kinds.
    """
    if not settings["streams"]:
        raise UserError(f"{key} is empty, expected one dictionary of config.data's keys for each stream")
    of_streams: dict[str, dict[str, Any]] = {}
    # The same source may come twice ("jsonl", "jsonl 2"): tasks of equal names are told apart by it.
    times: Counter[str] = Counter()
    for number, part in enumerate(settings["streams"]):
        given = _checked(f"{key}[{number}]", part, settings, sources)
        name = given["name"]
        times[name] += 1
        of_streams[name if times[name] == 1 else f"{name} {times[name]}"] = {**settings, **NOT_INHERITED, **given}
    return of_streams


def refuse_unread_fields(
    where: str, name: str, fields: Mapping[str, str], sources: Mapping[str, Sequence[str]]
) -> None:
    """Refuses what would be ignored without a word.

    Args:
      where: the settings, for messages.
      name: their source; one that does not exist is not refused here.
      fields: names of columns or features as they are set.
      sources: as for `parts`.
    """
    for key, value in fields.items():
        if value and key not in sources.get(name, fields):
            read = f"fields.{', fields.'.join(sources[name])}" if sources[name] else "none of the fields"
            raise UserError(f"{where}: fields.{key} is {value!r}, but the source {name!r} reads {read}")


def _checked(
    where: str, part: Any, settings: Mapping[str, Any], sources: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """One of the streams' own settings, each a key of `config.data` with a value of the usual kind."""
    if not isinstance(part, Mapping) or not isinstance(part.get("name"), str) or part["name"] not in sources:
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
    refuse_unread_fields(where, part["name"], fields, sources)
    return {**part, "fields": {**settings["fields"], **fields}}
