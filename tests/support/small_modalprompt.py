"""Small ModalPrompts: widths, a task's context, drawn trees and what a method remembers of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lpi_jax.methods import modalprompt, routing
from lpi_jax.methods.base import Site
from lpi_jax.methods.modalprompt import Options

D, C, P, V, B = 6, 5, 2, 11, 4
SITES = {"language": Site(1, D, 64)}
SMALL = {"prompts": P, "sets": 3}
LAYERS = ("hidden", "out")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Context(NamedTuple):
    """What the method asks of a task."""

    number: int
    last: bool = False
    meaning: np.ndarray = np.zeros(C, np.float32)


def build(**options):
    return modalprompt.build(Options(**{**SMALL, **options}), SITES, routing.Options())


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-8)


def through(transform, prompts):
    """[P, C] float64: the network of one task, row by row."""
    hidden = prompts @ transform["hidden"]["kernel"] + transform["hidden"]["bias"]
    return hidden / (1 + np.exp(-hidden)) @ transform["out"]["kernel"] + transform["out"]["bias"]


def vocabulary():
    """A backbone's tree with nothing but the language model's embeddings [V, D]."""
    table = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
    return {"language_model": {"embed_tokens": {"embedding": jnp.asarray(table)}}}


def drawn(seed, tasks):
    """Stacked trees of so many tasks, leaves [T, ...]."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        return rng.normal(size=(tasks, *shape)).astype(np.float32)

    return {
        "prompts": rows(P, D),
        "transform": {
            "hidden": {"kernel": rows(D, D), "bias": rows(D)},
            "out": {"kernel": rows(D, C), "bias": rows(C)},
        },
    }


def remembered(method, tasks, seed=2):
    """The memory of a method behind so many drawn tasks."""
    memory, stacked = {}, drawn(seed, tasks)
    for number in range(tasks):
        memory = method.finish(memory, jax.tree.map(lambda leaf, n=number: leaf[n], stacked), Context(number))
    return memory
