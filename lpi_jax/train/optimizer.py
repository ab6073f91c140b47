"""The optimiser of a task: any of optax, or PyTorch's SGD, with what may stand around it, and the learning rate."""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lpi_jax.errors import UserError, reason
from lpi_jax.models.remat import KEPT
from lpi_jax.options import TRAINING, both, option, with_
from lpi_jax.types import Tree


@dataclass(frozen=True)
class Options:
    """Section `train`."""

    epochs: int = option(10, "passes over a task's pairs", least=1, reader=TRAINING)
    min_steps: int = option(0, "steps of a task, at least: a small task gets more epochs", least=0, reader=TRAINING)
    held_out: float = option(
        0.0,
        "share of a task's training images that train nothing: a task whose prompts do not beat the frozen backbone on"
        " them is remembered without any; of methods that can do without",
        least=0,
        most=0.9,
        reader=TRAINING,
    )
    batch: int = option(64, "pairs a step, over all devices", least=1, reader=TRAINING)
    batches: tuple = option((), "one for each task, in place of train.batch; (): as train.batch", reader=TRAINING)
    microbatch: int = option(
        0,
        "pairs that are in the backbone at once: less memory, a forward pass more, and the same gradient but for the"
        " order of sums; 0: all",
        kind="speed",
        least=0,
        reader=TRAINING,
    )
    remat: str = option(
        "none",
        "what of the prompted network (of a LLaVA its language model) is computed again for the backward pass, not"
        " kept: nothing, its blocks, or of them all but the products with weights",
        kind="speed",
        choices=KEPT,
        reader=TRAINING,
    )
    accumulate: int = option(1, "batches whose mean gradient makes one update", least=1, reader=TRAINING)
    lr: float = option(0.05, "learning rate at the beginning of a task", least=0, reader=TRAINING)
    schedule: str = option(
        "cosine",
        "of the learning rate; cosine: falls per epoch, smooth: per step, log: rises as the logarithm of the step does",
        choices=("cosine", "smooth", "constant", "log"),
        reader=TRAINING,
    )
    warmup: int = option(
        0,
        "steps in which the learning rate of a task rises from 0",
        least=0,
        reader=both(with_("train.schedule", "cosine", "smooth", "constant"), TRAINING),
    )
    warmup_share: float = option(
        0.03,
        "share of a task's steps in which its learning rate rises",
        least=0,
        most=1,
        reader=both(with_("train.schedule", "log"), TRAINING),
    )
    optimizer: str = option("sgd", "sgd (PyTorch's), or any optimiser of optax", reader=TRAINING)
    optimizer_args: dict = option(
        {"momentum": 0.9, "weight_decay": 2e-4}, "its arguments; another optimiser begins without any", reader=TRAINING
    )
    clip_norm: float = option(0.0, "largest norm of the whole gradient; 0: any", least=0, reader=TRAINING)
    decay: str = option(
        "all", "what weight decay shrinks: all, or matrices alone", choices=("all", "matrices"), reader=TRAINING
    )
    groups: tuple = option(
        (), "pairs (pattern of a parameter's path, factor of its learning rate); the first that fits", reader=TRAINING
    )
    checkpoint_every: int = option(
        500, "steps between checkpoints inside a task", kind="speed", least=1, reader=TRAINING
    )
    checkpoints_kept: int = option(3, "newest task boundaries kept on disk; 0: all", kind="speed", least=0)
    log_every: int = option(10, "steps between lines of the log", kind="speed", least=1, reader=TRAINING)

    def __post_init__(self) -> None:
        if not all(isinstance(size, int) and size > 0 for size in self.batches):
            raise UserError(
                f"config.train.batches is {self.batches!r}, expected whole numbers of pairs, one for each task"
            )
        for group in self.groups:
            if not (
                isinstance(group, tuple | list)
                and len(group) == 2
                and isinstance(group[0], str)
                and isinstance(group[1], int | float)
                and _is_pattern(group[0])
            ):
                raise UserError(
                    f"config.train.groups holds {group!r}, expected a pair of a regular expression and a factor"
                )

    def epochs_in(self, steps_per_epoch: int) -> int:
        """Epochs of a task, more than `epochs` where these are fewer than `min_steps` steps."""
        return max(self.epochs, -(-self.min_steps // max(steps_per_epoch, 1)))

    def batch_of(self, task: int) -> int:
        """Rows of a global batch in task number `task`, from 0."""
        return self.batches[task] if task < len(self.batches) else self.batch


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """An optimiser whose updates are still to be multiplied by the learning rate (the step does it).

    Clipping of the gradient's norm, then the optimiser, then the factors of the parameter groups; the mean gradient of
    `accumulate` batches makes one update.

    Raises:
      UserError: no such optimiser, or it does not take these arguments.
    """
    parts = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    parts.append(named(options.optimizer, options.optimizer_args, _matrices if options.decay == "matrices" else None))
    parts += [optax.stateless(lambda updates, _: _scaled(updates, options.groups))] if options.groups else []
    optimizer = optax.chain(*parts) if len(parts) > 1 else parts[0]
    return (
        optax.MultiSteps(optimizer, options.accumulate).gradient_transformation()
        if options.accumulate > 1
        else optimizer
    )


def _matrices(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _scaled(updates: Tree, groups: tuple[tuple[str, float], ...]) -> Tree:
    """The updates [...], each times the factor of the first pattern that is found in its path ("a/b/kernel")."""

    def scale(path: tuple, update: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return update * next((factor for pattern, factor in groups if re.search(pattern, name)), 1.0)

    return jax.tree_util.tree_map_with_path(scale, updates)


def named(
    name: str, arguments: Mapping[str, Any], mask: Callable[[Tree], Tree] | None = None
) -> optax.GradientTransformation:
    """An optimiser by name, with a learning rate of 1.

    `sgd` is PyTorch's: weight decay is added to the gradient before the momentum. Any other name is optax's own, built
    with `arguments`.

    Args:
      mask: parameters -> a tree of booleans: which of them weight decay shrinks; None: all.

    Raises:
      UserError: no such optimiser, or it does not take these arguments.
    """
    build = _pytorch_sgd if name == "sgd" else getattr(optax, name, None)
    if not callable(build):
        raise UserError(f"config.train.optimizer is {name!r}, expected 'sgd' or the name of an optax optimiser")
    try:
        masked = {} if mask is None else {"mask": mask}
        optimizer = build(**({} if name == "sgd" else {"learning_rate": 1.0}), **arguments, **masked)
        if not isinstance(optimizer, optax.GradientTransformation):
            raise UserError(f"config.train.optimizer is {name!r}, which is not an optimiser of optax")
        # Most optimisers look at their arguments only when they are used: tried here, on one number, without computing.
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), jnp.zeros(()))
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(
            f"config.train.optimizer_args do not fit optimiser {name!r}: {reason(error)}{_remedy(build, arguments)}"
        ) from error
    return optimizer


def _remedy(build: Callable, arguments: Mapping[str, Any]) -> str:
    """What to give instead of arguments that the optimiser does not have; "" where it has them all."""
    known = [name for name in inspect.signature(build).parameters if name not in ("learning_rate", "mask")]
    left = {name: value for name, value in arguments.items() if name in known}
    if len(left) == len(arguments):
        return ""
    return f'; it takes {", ".join(known)}: use --config.train.optimizer_args="{left}"'


def _pytorch_sgd(
    momentum: float = 0.0, weight_decay: float = 0.0, mask: Callable[[Tree], Tree] | None = None
) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay, mask), optax.trace(momentum), optax.scale(-1.0))


def learning_rate(options: Options, steps_per_epoch: int) -> Callable[[int], float]:
    """Step number of a task -> learning rate.

    `cosine` falls per epoch e, lr (1 + cos(pi e / epochs)) / 2; `smooth` per step after the warm-up,
    lr (1 + cos(pi s / S)) / 2; `constant`. In a warm-up of w steps it rises linearly: step s has s / w of it.
    `log` has a warm-up of its own, `log_warmup` over W = ceil(warmup_share U) of the task's U updates, each of
    `accumulate` batches; too few of them at the end make no update, and count as one in U.
    """
    epochs = options.epochs_in(steps_per_epoch)
    total, peak, warmup = steps_per_epoch * epochs, options.lr, options.warmup
    if options.schedule == "log":
        updates = -(-total // options.accumulate)
        return lambda step: peak * log_warmup(step // options.accumulate, math.ceil(updates * options.warmup_share))

    def rate(step: int) -> float:
        if options.schedule == "constant":
            return peak
        if options.schedule == "smooth":
            share = min(max(step - warmup, 0) / max(total - warmup, 1), 1.0)
            return peak * 0.5 * (1.0 + math.cos(math.pi * share))
        return peak * 0.5 * (1.0 + float(np.cos(np.pi * (step // steps_per_epoch) / epochs)))

    return lambda step: rate(step) * (step / warmup) if step < warmup else rate(step)


def log_warmup(step: int, warmup: int) -> float:
    """Share of the learning rate in a step, dimensionless: min(1, ln s / ln max(2, W)), and all of it in step 0.

    That is DeepSpeed's WarmupLR of type "log" as its first steps are run: step 0 comes before the schedule begins.
    """
    return min(1.0, math.log(step) / math.log(max(2, warmup))) if step else 1.0
