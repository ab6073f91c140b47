"""How an option is declared: a field of a frozen dataclass, in the file of the method, source or problem that reads it.

    @dataclass(frozen=True)
    class Options:
        rank: int = option(4, "of the factorised prompts", least=1)

`lpi_jax.config.table` gathers all of them; presets, `--help`, the check of a configuration, resume and the report
follow from there. A key's kind is
  numbers  it changes results: a run with another value is another run;
  speed    it does not: how fast, on how many devices, how often something is written;
  place    it says where something lies: what counts is the content, or whether there is any.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

Values = Mapping[str, Any]  # dotted key -> value; also the facts of the chosen method, such as "trains"
T = TypeVar("T")


class Reader(NamedTuple):
    """When a key is read: in words that end the sentence "it is read ...", and as a function of all values."""

    words: str
    reads: Callable[[Values], bool]


class Option(NamedTuple):
    """One key.

    Attributes:
      default: its value in the preset `intended`; every value has its type.
      meaning: in words.
      kind: numbers | speed | place.
      choices: all values that it may have; (): any.
      least, most: bounds of a number, included; None: none.
      reader: when it is read; None: always.
      content: the hash in a run's config.json that tells what lies there, so that the key itself is not compared. Of a
        place without one counts whether it is set.
    """

    default: Any
    meaning: str
    kind: str = "numbers"
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    reader: Reader | None = None
    content: str = ""


def option(default: Any, meaning: str, **described: Any) -> Any:
    """A field of a dataclass of options; `described`: the other attributes of `Option`."""
    known = Option(default, meaning, **described)
    given = {"default_factory": lambda: dict(default)} if isinstance(default, Mapping) else {"default": default}
    return dataclasses.field(**given, metadata={"option": known})


def section(options: type) -> Any:
    """A field of a dataclass of options that is a section of its own, with what another dataclass declares."""
    return dataclasses.field(default_factory=options, metadata={"section": options})


def declared(options: type, section: str) -> dict[str, Option]:
    """What a dataclass declares, by dotted key; section: "" for keys without one."""
    known: dict[str, Option] = {}
    for field in dataclasses.fields(options):
        key = f"{section}.{field.name}" if section else field.name
        if "option" in field.metadata:
            known[key] = field.metadata["option"]
        elif "section" in field.metadata:
            known |= declared(field.metadata["section"], key)
    return known


def chosen(options: type[T], section: Mapping[str, Any] | ConfigDict) -> T:
    """An instance of a dataclass of options from a section that has its keys, and maybe others.

    Raises:
      UserError: from the dataclass's own `__post_init__`, where values do not fit together.
    """

    def plain(field: dataclasses.Field) -> Any:
        value = section[field.name]
        if "section" in field.metadata:
            return chosen(field.metadata["section"], value)
        value = value.to_dict() if isinstance(value, ConfigDict) else value
        return tuple(value) if isinstance(value, list) else value

    return options(**{field.name: plain(field) for field in dataclasses.fields(options) if field.init})


# ---- who reads -------------------------------------------------------------------------------------------------------


def with_(key: str, *values: Any) -> Reader:
    """Read where the key has one of these values."""
    return Reader(f"with config.{key}={' or '.join(map(str, values))}", lambda v: v[key] in values)


def with_any(key: str) -> Reader:
    """Read where the key is set to something."""
    return Reader(f"with config.{key}", lambda v: bool(v[key]))


def without(key: str) -> Reader:
    """Read where the key is not set."""
    return Reader(f"without config.{key}", lambda v: not v[key])


def both(one: Reader | None, other: Reader | None) -> Reader | None:
    """Read where both are; None is always."""
    if one is None or other is None:
        return one or other
    joint = "" if other.words.startswith("without ") else "and "
    words = f"{one.words} {joint}{other.words.removeprefix('with ')}"
    return Reader(words, lambda v: one.reads(v) and other.reads(v))


def either(one: Reader, other: Reader) -> Reader:
    """Read where one of two is."""
    return Reader(f"{one.words}, or {other.words}", lambda v: one.reads(v) or other.reads(v))


TRAINING = Reader(
    "by training (a config.method.name that trains, without config.reuse)", lambda v: v["trains"] and not v["reuse"]
)
SENT = Reader("with a config.method.name that sends items to tasks", lambda v: v["routes"])
ROUTING = Reader("with a config.method.name that routes by a rule", lambda v: v["routes"] and not v["own_rule"])
ROUTING_PROMPTS = Reader(
    "with a config.method.name that trains and routes by a rule",
    lambda v: v["trains"] and v["routes"] and not v["own_rule"],
)
OTHER_BACKBONE = Reader("with another config.backbone than bundled", lambda v: v["backbone"] != "bundled")


def flat(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of nested sections with its value."""
    values = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping | ConfigDict)
        values |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return values
