"""What instruction following computes, in shapes: a training batch, the towers' features, and whole answers."""

import jax
import numpy as np
from jax.sharding import Mesh

from lpi_jax.methods.base import Method
from lpi_jax.models.llava.config import LlavaConfig
from lpi_jax.problems.base import Call
from lpi_jax.problems.instruction import answering
from lpi_jax.problems.instruction.problem import Instruction
from lpi_jax.problems.instruction.sides import SITE
from lpi_jax.problems.made import planned
from lpi_jax.types import Tree

IDS = 416  # of a conversation: 1,021 positions with the 576 patches of LLaVA-1.5 and 30 prompts


def batch(llava: LlavaConfig, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch [rows, ...], each with an image."""
    return {
        **_seen(llava, rows),
        **_asked(rows),
        "labels": jax.ShapeDtypeStruct((rows, IDS), np.int32),
        "question_ids": _questions(llava, rows),
    }


def calls(
    problem: Instruction, method: Method, backbone: tuple[Tree, Mesh], trees: tuple[Tree, Tree]
) -> dict[str, Call]:
    """What the method is asked with, and answers, as evaluation computes them (`answering.programs`).

    Args:
      backbone: its leaves, and the mesh. trees: the method's trainable and constants.
    """
    (frozen, mesh), llava, measured = backbone, problem.model.config, problem.measured
    run, rows, params = answering.programs(problem, measured.max_new, mesh), measured.batch, frozen
    asked = {**_seen(llava, rows), **_asked(rows)}
    if tokens := method.reserve.get(SITE, 0):
        asked["prompts"] = jax.ShapeDtypeStruct((rows, 1, tokens, llava.llama.width), np.float32)
        asked["present"] = jax.ShapeDtypeStruct((rows, tokens), np.bool_)
    else:
        params = planned(method, *trees, frozen).params
    towers = {**_seen(llava, rows), "question_ids": _questions(llava, rows)}
    return {
        "queries": Call(run.queries, (frozen, towers)),
        f"answers of {measured.max_new} tokens": Call(run.answers, (params, asked)),
    }


def _seen(llava: LlavaConfig, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    size = llava.clip.image_size
    return {
        "images": jax.ShapeDtypeStruct((rows, size, size, 3), np.float32),
        "has_image": jax.ShapeDtypeStruct((rows,), np.bool_),
    }


def _asked(rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        "ids": jax.ShapeDtypeStruct((rows, IDS), np.int32),
        "length": jax.ShapeDtypeStruct((rows,), np.int32),
    }


def _questions(llava: LlavaConfig, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, llava.clip.context_length), np.int32)
