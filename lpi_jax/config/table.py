"""Every key of a run's configuration, gathered from the files that read them (`lpi_jax.options`).

The one table behind the presets, `--help`, the check of a configuration, resume and the report.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lpi_jax.config.settings import Run
from lpi_jax.data import cache, transforms
from lpi_jax.data.sources import multi, registry
from lpi_jax.methods import routing
from lpi_jax.methods.registry import METHODS
from lpi_jax.models.options import Towers
from lpi_jax.options import Option, Values, both, declared, either, flat, with_
from lpi_jax.problems.registry import PROBLEMS
from lpi_jax.problems.retrieval.options import Evaluation, Loss, Pixels
from lpi_jax.train import optimizer

FREE = "train.optimizer_args"  # another optimiser has other arguments: their names are not known here
OWN_OF_A_STREAM = tuple(multi.NOT_INHERITED)
# What config.data says of all streams together.
OF_ALL_STREAMS = tuple(declared(cache.Options, "") | declared(transforms.Options, ""))


def _of_methods() -> dict[str, Option]:
    """The keys of section `method`: the name, and what the methods declare, each read with those that declare it."""
    names = Option("lpi", "how the backbone is prompted or changed", choices=tuple(METHODS))
    table, readers = {"method.name": names}, {}
    for name, method in METHODS.items():
        for key, known in declared(method.Options, "method").items():
            if key in table and table[key]._replace(reader=None) != known._replace(reader=None):
                raise TypeError(f"method {name} declares {key} otherwise than another method does")
            table.setdefault(key, known)
            readers.setdefault(key, {}).setdefault(known.reader, []).append(name)
    for key, by_reader in readers.items():
        reader = None
        for own, names in by_reader.items():
            one = both(with_("method.name", *names), own)
            reader = one if reader is None else either(reader, one)
        table[key] = table[key]._replace(reader=reader)
    return table


OPTIONS: dict[str, Option] = {
    **declared(Run, ""),
    **declared(Pixels, ""),
    "problem.name": Option("retrieval", "what is asked of the backbone", choices=tuple(PROBLEMS)),
    **declared(Loss, "problem"),
    **declared(Towers, "towers"),
    **registry.declared(),
    **_of_methods(),
    **declared(optimizer.Options, "train"),
    **declared(routing.Options, "routing"),
    **declared(Evaluation, "eval"),
}
# Keys as they were called before, and as they are called now.
RENAMED = {
    "method": "method.name",
    **{
        f"prompt.{name}": f"method.{name}" for name in ("length", "rank", "layers", "depth", "injection", "interaction")
    },
    **{
        f"loss.{name}": f"method.{name}"
        for name in ("alignment", "alignment_weight", "task", "task_weight", "threshold", "similarity")
    },
}


def facts(values: Values) -> Values:
    """The values with what the chosen method says of itself: "trains", "routes", "keeps_tasks"."""
    method = METHODS.get(values["method.name"])
    names = ("trains", "routes", "keeps_tasks")
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
