"""The configuration of a run: the presets, and what a configuration must be for a run to use it.

A config file builds one of the presets and changes what its experiment needs; what each key means stands in
`lpi_jax.config.table`. The tree is locked: only `run` functions unpack it; everything below takes plain arguments.
"""

import copy
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.config.table import FREE, OF_ALL_STREAMS, OPTIONS, RENAMED, is_read, of_stream, option
from lpi_jax.errors import UserError
from lpi_jax.methods.registry import METHODS
from lpi_jax.options import chosen, flat
from lpi_jax.train import optimizer

DEFAULT = OPTIONS["method.name"].default  # the method of the presets unless another is named
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a tuple"}


def intended() -> ConfigDict:
    """LPI as the method is meant: every prompt layer enters the towers, losses that give gradient, clean evaluation."""
    tree: dict[str, Any] = {}
    for key, known in OPTIONS.items():
        *path, name = key.split(".")
        section = tree
        for part in path:
            section = section.setdefault(part, {})
        section[name] = copy.copy(known.default)
    config = ConfigDict(tree)
    config.lock()
    config.train.optimizer_args.unlock()
    return config


def changed_by(name: str, method: str = DEFAULT) -> dict[str, Any]:
    """What a preset changes of `intended`, by dotted key: as the method declares it."""
    return METHODS[method].PRESETS[name]


def released() -> ConfigDict:
    """LPI as the authors' release computes it, without the defects that make it crash."""
    config = intended()
    config.preset = "released"
    config.update_from_flattened_dict(changed_by("released"))
    return config


def anchored() -> ConfigDict:
    """LPI at its best: prompts that begin at the frozen model, and scores that are comparable between tasks."""
    config = intended()
    config.preset = "anchored"
    config.train.optimizer_args = {}
    config.update_from_flattened_dict(changed_by("anchored"))
    return config


def for_tiny_backbone(config: ConfigDict) -> None:
    """Sizes a preset for the bundled backbone: four layers a tower, eight prompts a layer."""
    config.method.length = 8
    config.method.layers = 4
    config.method.depth = min(config.method.depth, 4)


def for_scenes(config: ConfigDict) -> None:
    """The stream of twelve drawn domains, in batches that suit its short tasks: the same for every method compared."""
    config.data.name = "scenes"
    config.data.train, config.data.val = 150, 50
    # Left and right mean something here, and nothing may be cut off.
    config.data.flip = False
    config.data.crop_scale = (0.8, 1.0)
    config.train.batch, config.train.epochs = 32, 5


def for_any_backbone(config: ConfigDict) -> None:
    """Lets the backbone decide how many prompts a layer and how many layers of them; CLIP ViT-B/16 takes 16 and 9."""
    config.method.length = config.method.layers = 0
    if config.method.depth > 1:
        config.method.depth = 0


PRESETS = {"anchored": anchored, "intended": intended, "released": released}


def preset(name: str, method: str = DEFAULT) -> ConfigDict:
    """A preset of a method that has presets of its own, by name. Raises UserError for another name."""
    names = PRESETS if method == DEFAULT else METHODS[method].PRESETS
    if name not in names:
        raise UserError(f"preset is {name!r}, expected one of {', '.join(names)}")
    if method == DEFAULT:
        return PRESETS[name]()
    config = intended()
    config.preset, config.method.name = name, method
    config.train.optimizer_args = {}
    config.update_from_flattened_dict(changed_by(name, method))
    return config


def _usual(config: ConfigDict) -> ConfigDict:
    """The preset that a configuration was made from; of a method without presets of its own, the default's."""
    name, method = config.get("preset"), flat(config).get("method.name")  # which a configuration of one's own may lack
    if method != DEFAULT and name in getattr(METHODS.get(method), "PRESETS", {}):
        return preset(name, method)
    return PRESETS.get(name, intended)()


# ---- the check -------------------------------------------------------------------------------------------------------


def check(config: ConfigDict, given: Iterable[str] = ()) -> None:
    """Refuses values that no run could use, and keys that were set for nothing.

    In a configuration alone nobody can tell what was set on purpose from what a preset or a file brought along, so that
    keys which the chosen method, source or setting does not read are refused only where they are named in `given`.

    Args:
      config: the configuration.
      given: dotted keys that were set on purpose, as by a flag; what equals its preset's value is no mistake.

    Raises:
      UserError: naming the key.
    """
    values, known = flat(config), flat(intended())
    for key in values:
        if key not in known and option(key) is None:
            raise unknown_key(key, known)
    for key, usual in known.items():
        if not key.startswith(f"{FREE}."):
            _check_value(key, usual, values)
    chosen(METHODS[config.method.name].Options, config.method)  # which checks what belongs together
    chosen(optimizer.Options, config.train)
    scale = config.data.crop_scale
    if len(scale) != 2 or not all(isinstance(s, int | float) for s in scale) or not 0 < scale[0] <= scale[1] <= 1:
        raise UserError(f"config.data.crop_scale is {scale}, expected two numbers, 0 < smallest <= largest <= 1")
    for key in idle(config, given):
        raise UserError(
            f"config.{key} is {_value(config, key)!r}, but nothing reads it in this configuration: it is read"
            f" {option(key).reader.words}"
        )
    if "data.streams" in given and config.data.name == "multi":
        _refuse_idle_of_streams(values)


def changed(config: ConfigDict) -> list[str]:
    """The dotted keys that are not as in the preset that the configuration was made from; also what was taken out."""
    usual, values = flat(_usual(config)), flat(config)
    return [key for key in {**usual, **values} if usual.get(key, KeyError) != values.get(key, KeyError)]


def idle(config: ConfigDict, keys: Iterable[str]) -> list[str]:
    """Those of the dotted keys that differ from their preset and that no run of this configuration reads."""
    values, different = flat(config), changed(config)
    if not {key for key in OPTIONS if key != FREE} <= values.keys():
        return []  # the check names what is missing
    keys = [key for key in keys if key in different or any(other.startswith(f"{key}.") for other in different)]
    return [key for key in keys if option(key) and not is_read(key, values)]


def _refuse_idle_of_streams(values: dict[str, Any]) -> None:
    """The same for the keys of each of several streams, which are all set on purpose."""
    for number, part in enumerate(values["data.streams"]):
        whole = of_stream(part, values) if isinstance(part, Mapping) else {}
        for name, value in flat(part).items() if whole else ():
            key = f"data.{name}"
            known, where = option(key), f"config.data.streams[{number}]: {name} is {value!r}, but"
            # What does not exist is the source's to refuse.
            if known and value != known.default and not is_read(key, whole):
                raise UserError(f"{where} nothing reads it: it is read {known.reader.words}")
            if name in OF_ALL_STREAMS:
                raise UserError(f"{where} is read of config.data alone, for all streams: use --config.{key}={value}")


def _value(config: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part)
    return config.to_dict() if isinstance(config, ConfigDict) else config


def _check_value(key: str, usual: Any, values: dict[str, Any]) -> None:
    """One value is there, of the kind of `usual`, and within its bounds."""
    if key not in values:
        raise UserError(f"config.{key} is missing, expected {KINDS[type(usual)]} such as {usual!r}")
    value, known = values[key], OPTIONS[key]
    allowed = {float: (float, int), tuple: (tuple, list)}.get(type(usual), type(usual))
    if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(usual, bool):
        raise UserError(f"config.{key} is {value!r}, expected {KINDS[type(usual)]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"config.{key} is {value!r}, expected a finite number")
    if known.choices and value not in known.choices:
        few = len(known.choices) <= 4
        raise UserError(
            f"config.{key} is {value!r}, expected"
            f" {' or '.join(map(repr, known.choices)) if few else 'one of ' + ', '.join(known.choices)}"
        )
    if known.least is not None and value < known.least:
        raise UserError(f"config.{key} is {value!r}, expected at least {known.least}")
    if known.most is not None and value > known.most:
        raise UserError(f"config.{key} is {value!r}, expected at most {known.most}")


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """The error for a dotted key that does not exist; it names the one it became, or the closest that does."""
    if key in RENAMED:
        return UserError(f"config.{key} is called config.{RENAMED[key]} now; use --config.{RENAMED[key]}=...")
    return UserError(f"config has no key {key!r}; the closest is {closest(key, known)!r}")


def closest(name: str, known: Iterable[str]) -> str:
    """The dotted name most like `name`; one with the same last part before any other."""
    known = list(known)
    same_end = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    return difflib.get_close_matches(name, same_end or known, 1, 0.0)[0]
