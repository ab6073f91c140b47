"""The words of the command line -> a configuration and the run's directory, or one sentence that says what is wrong.

The syntax is that of ml_collections' config flags, `--config=FILE[:PRESET]` and `--config.KEY=VALUE` for any key; it is
read here because there a misspelt key or a wrong value ends in a traceback.
"""

import ast
import difflib
import inspect
import re
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax import paths
from lpi_jax.config.table import OPTIONS, RENAMED, REVALUED
from lpi_jax.errors import UserError
from lpi_jax.options import Option

USAGE = """\
Learns a stream of captioned images, or of questions about images, task by task and writes what
it finds to --workdir.

  python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=DIR
  python -m lpi_jax.main --config=configs/scenes_lpi.py:released --workdir=DIR
  python -m lpi_jax.main --config=configs/questions_modalprompt.py --workdir=DIR --config.backbone=L
  ... --config.task_id=oracle --config.train.lr=0.1 --config.data.domains=fax,comic

  --config=FILE[:PRESET]  configuration file, and its preset: intended (the method done
                          right, the default) or released (what its authors' code computes)
  --config.KEY=VALUE      changes one key of it; several are allowed
  --workdir=DIR           the run's directory: new, empty, or of the same run
  --dry-run               tells tasks, steps, memory and time, and writes nothing there
  --help                  shows this text

The same command again goes on where it was interrupted. A finished run only prints its table.
Exit status: 0; 2 for a mistake in the command line or the data; 130 after Ctrl-C, 143 after
SIGTERM.

A key that is given but that the chosen method or source does not read is a mistake. Below are the
keys of a run with their values in the preset `intended`. Kind of a key: numbers, it
changes results; speed, it does not; place, only the content of what lies there counts. Where a run
goes on, keys of kind `numbers` must be as they were.

"""


def usage() -> str:
    """The text of --help."""
    lines = []
    for key, known in OPTIONS.items():
        lines += [_cut(f"  {name} = {value!r}") for name, value in configs.flat({key: known.default}).items()]
        lines += textwrap.wrap(_described(known), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return USAGE + "\n".join(lines)


def _cut(line: str) -> str:
    return line if len(line) <= 100 else f"{line[:97]}..."


def _described(known: Option) -> str:
    """Meaning, choices, bounds, reader and kind."""
    bounds = [f"at least {known.least}"] if known.least is not None else []
    bounds += [f"at most {known.most}"] if known.most is not None else []
    parts = [known.meaning, " | ".join(map(repr, known.choices)), ", ".join(bounds)]
    parts += [f"read {known.reader.words}"] if known.reader else []
    return "; ".join(part for part in [*parts, known.kind] if part)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the arguments."""
    return any(argument in ("--help", "-help", "-h") for argument in arguments)


def parse(arguments: Sequence[str], flag: str = "workdir", path: bool = True) -> tuple[ConfigDict, str]:
    """The configuration, checked, and what the command's own flag says: mostly the directory to write to.

    Args:
      arguments: as in sys.argv, without the program's name.
      flag: the command's own. path: whether it names a directory.

    Raises:
      UserError: anything that is not a flag, a key or a value of it.
    """
    flags = ("config", flag, "help")
    given = list(_flags(arguments))
    for name, _ in given:
        if name not in flags and not name.startswith("config."):
            keys = [f"config.{key}" for key in configs.flat(configs.intended())]
            near = difflib.get_close_matches(name, flags, 1) or [configs.closest(name, keys)]
            raise UserError(f"--{name} is not a flag; did you mean --{near[0]}? --help lists all")
    values = dict(given)
    for name in ("config", flag):
        if not values.get(name):
            raise UserError(f"--{name} is missing; --help explains it")
    config = load(values["config"])
    # What the file set for nothing; what only the flags below make idle is no mistake.
    keys = configs.idle(config, configs.changed(config))
    optimizer = values.get("config.train.optimizer")
    if optimizer and optimizer != config.train.optimizer:
        config.train.optimizer_args = ConfigDict()  # those that stand there are the other's
    for name, text in given:
        if name.startswith("config."):
            change(config, key := name.removeprefix("config."), text)
            keys.append(key)
    configs.check(config, keys)
    return paths.in_config(config), paths.expanded(values[flag], f"--{flag}") if path else values[flag]


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(name, value) of --name=value and --name value; None where a flag stands alone."""
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if not re.match("--?[A-Za-z]", argument):
            raise UserError(f"the argument {argument!r} was not expected; every flag begins with --")
        name, equals, text = argument.lstrip("-").partition("=")
        if not equals:
            text = waiting.pop(0) if waiting and not waiting[0].startswith("--") else None
        yield name, text


def load(file: str) -> ConfigDict:
    """The configuration that FILE or FILE:PRESET makes, locked. Raises UserError, naming file and line."""
    name, _, preset = paths.expanded(file, "--config").partition(":")
    module = ModuleType("config_file")
    module.__file__ = name
    try:
        source = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--config is {name!r}, which cannot be read ({reason}); expected a file such as configs/scenes_lpi.py"
        ) from error
    try:
        exec(compile(source, name, "exec"), module.__dict__)
        if not callable(get_config := getattr(module, "get_config", None)):
            raise UserError("the file defines no function get_config()")
        config = get_config(*_fitting(get_config, preset))
    except UserError as error:
        unknown = preset and preset not in configs.PRESETS
        near = difflib.get_close_matches(preset, configs.PRESETS, 1, 0.0)[0] if unknown else ""
        raise UserError(f"{name}: {error}" + (f"; did you mean --config={name}:{near}?" if near else "")) from error
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise UserError(f"{name}{_line_in(name, error)}: {_reason(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name}: get_config() returned {type(config).__name__}, expected an ml_collections.ConfigDict")
    return config


def _fitting(get_config: Callable, preset: str) -> list[str]:
    """The arguments for `get_config`; UserError if it takes no preset, or must have one."""
    arguments = [preset] if preset else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        wanted = "takes no preset behind a colon" if preset else "needs a preset behind a colon, FILE:PRESET"
        raise UserError(f"its get_config() {wanted}") from error
    return arguments


def _line_in(name: str, error: Exception) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f", line {lines[-1]}" if lines else ""


def _reason(error: Exception) -> str:
    """One line for what a configuration file raised; a key that its preset does not have is the usual case."""
    text = " ".join(str(error.args[0] if error.args else "").split())
    named = re.search(r"['\"](\w+)['\"]", text)
    if named and isinstance(error, AttributeError | KeyError | TypeError):
        sections = {key.partition(".")[0] for key in OPTIONS}
        for old, new in RENAMED.items():
            if old in REVALUED and "override" in text:
                continue  # the key is called so today; what it was set to is of another kind
            section, _, name = old.partition(".")
            if named[1] == (name if name and section in sections else section):
                return f"config.{old} is called config.{new} now"
    wrong, near = re.search(r'Key "(\w+)" does not exist', text), re.search(r'Did you mean "(\w+)"', text)
    if wrong:
        return f"there is no key {wrong[1]!r} in the configuration" + (f"; the closest is {near[1]!r}" if near else "")
    return f"{type(error).__name__}: {text}"[:300]


def change(config: ConfigDict, key: str, text: str | None) -> None:
    """Sets the dotted `key` to what `text` says, read as the kind of value that stands there.

    Raises:
      UserError: no such key, a group of keys, or another kind of value.
    """
    if key == "preset":
        raise UserError(f"config.preset only records which preset was used; choose one by --config=FILE:{text}")
    *path, name = key.split(".")
    section: Any = config
    for part in path:
        section = section[part] if isinstance(section, ConfigDict) and part in section else None
    if not isinstance(section, ConfigDict) or not name or (name not in section and section.is_locked):
        raise configs.unknown_key(key, configs.flat(config))
    if name not in section:  # of another optimizer
        section[name] = _literal(_something(key, text))
    elif isinstance(section[name], ConfigDict) and section[name].is_locked:
        if key in RENAMED:
            raise configs.unknown_key(key, ())
        raise UserError(f"config.{key} is a group of keys; expected one of them: {', '.join(section[name])}")
    else:
        section[name] = _read(key, section[name], text)


def _something(key: str, text: str | None) -> str:
    if text is None:
        raise UserError(f"--config.{key} has no value; expected --config.{key}=VALUE")
    return text


def _read(key: str, old: Any, text: str | None) -> Any:
    if isinstance(old, bool) and text is None:
        return True
    text = _something(key, text)
    for kind, (convert, expected) in _KINDS.items():
        if isinstance(old, kind):
            try:
                return convert(text, old)
            except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
                raise UserError(f"config.{key} is {text!r}, expected {expected}") from error
    raise AssertionError(f"config.{key} holds a {type(old).__name__}, which no flag can change")


def _literal(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _tuple(text: str, old: tuple) -> tuple:
    """('a', 'b') or a,b -> the strings a and b; numbers where `old` holds numbers; dictionaries as they are."""
    parts = ast.literal_eval(text) if text.lstrip().startswith(("(", "[", "{")) else text.split(",") if text else ()
    element = type(old[0]) if old else str

    def read(part: Any) -> Any:
        return part if isinstance(part, dict) else element(part.strip() if isinstance(part, str) else part)

    return tuple(read(part) for part in _sequence(parts))


def _sequence(value: Any) -> Sequence:
    return value if isinstance(value, tuple | list) else (value,)


def _mapping(text: str, _: Any) -> ConfigDict:
    return ConfigDict({str(key): value for key, value in dict(ast.literal_eval(text)).items()})


_KINDS: dict[type, tuple[Callable[[str, Any], Any], str]] = {
    bool: (lambda text, _: {"true": True, "1": True, "false": False, "0": False}[text.lower()], "true or false"),
    int: (lambda text, _: int(text), "a whole number"),
    float: (lambda text, _: float(text), "a number"),
    str: (lambda text, _: text, "text"),
    tuple: (_tuple, "values separated by commas"),
    ConfigDict: (_mapping, "a dictionary such as \"{'b1': 0.9}\""),
}
