"""ModalPrompt: every task has prompts of its own, and a sample gets those of the tasks that it is most like.

The method of ModalPrompt (arXiv 2410.05849) for a language model that sees images. A task's trainable tree is
{"prompts": [P, D], "transform": {"hidden": ..., "out": ...}}, float32: the transform makes a prototype of the prompts
(`lpi_jax.methods.prototypes`) and learns from the alignment losses alone; the prompts learn from these and from the
problem's own. Finished tasks are only shown: nothing of them changes, and a choice has no gradient.

Queries are of one side, "sample": [B, 2C + 1] float32, rows [v, q, w] of image features v [C], text features q [C], and
w, 1 where the sample has an image and 0 where it is text alone.

A memory holds "trained", a task's tree with leaves [T, ...], and "prototypes" [T, C] float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.errors import UserError
from lpi_jax.methods import base, routing
from lpi_jax.methods import memory as memories
from lpi_jax.methods.adapter_ids import decoded, encoded, most_tasks
from lpi_jax.methods.base import PLAIN, Assigned, Method, Queries, Site, TaskContext
from lpi_jax.methods.prototypes import init_transform, losses, prototypes, scores, select, select_padded
from lpi_jax.options import TRAINING, option
from lpi_jax.parallel import processes
from lpi_jax.parallel.placement import whole
from lpi_jax.types import Adapter, Tree

SITE = base.LANGUAGE  # where the prompts enter
SIDE = "sample"  # what the queries are of

_prototypes = jax.jit(prototypes)


@dataclass(frozen=True)
class Options(base.Options):
    """How many prompts, how they are chosen, and what trains."""

    routes: ClassVar[bool] = True
    own_rule: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = (SITE,)
    keeps_tasks: ClassVar[bool] = True

    sets: int = option(3, "tasks whose prompts a sample gets, at most", least=1)
    prompts: int = option(10, "prompts of a task", least=1)
    share: float = option(0.5, "of the image in a sample's score with a task; the text has the rest", least=0, most=1)
    align_weight: float = option(
        1.0, "of the losses that draw a task's prototype to its images and texts", least=0, reader=TRAINING
    )
    freeze_last: bool = option(
        False, "whether the prompts of a stream's last task stay as they were drawn (the release's)", reader=TRAINING
    )
    text_only: str = option(
        "zero_image",
        "how samples without an image are measured: with prompts, as if their image were empty, or without any",
        choices=("zero_image", "bypass"),
    )


# As changes of dotted keys. `released`: what the authors' release computes, with its quirks.
_INTENDED = {
    "problem.name": "instruction",
    "data.name": "questions",
    "train.optimizer": "adamw",
    "train.optimizer_args": {"weight_decay": 0.0},
    "train.lr": 2e-4,
    "train.schedule": "log",
    "train.warmup_share": 0.03,
    "train.clip_norm": 1.0,
    "train.epochs": 10,
}
PRESETS = {
    "intended": _INTENDED,
    "released": {
        **_INTENDED,
        "problem.guidance_text": "released",
        "eval.image": "published",
        "method.freeze_last": True,
        "method.text_only": "bypass",
    },
}


# ---- a task's tree ---------------------------------------------------------------------------------------------------


def vocabulary(frozen: Tree) -> Array:
    """[V, D], the language model's embeddings in the backbone's tree."""
    return frozen["language_model"]["embed_tokens"]["embedding"]


def init(key: Array, options: Options, table: Array, width: int, words: int = 0) -> Tree:
    """A new task's tree; 19,968,768 numbers at LLaVA-1.5-7B's widths.

    Each prompt is a copy of a row of the vocabulary, all equally likely; the transform is from `init_transform`.

    Args:
      key: a scalar random key, the task's own: what it begins with depends on no other task.
      table: [V, D], the vocabulary's embeddings. width: C, of image and text features.
      words: how many of its rows, from the first, are of words; 0: all.

    Returns:
      {"prompts": [P, D], "transform": leaves as `prototypes` takes them, without T}, float32.
    """
    of_prompts, of_transform = jax.random.split(key)
    # Of host: the table may lie on the devices of several processes.
    rows = np.asarray(jax.random.randint(of_prompts, (options.prompts,), 0, words or len(table)))
    return {
        "prompts": jnp.asarray(whole(table[rows]), jnp.float32),
        "transform": init_transform(of_transform, table.shape[1], width),
    }


def prototype(trainable: Tree) -> Array:
    """[C] float32, the prototype of one task's tree."""
    one = jax.tree.map(lambda leaf: leaf[None], trainable)
    return prototypes(one["prompts"], one["transform"])[0]


def parts(queries: Array) -> tuple[Array, Array]:
    """Image features [B, C] and text features [B, C] of queries [B, 2C + 1]."""
    width = queries.shape[1] // 2
    return queries[:, :width], queries[:, width:-1]


# ---- which adapter a sample gets -------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("sets", "share"))
def _choices(queries: Array, rows: Array, sets: int, share: float) -> tuple[Array, Array]:
    scored = scores(*parts(queries), rows, share)
    return select(scored, sets, training=False), scored


def choices(memory: Tree, queries: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The tasks whose prompts samples get after training, the best last; also of samples that are text alone.

    Args:
      memory: of T tasks, at least one. queries: [N, 2C + 1] float32.

    Returns:
      [N, min(sets, T)] int32, numbers from 0; and the scores [N, T] float32 of all tasks.
    """
    found = _choices(queries, memory["prototypes"], options.sets, options.share)
    # The first process's: another processor may round otherwise.
    return processes.copied(tuple(np.asarray(part) for part in found))


def assign(
    memory: Tree, queries: Mapping[str, np.ndarray], known: Mapping[str, Assigned], options: Options
) -> dict[str, Assigned]:
    """The adapter of every sample: `encoded` of its choice, or -1.

    -1 before the first task, and with `options.text_only` "bypass" for samples without an image.

    Args:
      queries: {"sample": [N, 2C + 1] float32}. known: what was said before; not looked at.

    Returns:
      {"sample": ids, the tasks chosen with their scores, and a posterior that is 1 at the best of them, or at none}.
    """
    rows = queries[SIDE]
    if not memory:
        return {SIDE: Assigned.nowhere(len(rows))}
    tasks, scored = choices(memory, rows, options)
    bypassed = (rows[:, -1] == 0) & (options.text_only == "bypass")
    ids = np.where(bypassed, np.int32(PLAIN), encoded(tasks, options.sets))
    chosen = np.where(bypassed[:, None], np.int32(PLAIN), tasks)
    posterior = base.one_hot(chosen[:, -1], memories.count(memory))
    told = {"ids": ids, "posterior": posterior, "chosen": chosen, "scores": scored}
    return {SIDE: Assigned.nowhere(len(rows))._replace(**told)}


# ---- the method ------------------------------------------------------------------------------------------------------


def shown(options: Options, trainable: Tree, constants: Tree, queries: Queries) -> tuple[Array, Array, Any]:
    """What a training batch gets: finished tasks' prompts by each sample's scores, and behind them the current one's.

    Args:
      trainable: the current task's tree. constants: from `begin`. queries: {"sample": [B, 2C + 1]}.

    Returns:
      sets [B, K, P, D] and whether they are there [B, K] bool; features and prototype for the losses.
    """
    constants, rows = jax.lax.stop_gradient((constants, queries[SIDE]))
    image, text = parts(rows)
    own = trainable["prompts"]
    if options.freeze_last:
        own = jnp.where(constants["held"], jax.lax.stop_gradient(own), own)
    ranked = scores(image, text, constants["prototypes"], options.share)
    tasks, there = select_padded(ranked, constants["count"], options.sets, training=True)
    finished = constants["prompts"][tasks[:, :-1]]
    sets = jnp.concatenate([finished, jnp.broadcast_to(own, (len(rows), 1, *own.shape))], 1)
    aligned = {"image": image, "text": text, "prototype": prototype({**trainable, "prompts": own})}
    return sets, there, aligned


def adapter(frozen: Tree, sets: Array, there: Array) -> Adapter:
    """The backbone under sets of prompts [..., K, P, D], of which those are there that [..., K] bool says."""
    *batch, _, prompts, width = sets.shape
    return Adapter(frozen, {SITE: sets.reshape(*batch, 1, -1, width)}, {SITE: jnp.repeat(there, prompts, -1)})


def context(options: Options, memory: Tree, task: TaskContext, one: Tree, width: int) -> Tree:
    """What a new task is shown beside the finished ones, padded to a capacity.

    Args:
      one: the new task's tree. width: C.

    Returns:
      prompts [R, P, D], prototypes [R, C] float32 of the finished tasks, R at least their number and one; count: int32
      scalar, tasks so far with the new one; with `options.freeze_last` also held: bool scalar, whether its prompts do
      not train.
    """
    count = memories.count(memory) + 1
    room = memories.capacity(max(count, options.sets))
    constants = {
        "prompts": np.zeros((room, *one["prompts"].shape), np.float32),
        "prototypes": np.zeros((room, width), np.float32),
        "count": np.int32(count),
    }
    if memory:
        constants["prompts"][: count - 1] = memory["trained"]["prompts"]
        constants["prototypes"][: count - 1] = memory["prototypes"]
    return {**constants, **({"held": np.bool_(task.last)} if options.freeze_last else {})}


def view(options: Options, memory: Tree, number: int) -> tuple[Tree, Tree]:
    """The tree of the last task that an adapter id names, and all of its sets in their order.

    Returns:
      The trained tree of that task, for who takes it over; and what `adapt` looks at alone, so that these of several
      items may be stacked: sets [K, P, D], there [K] bool, empty ones first. Host arrays.
    """
    tasks = decoded(number, options.sets)
    prompts = memory["trained"]["prompts"]
    sets = np.zeros((options.sets, *prompts.shape[1:]), prompts.dtype)
    sets[-len(tasks) :] = prompts[list(tasks)]
    there = np.arange(options.sets) >= options.sets - len(tasks)
    return memories.row(memory["trained"], tasks[-1]), {"sets": sets, "there": there}


def facts(options: Options, memory: Tree, names: Sequence[str]) -> dict[str, Any]:
    """What the results tell: how many prompts a sample has so far, and cosines [T, T] of the tasks' prototypes.

    The nearer these are to 1, the less the scores of a sample with different tasks differ.
    """
    rows = memory["prototypes"]
    sets = min(options.sets, len(rows))
    alike = scores(rows, rows, rows)
    return {"prompt_sets": {"sets": sets, "tokens": sets * options.prompts, "similarity": np.asarray(alike).tolist()}}


def check(options: Options, names: Sequence[str]) -> None:
    """Raises UserError where there are more tasks than the ids of adapters can tell apart."""
    if len(names) > most_tasks(options.sets):
        raise UserError(
            f"config.method.sets is {options.sets}, with which {most_tasks(options.sets)} tasks can be told apart, but"
            f" the stream has {len(names)}; expected fewer sets or fewer tasks"
        )


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """ModalPrompt as the loop sees it.

    Raises:
      UserError: the backbone has no language model, or no room for as many prompts.
    """
    tokens = options.sets * options.prompts
    if SITE not in sites:
        raise UserError(
            f"config.method.name is 'modalprompt', but the backbone takes prompts at {', '.join(sites)} alone; expected"
            " one with a language model"
        )
    if tokens > sites[SITE].room:
        raise UserError(
            f"config.method.sets is {options.sets} and config.method.prompts {options.prompts}, but the language model"
            f" has room for {sites[SITE].room} prompts; expected a product of at most that"
        )

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        width = len(task.meaning)
        trainable = base.apart(init(key, options, vocabulary(frozen), width, sites[SITE].words))
        return trainable, context(options, memory, task, trainable, width)

    def adapt(trainable: Tree, constants: Tree, frozen: Tree, queries: Queries) -> tuple[Adapter, Any]:
        if "sets" in constants:
            return adapter(frozen, constants["sets"], constants["there"]), None
        sets, there, aligned = shown(options, trainable, constants, queries)
        return adapter(frozen, sets, there), aligned

    def finish(memory: Tree, trainable: Tree, task: TaskContext) -> Tree:
        stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], trainable)
        own = np.asarray(_prototypes(stacked["prompts"], stacked["transform"]))[0]
        return memories.appended(memory, {"trained": trainable, "prototypes": processes.copied(own)})

    def align(trainable: Tree, constants: Tree, aligned: Any, *_: Any) -> dict[str, Array]:
        return {name: options.align_weight * value for name, value in losses(**aligned).items()}

    return Method(
        name="modalprompt",
        options=options,
        begin=begin,
        adapt=adapt,
        finish=finish,
        view=partial(view, options),
        losses=align,
        assign=partial(assign, options=options),
        reserve={SITE: tokens},
        wants_queries=True,
        check=partial(check, options),
        facts=partial(facts, options),
    )
