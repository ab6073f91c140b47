"""Every key of a run's configuration, gathered from the files that read them (`lpi_jax.options`).

The one table behind the presets, `--help`, the check of a configuration, resume and the report.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from lpi_jax.config.settings import Run
from lpi_jax.data import cache, transforms
from lpi_jax.data.sources import multi, registry
from lpi_jax.methods import routing
from lpi_jax.methods.registry import METHODS
from lpi_jax.options import Option, Reader, Values, both, declared, either, flat, with_
from lpi_jax.problems import registry as problems
from lpi_jax.train import optimizer

FREE = "train.optimizer_args"  # another optimiser has other arguments: their names are not known here
OWN_OF_A_STREAM = tuple(multi.NOT_INHERITED)
# What config.data says of all streams together.
OF_ALL_STREAMS = tuple(declared(cache.Options, "") | declared(transforms.Options, ""))


def _together(chooser: str, by_name: Mapping[str, Mapping[str, Option]]) -> dict[str, Option]:
    """What those that the key `chooser` chooses from declare, each option read with those that declare it."""
    table: dict[str, Option] = {}
    readers: dict[str, dict[Reader | None, list[str]]] = {}
    for name, own in by_name.items():
        for key, known in own.items():
            if key in table and table[key]._replace(reader=None) != known._replace(reader=None):
                raise TypeError(f"{name} of {chooser} declares {key} otherwise than another does")
            table.setdefault(key, known)
            readers.setdefault(key, {}).setdefault(known.reader, []).append(name)
    for key, by_reader in readers.items():
        if sum(map(len, by_reader.values())) == len(by_name) and len(by_reader) == 1:
            continue  # all of them read it alike
        conditions = [both(with_(chooser, *names), own) for own, names in by_reader.items()]
        table[key] = table[key]._replace(reader=functools.reduce(either, conditions))
    return table


def _of_methods() -> dict[str, Option]:
    """The keys of section `method`: the name, and what the methods declare."""
    names = Option("lpi", "how the backbone is prompted or changed", choices=tuple(METHODS))
    own = {name: declared(method.Options, "method") for name, method in METHODS.items()}
    return {"method.name": names, **_together("method.name", own)}


def _of_problems(section: str) -> dict[str, Option]:
    """What the problems declare of a section; "": the keys without one."""
    known = _together("problem.name", problems.options())
    return {key: option for key, option in known.items() if key.rpartition(".")[0] == section}


OPTIONS: dict[str, Option] = {
    **declared(Run, ""),
    **_of_problems(""),
    "problem.name": Option("retrieval", "what is asked of the backbone", choices=tuple(problems.PROBLEMS)),
    **_of_problems("problem"),
    **_of_problems("towers"),
    **registry.declared(),
    **_of_problems("data"),
    **_of_methods(),
    **declared(optimizer.Options, "train"),
    **declared(routing.Options, "routing"),
    **_of_problems("eval"),
}
# Keys as they were called before, and as they are called now.
RENAMED = {
    "method": "method.name",
    "problem.remat": "train.remat",
    **{
        f"prompt.{name}": f"method.{name}" for name in ("length", "rank", "layers", "depth", "injection", "interaction")
    },
    **{
        f"loss.{name}": f"method.{name}"
        for name in ("alignment", "alignment_weight", "task", "task_weight", "threshold", "similarity")
    },
}
# Of those whose values were others: what each is called now.
REVALUED = {"problem.remat": {False: "none", True: "blocks"}}


def facts(values: Values) -> Values:
    """The values with what the chosen method says of itself: "trains", "routes", "own_rule", "keeps_tasks"."""
    method = METHODS.get(values["method.name"])
    names = ("trains", "routes", "own_rule", "keeps_tasks")
    return {**values, **{name: bool(method and getattr(method.Options, name)) for name in names}}


def option(key: str) -> Option | None:
    """The option of a dotted key, also of an argument of the optimiser; None for a key that does not exist."""
    return OPTIONS.get(FREE if key.startswith(f"{FREE}.") else key)


def is_read(key: str, values: Values) -> bool:
    """Whether a run with these values looks at the key."""
    reader = option(key).reader
    return reader is None or any(reader.reads(facts(view)) for view in _views(key, values))


def _views(key: str, values: Values) -> Iterator[Values]:
    """The values as the run sees them; with several streams also as each of those that inherit the key sees them."""
    yield values
    name = key.removeprefix("data.")
    if values["data.name"] == "multi" and name != key and name not in OWN_OF_A_STREAM:
        for part in values["data.streams"]:
            if isinstance(part, Mapping) and name not in flat(part):
                yield of_stream(part, values)


def of_stream(part: Mapping[str, Any], values: Values) -> Values:
    """All values as one of several streams sees them: its own, and what it inherits."""
    own = {f"data.{name}": OPTIONS[f"data.{name}"].default for name in OWN_OF_A_STREAM}
    return {**values, **own, **flat(part, "data.")}
