"""The training of projector and LLaMA from scratch; it goes on from its last checkpoint."""

import csv
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import network
import numpy as np
import optax
import variants
from flax import serialization
from rows import Rows
from tqdm import tqdm

from lpi_jax.data.loader import ahead
from lpi_jax.files import write_atomically
from lpi_jax.models.llava.llava import LLaVA, init_params
from lpi_jax.types import Tree

RISING = 200  # steps in which the rate rises, in every round
WEIGHT_DECAY, B2, CLIP_NORM = 0.05, 0.98, 1.0
EVERY = 20  # steps between points of the curve, and checkpoints


class Round(NamedTuple):
    """Steps in which the rate rises to its peak, then falls to 0."""

    steps: int
    peak: float


class Point(NamedTuple):
    """Losses in nats a token: of the steps since the last point; of a held-out batch; of it, pictures exchanged."""

    step: int
    train: float
    held_out: float
    other_picture: float


class Progress(NamedTuple):
    """What is kept: steps done, seconds they took, the trained tree, the optimiser's state, the curve."""

    step: int
    seconds: float
    trained: Tree
    optimiser: Any
    curve: list[Point]


def optimiser(rounds: Sequence[Round]) -> optax.GradientTransformation:
    """AdamW on clipped gradients; in every round the rate rises linearly, then falls as a cosine does."""

    def matrices(tree: Tree) -> Tree:
        return {
            name: jax.tree.map(lambda leaf, decays=name != network.PREFIXES: decays and leaf.ndim > 1, part)
            for name, part in tree.items()
        }

    rates = [
        optax.warmup_cosine_decay_schedule(0.0, each.peak, min(RISING, each.steps // 2), each.steps) for each in rounds
    ]
    rate = optax.join_schedules(rates, np.cumsum([each.steps for each in rounds])[:-1].tolist())
    return optax.chain(
        optax.clip_by_global_norm(CLIP_NORM), optax.adamw(rate, b2=B2, weight_decay=WEIGHT_DECAY, mask=matrices)
    )


def train(
    model: LLaVA,
    frozen: Tree,
    make: Callable[[int], Rows],
    held_out: Rows,
    rounds: Sequence[Round],
    seed: int,
    work: Path,
) -> Progress:
    """Trains projector and LLaMA.

    Args:
      frozen: CLIP's part of the tree. make: step -> its batch, a function of the step alone. held_out: a batch.
      work: folder of the checkpoint.
    """
    random = init_params(model.config, jax.random.key(seed))
    chain, steps = optimiser(rounds), sum(each.steps for each in rounds)
    prefixes = [
        0.02 * jax.random.normal(jax.random.key(seed + number), (sets * variants.LENGTH, model.config.llama.width))
        for number, sets in ((1, variants.COUNT), (2, variants.MISLEADING))
    ]
    trained = {**{name: random[name] for name in network.TRAINED}, network.PREFIXES: jnp.concatenate(prefixes)}
    start = resumed(work, Progress(0, 0.0, trained, chain.init(trained), []))

    @jax.jit
    def update(trained: Tree, state: Any, frozen: Tree, rows: Rows) -> tuple[Tree, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(network.loss)(trained, frozen, model, rows)
        updates, state = chain.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, loss

    judge = jax.jit(partial(network.loss, model=model))
    exchanged = held_out._replace(images=np.roll(held_out.images, 1, axis=0))
    step, seconds, trained, state, curve = start
    began, losses = time.time() - seconds, []
    with tqdm(total=steps, initial=step, desc="pretraining", mininterval=30) as bar:
        for rows in ahead(make, range(step, steps)):
            trained, state, loss = update(trained, state, frozen, rows)
            losses.append(float(loss))
            step += 1
            bar.update()
            if step % EVERY == 0 or step == steps:
                seen, other = (float(judge(trained, frozen, rows=one)) for one in (held_out, exchanged))
                curve.append(Point(step, float(np.mean(losses)), seen, other))
                losses.clear()
                bar.set_postfix_str("{1:.3f} {2:.3f} {3:.3f}".format(*curve[-1]))
                save(work, Progress(step, time.time() - began, trained, state, curve))
    return Progress(step, time.time() - began, trained, state, curve)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def save(work: Path, progress: Progress) -> None:
    """Writes WORK/checkpoint.msgpack."""
    content = {
        "trees": serialization.to_state_dict((progress.trained, progress.optimiser)),
        "told": json.dumps([progress.step, progress.seconds, progress.curve]),
    }
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(work / "checkpoint.msgpack", lambda file: file.write(serialization.msgpack_serialize(content)))


def resumed(work: Path, fresh: Progress) -> Progress:
    """The last checkpoint's progress, or `fresh` where there is none."""
    if not (work / "checkpoint.msgpack").is_file():
        return fresh
    content = serialization.msgpack_restore((work / "checkpoint.msgpack").read_bytes())
    trees = serialization.from_state_dict((fresh.trained, fresh.optimiser), content["trees"])
    step, seconds, curve = json.loads(content["told"])
    return Progress(step, seconds, *trees, [Point(*point) for point in curve])


def draw(curve: list[Point], out: Path) -> None:
    """loss.csv and loss.png in the folder `out`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    with open(out / "loss.csv", "w", newline="") as file:
        csv.writer(file).writerows([Point._fields, *((p.step, *(f"{x:.4f}" for x in p[1:])) for p in curve)])
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    steps = [point.step for point in curve]
    for name, label in (("train", "training"), ("held_out", "held out"), ("other_picture", "held out, other pictures")):
        axes.plot(steps, [getattr(point, name) for point in curve], label=label)
    axes.set(xlabel="step", ylabel="loss of the answers, nats a token", title="Pretraining the bundled LLaVA")
    axes.legend()
    figure.savefig(out / "loss.png", dpi=110)
