"""Every key of a run's configuration, gathered from the files that read them (`lpi_jax.options`).

The one table behind the presets, `--help`, the check of a configuration, resume and the report.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lpi_jax.config.settings import Run, Towers
from lpi_jax.methods import routing
from lpi_jax.methods.registry import METHODS
from lpi_jax.options import TRAINING, Option, Reader, Values, both, declared, either, flat, with_
from lpi_jax.problems.registry import PROBLEMS
from lpi_jax.problems.retrieval.options import Evaluation, Pixels
from lpi_jax.train import optimizer

SOURCES = ("scenes", "jsonl", "coco", "flickr30k", "tfds", "webdataset", "table", "folder", "huggingface", "multi")
FREE = "train.optimizer_args"  # another optimiser has other arguments: their names are not known here
# What a stream of `multi` does not take over from config.data.
OWN_OF_A_STREAM = ("path", "task_order", "order_seed", "shots")
# What config.data says of all streams together.
OF_ALL_STREAMS = ("cache_mb", "cache_dir", "cache_side", "train_transform", "crop_scale", "flip", "max_words")


def _source(*names: str) -> Reader:
    return with_("data.name", *names)


CROPS = either(
    Reader(
        "by training with config.data.train_transform=random",
        lambda v: TRAINING.reads(v) and v["data.train_transform"] == "random",
    ),
    with_("eval.transform", "random"),
)
FILES = Reader(
    "with every config.data.name but scenes and multi", lambda values: values["data.name"] not in ("scenes", "multi")
)
CACHE = Reader("with config.data.cache_dir", lambda values: bool(values["data.cache_dir"]))
LISTED = Reader("with config.data.val_list", lambda values: bool(values["data.val_list"]))
SHARE = either(
    Reader(
        "with config.data.name=folder without config.data.val_list",
        lambda v: v["data.name"] == "folder" and not LISTED.reads(v),
    ),
    _source("huggingface"),
)
SHOTS = Reader("with config.data.shots", lambda values: bool(values["data.shots"]))
COLUMNS = _source("table", "huggingface")
FEATURES = _source("table", "huggingface", "tfds")


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


DATA: dict[str, Option] = {
    "data.name": Option("scenes", "the source", choices=SOURCES),
    "data.path": Option(
        "",
        "its file or folder; tfds: its data_dir, '' for the usual one",
        kind="place",
        reader=FILES,
        content="stream",
    ),
    "data.task_order": Option((), "names of the tasks; (): the stream's own order"),
    "data.order_seed": Option(-1, "shuffles the tasks; -1: does not", least=-1),
    "data.shots": Option(0, "training pictures kept of each task, chosen by data.seed; 0: all", least=0),
    "data.on_bad_example": Option(
        "error", "error: ends the run; skip: counts and leaves out", choices=("error", "skip"), reader=FILES
    ),
    "data.max_pixels": Option(50_000_000, "larger pictures are bad examples", least=1, reader=FILES),
    "data.rule": Option(
        "largest_area",
        "how an image with several kinds of objects gets its task",
        choices=("largest_area", "most_objects", "single_only", "manifest"),
        reader=_source("coco"),
    ),
    "data.manifest": Option(
        "",
        "a CSV table of image, task and split",
        kind="place",
        reader=either(both(_source("coco"), with_("data.rule", "manifest")), _source("flickr30k")),
        content="stream",
    ),
    "data.split": Option("published", "whose splits", choices=("published", "karpathy"), reader=_source("coco")),
    "data.evaluate": Option(
        "test",
        "the split to measure on, of Karpathy's, or of a source that has both",
        choices=("test", "val"),
        reader=either(
            both(_source("coco"), with_("data.split", "karpathy")), _source("flickr30k", "folder", "huggingface")
        ),
    ),
    "data.builder": Option("", "the data set, such as coco_captions/2014", reader=_source("tfds")),
    "data.fields.image": Option("", "column or feature; '': the source's usual name", reader=FEATURES),
    "data.fields.caption": Option("", "column or feature; '': the source's usual name", reader=FEATURES),
    "data.fields.task": Option("", "column or feature; '': the source's usual name", reader=FEATURES),
    "data.fields.split": Option("", "column; '': split", reader=COLUMNS),
    "data.fields.time": Option("", "column; tasks arrive in its order", reader=COLUMNS),
    "data.fields.description": Option("", "column; '': description", reader=COLUMNS),
    "data.fields.train": Option("", "the split that is trained on; '': train", reader=_source("tfds")),
    "data.fields.val": Option("", "the split that is measured on; '': the usual one", reader=_source("tfds")),
    "data.separator": Option(
        "", "between the columns of a text file; '': a comma, in a .tsv file a tab", reader=_source("table")
    ),
    "data.val_list": Option(
        "",
        "a text file that names the validation images, one a line",
        kind="place",
        reader=_source("folder"),
        content="stream",
    ),
    "data.val_share": Option(
        0.2,
        "share of each task's images that is kept for validation, neither none nor all, chosen by data.seed",
        least=0,
        most=1,
        reader=SHARE,
    ),
    "data.streams": Option((), "a dictionary of these keys for each stream", reader=_source("multi")),
    "data.domains": Option((), "names; (): the twelve", reader=_source("scenes")),
    "data.seed": Option(0, "decides which pictures", least=0, reader=either(either(_source("scenes"), SHARE), SHOTS)),
    "data.train": Option(200, "training pictures a task", least=1, reader=_source("scenes")),
    "data.val": Option(100, "validation pictures a task", least=1, reader=_source("scenes")),
    "data.cache_mb": Option(1024, "decoded pictures kept in memory", kind="speed", least=0),
    "data.cache_dir": Option(
        "", "folder of pictures resized once, so that each is decoded once; '': none", kind="place"
    ),
    "data.cache_side": Option(256, "of their shorter side, pixels", least=1, reader=CACHE),
    "data.train_transform": Option("random", "random: crop and flip", choices=("random", "centre"), reader=TRAINING),
    "data.crop_scale": Option((0.08, 1.0), "share of the area that a random crop keeps", reader=CROPS),
    "data.flip": Option(True, "whether half of the random crops are mirrored", reader=CROPS),
    "data.max_words": Option(30, "of a caption; the rest is left out", least=1),
}

OPTIONS: dict[str, Option] = {
    **declared(Run, ""),
    **declared(Pixels, ""),
    "problem.name": Option("retrieval", "what is asked of the backbone", choices=tuple(PROBLEMS)),
    **declared(Towers, "towers"),
    **DATA,
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
