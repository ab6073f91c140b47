"""The configuration of a run: every key with its meaning and default, and the two presets.

A config file builds one of the presets and changes what its experiment needs. The tree is locked: only `run` functions
unpack it; everything below takes plain arguments.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from lpi_jax.errors import UserError

CHOICES = {
    "task_id": ("inferred", "oracle"),
    "dtype": ("float32", "bfloat16"),
    "matmul_precision": ("highest", "high", "default"),
    "towers.activation": ("", "quick_gelu", "gelu"),
    "prompt.injection": ("add", "replace"),
    "loss.alignment": ("released", "cosine"),
    "loss.task": ("released", "intended"),
    "pixels": ("clip", "imagenet"),
    "train.schedule": ("cosine", "constant"),
    "data.on_bad_example": ("error", "skip"),
    "data.rule": ("largest_area", "most_objects", "single_only", "manifest"),
    "data.split": ("published", "karpathy"),
    "data.evaluate": ("test", "val"),
    "data.train_transform": ("random", "centre"),
    "eval.transform": ("centre", "random"),
    "eval.gallery": ("union", "task"),
    "routing.caption": ("plain", "placeholders"),
}
LEAST = {
    "data.order_seed": -1,
    **dict.fromkeys(("seed", "devices", "data.seed", "data.cache_mb", "data.shots"), 0),
    **dict.fromkeys(("data.max_pixels", "data.train", "data.val", "data.max_words", "data.cache_side"), 1),
    **dict.fromkeys(("prompt.length", "prompt.rank", "prompt.layers", "prompt.depth"), 1),
    **dict.fromkeys(("loss.alignment_weight", "loss.task_weight", "train.lr"), 0),
    **dict.fromkeys(("train.epochs", "train.batch", "train.checkpoint_every", "train.log_every"), 1),
    **dict.fromkeys(("routing.centres", "eval.batch"), 1),
    **dict.fromkeys(("towers.vision_heads", "towers.text_heads", "train.checkpoints_kept", "data.val_share"), 0),
}
FREE = "train.optimizer_args"  # another optimiser has other arguments: their names are not known here
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a tuple"}


def intended() -> ConfigDict:
    """LPI as the method is meant: every prompt layer enters the towers, losses that give gradient, clean evaluation."""
    config = ConfigDict(
        {
            "method": "lpi",  # lpi | zero_shot
            "preset": "intended",  # for the record
            "task_id": "inferred",  # inferred (nearest centre) | oracle
            "reuse": "",  # folder of a finished run: measure its prompts in this way instead of training
            "seed": 0,
            "backbone": "bundled",  # bundled | folder | hub id | one .safetensors or .npz file with OpenAI's names
            "tokenizer": "",  # folder or hub id; "": where the backbone is
            "towers": {  # what weights under OpenAI's names do not say of themselves
                "activation": "",  # quick_gelu | gelu; "": as the files say, or OpenAI's
                "vision_heads": 0,  # 0: as the files say, or OpenAI's 64 numbers a head
                "text_heads": 0,
            },
            "dtype": "float32",  # compute: float32 | bfloat16
            "matmul_precision": "highest",  # of float32 products: highest | high | default (fewer bits on TPU and GPU)
            "devices": 0,  # 0: all
            "distributed": False,  # True: one of several processes that were started with the same command
            "compilation_cache": "auto",  # of compiled programs: auto (the user's cache folder) | off | a folder
            "pixels": "clip",  # mean and std: clip | imagenet
            "data": {
                "name": "scenes",  # scenes | jsonl | coco | flickr30k | tfds | webdataset | table | multi
                "path": "",  # the file or folder; tfds: its data_dir, "" for its usual one
                "task_order": (),  # names; (): the stream's own order
                "order_seed": -1,  # shuffles the tasks; -1: does not
                "shots": 0,  # training pictures kept of each task, chosen by data.seed; 0: all
                "on_bad_example": "error",  # error | skip
                "max_pixels": 50_000_000,
                "rule": "largest_area",  # coco: how an image gets its task (lpi_jax/data/coco_tasks.py), or manifest
                "manifest": "",  # coco, flickr30k: a CSV table of image, task and split
                "split": "published",  # coco: published | karpathy
                "evaluate": "test",  # Karpathy's split to measure on: test | val
                "builder": "",  # tfds: the data set, such as coco_captions/2014
                "fields": {  # columns of a table, features of a tfds builder; "": the source's usual name
                    "image": "",
                    "caption": "",
                    "task": "",
                    "split": "",
                    "time": "",  # table: tasks arrive in its order
                    "description": "",
                    "train": "",  # tfds: the split that is trained on
                    "val": "",
                },
                "separator": "",  # table in text: between columns; "": a comma, in a .tsv file a tab
                "val_list": "",  # folder: a text file that names the validation images, one a line
                "val_share": 0.2,  # folder: else the share of each task's images kept for validation, by data.seed
                "streams": (),  # multi: a dictionary of these keys for each stream
                "domains": (),  # scenes: names; (): the twelve
                "seed": 0,  # scenes, shots: which pictures
                "train": 200,  # scenes: training pictures a task
                "val": 100,  # scenes: validation pictures a task
                "cache_mb": 1024,  # decoded pictures kept in memory
                "cache_dir": "",  # resized pictures kept on disk, so that each is decoded once; "": none
                "cache_side": 256,  # of their shorter side, pixels
                "train_transform": "random",  # random (crop and flip) | centre
                "crop_scale": (0.08, 1.0),  # share of the area a random crop keeps
                "flip": True,
                "max_words": 30,
            },
            "prompt": {
                "length": 16,
                "rank": 4,
                "layers": 9,
                "depth": 9,  # how many of the layers enter the towers
                "injection": "add",  # add | replace
                "interaction": False,
            },
            "loss": {
                "alignment": "cosine",
                "alignment_weight": 0.1,
                "task": "intended",
                "task_weight": 0.1,
                "threshold": 0.4,  # cosine above which two tasks count as similar
                "similarity": "text",  # text (frozen text tower) | a CSV table
            },
            "train": {
                "epochs": 10,
                "batch": 64,
                "lr": 0.05,
                "schedule": "cosine",  # cosine (per epoch) | constant
                "optimizer": "sgd",  # sgd (PyTorch's) | any optimiser of optax
                "optimizer_args": {"momentum": 0.9, "weight_decay": 2e-4},
                "checkpoint_every": 500,  # steps inside a task
                "checkpoints_kept": 3,  # newest task boundaries kept on disk; 0: all
                "log_every": 10,  # steps
            },
            "routing": {"centres": 5, "caption": "plain"},  # captions ask: plain | placeholders in front
            "eval": {"batch": 128, "transform": "centre", "gallery": "union"},
        }
    )
    config.lock()
    config.train.optimizer_args.unlock()
    return config


def released() -> ConfigDict:
    """LPI as the authors' release computes it (spec section by section), without the defects that make it crash."""
    config = intended()
    config.preset = "released"
    config.pixels = "imagenet"
    config.prompt.depth = 1
    config.loss.alignment = "released"
    config.loss.task = "released"
    config.routing.caption = "placeholders"
    config.eval.transform = "random"
    return config


def for_tiny_backbone(config: ConfigDict) -> None:
    """Sizes a preset for the bundled backbone: four layers a tower, eight prompts a layer."""
    config.prompt.length = 8
    config.prompt.layers = 4
    config.prompt.depth = min(config.prompt.depth, 4)


PRESETS = {"intended": intended, "released": released}


def preset(name: str) -> ConfigDict:
    """A preset by name. Raises UserError for another name."""
    if name not in PRESETS:
        raise UserError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]()


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the key, for values that no run could use."""
    values, known = flat(config), flat(intended())
    for key in values:
        if key not in known and not key.startswith(f"{FREE}."):
            raise unknown_key(key, known)
    for key, usual in known.items():
        if not key.startswith(f"{FREE}."):
            _check_value(key, usual, values)
    if config.prompt.depth > config.prompt.layers:
        raise UserError(
            f"config.prompt.depth is {config.prompt.depth}, expected at most config.prompt.layers,"
            f" {config.prompt.layers}"
        )
    scale = config.data.crop_scale
    if len(scale) != 2 or not all(isinstance(s, int | float) for s in scale) or not 0 < scale[0] <= scale[1] <= 1:
        raise UserError(f"config.data.crop_scale is {scale}, expected two numbers, 0 < smallest <= largest <= 1")


def _check_value(key: str, usual: Any, values: dict[str, Any]) -> None:
    """One value is there, of the kind of `usual`, and within its bounds."""
    if key not in values:
        raise UserError(f"config.{key} is missing, expected {KINDS[type(usual)]} such as {usual!r}")
    value = values[key]
    allowed = {float: (float, int), tuple: (tuple, list)}.get(type(usual), type(usual))
    if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(usual, bool):
        raise UserError(f"config.{key} is {value!r}, expected {KINDS[type(usual)]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"config.{key} is {value!r}, expected a finite number")
    if key in CHOICES and value not in CHOICES[key]:
        raise UserError(f"config.{key} is {value!r}, expected {' or '.join(map(repr, CHOICES[key]))}")
    if key in LEAST and value < LEAST[key]:
        raise UserError(f"config.{key} is {value!r}, expected at least {LEAST[key]}")


def flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every dotted key with its value."""
    found = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {prefix + name: value}
    return found


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """The error for a dotted key that does not exist; it names the closest one that does."""
    return UserError(f"config has no key {key!r}; the closest is {closest(key, known)!r}")


def closest(name: str, known: Iterable[str]) -> str:
    """The dotted name most like `name`; one with the same last part before any other."""
    known = list(known)
    same_end = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    return difflib.get_close_matches(name, same_end or known, 1, 0.0)[0]
