"""The configuration of a run: every key with its meaning and default, and the two presets.

A config file builds one of the presets and changes what its experiment needs. The tree is locked: only `run` functions
unpack it; everything below takes plain arguments.
"""

from ml_collections import ConfigDict

from lpi_jax.errors import UserError

CHOICES = {
    "task_id": ("inferred", "oracle"),
    "dtype": ("float32", "bfloat16"),
    "prompt.injection": ("add", "replace"),
    "loss.alignment": ("released", "cosine"),
    "loss.task": ("released", "intended"),
    "pixels": ("clip", "imagenet"),
    "train.schedule": ("cosine", "constant"),
    "data.on_bad_example": ("error", "skip"),
    "data.train_transform": ("random", "centre"),
    "eval.transform": ("centre", "random"),
    "eval.gallery": ("union", "task"),
    "routing.caption": ("plain", "placeholders"),
}


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
            "dtype": "float32",  # compute: float32 | bfloat16
            "devices": 0,  # 0: all
            "pixels": "clip",  # mean and std: clip | imagenet
            "data": {
                "name": "scenes",  # scenes | jsonl
                "path": "",  # jsonl: the manifest
                "task_order": (),  # jsonl: names; (): by first appearance
                "on_bad_example": "error",  # error | skip
                "max_pixels": 50_000_000,
                "domains": (),  # scenes: names; (): the twelve
                "seed": 0,  # scenes: which pictures
                "train": 200,  # scenes: training pictures a task
                "val": 100,  # scenes: validation pictures a task
                "cache_mb": 1024,  # decoded pictures kept in memory
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
                "log_every": 10,  # steps
            },
            "routing": {"centres": 5, "caption": "plain"},  # captions ask: plain | placeholders in front
            "eval": {"batch": 128, "transform": "centre", "gallery": "union"},
        }
    )
    # Another optimiser has other arguments: its names are not known here.
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
    """Changes a preset to suit the bundled backbone: four layers a tower, and far fewer training steps than usual."""
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
    for key, allowed in CHOICES.items():
        value = _get(config, key)
        if value not in allowed:
            raise UserError(f"config.{key} is {value!r}, expected {' or '.join(map(repr, allowed))}")
    positive = ("prompt.length", "prompt.rank", "prompt.layers", "prompt.depth", "train.epochs", "train.batch")
    for key in (
        *positive,
        "train.checkpoint_every",
        "train.log_every",
        "routing.centres",
        "eval.batch",
        "data.max_words",
    ):
        if _get(config, key) < 1:
            raise UserError(f"config.{key} is {_get(config, key)}, expected at least 1")
    if config.prompt.depth > config.prompt.layers:
        raise UserError(
            f"config.prompt.depth is {config.prompt.depth}, expected at most config.prompt.layers,"
            f" {config.prompt.layers}"
        )
    low, high = config.data.crop_scale
    if not 0 < low <= high <= 1:
        raise UserError(f"config.data.crop_scale is {config.data.crop_scale}, expected 0 < smallest <= largest <= 1")
    if config.seed < 0 or config.data.seed < 0:
        raise UserError(f"config.seed is {config.seed} and config.data.seed {config.data.seed}, expected 0 or more")


def _get(config: ConfigDict, key: str):
    for part in key.split("."):
        config = config[part]
    return config
