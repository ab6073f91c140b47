"""Every key of a run's configuration: default, meaning, choices and bounds, whether it changes numbers, who reads it.

The one table behind the presets, `--help`, the check of a configuration, resume and the report. A key's kind is
  numbers  it changes results: a run with another value is another run;
  speed    it does not: how fast, on how many devices, how often something is written;
  place    it says where something lies: what counts is the content, or whether there is any.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

Values = Mapping[str, Any]  # dotted key -> value

SOURCES = ("scenes", "jsonl", "coco", "flickr30k", "tfds", "webdataset", "table", "folder", "huggingface", "multi")
FREE = "train.optimizer_args"  # another optimiser has other arguments: their names are not known here
# What a stream of `multi` does not take over from config.data.
OWN_OF_A_STREAM = ("path", "task_order", "order_seed", "shots")
# What config.data says of all streams together.
OF_ALL_STREAMS = ("cache_mb", "cache_dir", "cache_side", "train_transform", "crop_scale", "flip", "max_words")


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


# ---- who reads -------------------------------------------------------------------------------------------------------


def _source(*names: str) -> Reader:
    return Reader(f"with config.data.name={' or '.join(names)}", lambda values: values["data.name"] in names)


def _both(one: Reader, other: Reader) -> Reader:
    words = f"{one.words} and {other.words.removeprefix('with ')}"
    return Reader(words, lambda values: one.reads(values) and other.reads(values))


def _either(one: Reader, other: Reader) -> Reader:
    return Reader(f"{one.words}, or {other.words}", lambda values: one.reads(values) or other.reads(values))


def _set(key: str, value: Any) -> Reader:
    return Reader(f"with config.{key}={value}", lambda values: values[key] == value)


PROMPTS = _set("method", "lpi")
TRAINING = Reader(
    "by training (config.method=lpi without config.reuse)", lambda v: v["method"] == "lpi" and not v["reuse"]
)
CROPS = _either(
    Reader(
        "by training with config.data.train_transform=random",
        lambda v: TRAINING.reads(v) and v["data.train_transform"] == "random",
    ),
    _set("eval.transform", "random"),
)
FILES = Reader(
    "with every config.data.name but scenes and multi", lambda values: values["data.name"] not in ("scenes", "multi")
)
CACHE = Reader("with config.data.cache_dir", lambda values: bool(values["data.cache_dir"]))
LISTED = Reader("with config.data.val_list", lambda values: bool(values["data.val_list"]))
SHARE = _either(
    Reader(
        "with config.data.name=folder without config.data.val_list",
        lambda v: v["data.name"] == "folder" and not LISTED.reads(v),
    ),
    _source("huggingface"),
)
SHOTS = Reader("with config.data.shots", lambda values: bool(values["data.shots"]))
OTHER_BACKBONE = Reader("with another config.backbone than bundled", lambda values: values["backbone"] != "bundled")
COLUMNS = _source("table", "huggingface")
FEATURES = _source("table", "huggingface", "tfds")


# ---- the table -------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Option] = {
    "method": Option("lpi", "how the backbone is prompted; zero_shot: not at all", choices=("lpi", "zero_shot")),
    "preset": Option("intended", "which preset this was made from, for the record", kind="speed"),
    "task_id": Option(
        "inferred", "inferred: by the nearest centre; oracle: the true task", choices=("inferred", "oracle")
    ),
    "reuse": Option(
        "",
        "folder of a finished run: measures its prompts in this way instead of training",
        kind="place",
        content="reuse",
    ),
    "seed": Option(0, "decides initial prompts, order of the data, crops and the starts of k-means", least=0),
    "backbone": Option(
        "bundled",
        "bundled, a folder, a hub id, or one .safetensors or .npz file with OpenAI's names",
        kind="place",
        content="backbone",
    ),
    "tokenizer": Option("", "folder or hub id; '': where the backbone is", kind="place", content="tokenizer"),
    "towers.activation": Option(
        "", "'': as the weights' files say, or OpenAI's", choices=("", "quick_gelu", "gelu"), reader=OTHER_BACKBONE
    ),
    "towers.vision_heads": Option(
        0,
        "attention heads; 0: as the weights' files say, or OpenAI's 64 numbers a head",
        least=0,
        reader=OTHER_BACKBONE,
    ),
    "towers.text_heads": Option(0, "the same for the text tower", least=0, reader=OTHER_BACKBONE),
    "dtype": Option("float32", "what the towers compute in", choices=("float32", "bfloat16")),
    "matmul_precision": Option(
        "highest", "of float32 products; fewer bits on TPU and GPU are faster", choices=("highest", "high", "default")
    ),
    "devices": Option(0, "how many to use; 0: all", kind="speed", least=0),
    "distributed": Option(False, "one of several processes that were started with the same command", kind="speed"),
    "compilation_cache": Option(
        "auto", "of compiled programs: auto (the user's cache folder), off, or a folder", kind="speed"
    ),
    "pixels": Option("clip", "whose mean and deviation normalise pixels", choices=("clip", "imagenet")),
    # data
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
        reader=_either(_both(_source("coco"), _set("data.rule", "manifest")), _source("flickr30k")),
        content="stream",
    ),
    "data.split": Option("published", "whose splits", choices=("published", "karpathy"), reader=_source("coco")),
    "data.evaluate": Option(
        "test",
        "the split to measure on, of Karpathy's, or of a source that has both",
        choices=("test", "val"),
        reader=_either(
            _both(_source("coco"), _set("data.split", "karpathy")), _source("flickr30k", "folder", "huggingface")
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
    "data.seed": Option(0, "decides which pictures", least=0, reader=_either(_either(_source("scenes"), SHARE), SHOTS)),
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
    # the method
    "prompt.length": Option(
        16, "prompts a layer; 0: what the backbone has room for, up to 16", least=0, reader=PROMPTS
    ),
    "prompt.rank": Option(4, "of the factorised prompts", least=1, reader=PROMPTS),
    "prompt.layers": Option(
        9, "layers that have prompts; 0: as many as the backbone has, up to 9", least=0, reader=PROMPTS
    ),
    "prompt.depth": Option(9, "how many of these enter the towers; 0: all", least=0, reader=PROMPTS),
    "prompt.injection": Option(
        "add", "how deeper prompts meet what is there", choices=("add", "replace"), reader=PROMPTS
    ),
    "prompt.interaction": Option(False, "whether the two modalities' factors interact", reader=PROMPTS),
    "loss.alignment": Option(
        "cosine", "form of the loss between the modalities", choices=("released", "cosine"), reader=TRAINING
    ),
    "loss.alignment_weight": Option(0.1, "its weight", least=0, reader=TRAINING),
    "loss.task": Option(
        "intended", "form of the loss between tasks", choices=("released", "intended"), reader=TRAINING
    ),
    "loss.task_weight": Option(0.1, "its weight", least=0, reader=TRAINING),
    "loss.threshold": Option(0.4, "cosine above which two tasks count as similar", reader=TRAINING),
    "loss.similarity": Option(
        "text", "of tasks: text (by the frozen text tower), or a CSV table", reader=TRAINING, content="similarity"
    ),
    "train.epochs": Option(10, "passes over a task's pairs", least=1, reader=TRAINING),
    "train.batch": Option(64, "pairs a step, over all devices", least=1, reader=TRAINING),
    "train.lr": Option(0.05, "learning rate at the beginning of a task", least=0, reader=TRAINING),
    "train.schedule": Option(
        "cosine", "of the learning rate; cosine: falls per epoch", choices=("cosine", "constant"), reader=TRAINING
    ),
    "train.optimizer": Option("sgd", "sgd (PyTorch's), or any optimiser of optax", reader=TRAINING),
    "train.optimizer_args": Option(
        {"momentum": 0.9, "weight_decay": 2e-4}, "its arguments; another optimiser begins without any", reader=TRAINING
    ),
    "train.checkpoint_every": Option(
        500, "steps between checkpoints inside a task", kind="speed", least=1, reader=TRAINING
    ),
    "train.checkpoints_kept": Option(3, "newest task boundaries kept on disk; 0: all", kind="speed", least=0),
    "train.log_every": Option(10, "steps between lines of the log", kind="speed", least=1, reader=TRAINING),
    "routing.centres": Option(5, "centres a task and modality", least=1),
    "routing.caption": Option(
        "plain",
        "captions are routed as they are, or with placeholders in front",
        choices=("plain", "placeholders"),
        reader=PROMPTS,
    ),
    "eval.batch": Option(128, "items encoded at once, over all devices", least=1),
    "eval.transform": Option("centre", "of the pictures that are measured", choices=("centre", "random")),
    "eval.gallery": Option(
        "union", "what is searched: all tasks seen so far, or the item's own", choices=("union", "task")
    ),
}


def option(key: str) -> Option | None:
    """The option of a dotted key, also of an argument of the optimiser; None for a key that does not exist."""
    return OPTIONS.get(FREE if key.startswith(f"{FREE}.") else key)


def is_read(key: str, values: Values) -> bool:
    """Whether a run with these values looks at the key."""
    reader = option(key).reader
    return reader is None or any(reader.reads(view) for view in _views(key, values))


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


def flat(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of nested sections with its value."""
    found = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping | ConfigDict)
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found
