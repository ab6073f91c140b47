"""LPI: low-rank prompts of both modalities from partly shared factors, kept apart task by task.

The equations are those of Low-rank Prompt Interaction (ACM MM 2024, arXiv 2501.14369); one task's trainable tree is
{'factors': {...}} and, with `interaction`, also 'interaction': {'to_text': {...}, 'to_vision': {...}}. With injection
"attend" every layer has a gate, 'gates': {'visual': [L], 'textual': [L]}: prompts are keys, and values times the gate,
so that at a gate of zero training begins at the frozen model itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lpi_jax.errors import UserError
from lpi_jax.losses import alignment_loss, current_task_loss, projected_alignment_loss, task_loss
from lpi_jax.methods import base, interaction, routing, similarity
from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import Method, Site, TaskContext
from lpi_jax.methods.factors import attended, expand
from lpi_jax.methods.interaction import interact
from lpi_jax.methods.similarity import Rule
from lpi_jax.options import TRAINING, both, option, with_, with_any
from lpi_jax.parallel import processes
from lpi_jax.types import Adapter, Tree

JOINT = ("visual_projection", "text_projection", "logit_scale")  # of the backbone: how features meet
CONTEXT_ENDS = 3  # positions of a context that are no prompt's: start, end, one word
FACTOR_STD = 0.5

_expand = jax.jit(expand)


@dataclass(frozen=True)
class Options(base.Options):
    """What distinguishes one LPI from another; the numbers are the method's own for CLIP ViT-B/16."""

    trains: ClassVar[bool] = True
    routes: ClassVar[bool] = True
    keeps_tasks: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("vision", "text")

    length: int = option(16, "prompts a layer; 0: what the backbone has room for, up to 16", least=0)
    rank: int = option(4, "of the low-rank factors", least=1)
    layers: int = option(9, "layers that have prompts; 0: as many as the backbone has, up to 9", least=0)
    depth: int = option(9, "how many of these enter the towers; 0: all", least=0)
    injection: str = option(
        "add",
        "how prompts meet what is there: at positions of their own, to which deeper ones are added or whose place they"
        " take, or as keys and values that every token attends to",
        choices=("add", "replace", "attend"),
    )
    gate: float = option(
        0.0,
        "of the values, before training; at 0 training begins at the frozen model",
        reader=both(with_("method.injection", "attend"), TRAINING),
    )
    shared: bool = option(True, "whether the two modalities share the factor of layers")
    interaction: bool = option(False, "whether the two modalities' factors interact")
    interaction_form: str = option(
        "norm",
        "what becomes of their prompts: of LayerNorm's size, or as large as they were and the first layer as it is",
        choices=("norm", "residual"),
        reader=with_any("method.interaction"),
    )
    alignment: str = option(
        "cosine",
        "form of the loss between the modalities: of the prompts' means over the width, or of what the towers see",
        choices=("released", "cosine", "projected"),
        reader=TRAINING,
    )
    alignment_weight: float = option(0.1, "its weight", least=0, reader=TRAINING)
    task: str = option(
        "intended",
        "form of the loss between tasks: of all pairs of tasks, or of the current task's own alone",
        choices=("released", "intended", "current"),
        reader=TRAINING,
    )
    task_weight: float = option(0.1, "its weight", least=0, reader=TRAINING)
    threshold: float = option(
        0.4,
        "cosine above which two tasks count as similar",
        reader=both(with_("method.task", "released", "intended"), TRAINING),
    )
    similar_share: float = option(
        0.5,
        "share of all pairs of tasks so far that count as similar",
        least=0,
        most=1,
        reader=both(with_("method.task", "current"), TRAINING),
    )
    similarity: str = option(
        "text",
        "of tasks: text (by the frozen text tower), or a CSV table",
        reader=TRAINING,
        content="similarity",
    )

    @property
    def rule(self) -> Rule:
        """Which tasks count as similar."""
        share = self.similar_share if self.task == "current" else None
        return Rule(self.similarity, self.threshold, share)

    def __post_init__(self) -> None:
        if self.layers and self.depth > self.layers:
            raise UserError(
                f"config.method.depth is {self.depth}, expected at most config.method.layers, {self.layers}; use"
                f" --config.method.depth={self.layers} or --config.method.layers={self.depth}"
            )


# As changes of dotted keys. `released`: the authors' release, without the defects that make it crash. `anchored`:
# prompts that begin at the frozen model, tasks told apart by a discriminant, scores that are comparable between tasks.
PRESETS = {
    "anchored": {
        "method.injection": "attend",
        "method.alignment_weight": 0.0,
        "method.task_weight": 0.0,
        "routing.rule": "lda",
        "routing.features": "tower",
        "eval.score": "matched+prior",
        "eval.equal_texts": "one",
        "train.optimizer": "adam",
        "train.schedule": "smooth",
        "train.lr": 0.03,
        "train.min_steps": 60,
        "train.held_out": 0.1,
    },
    "released": {
        "pixels": "imagenet",
        "method.depth": 1,
        "method.alignment": "released",
        "method.task": "released",
        "routing.caption": "placeholders",
        "eval.transform": "random",
    },
}


def fitted(options: Options, sites: Mapping[str, Site]) -> Options:
    """The options with a value for every size that is 0 because it follows from the backbone.

    Length: the largest power of two up to the method's 16 that takes at most a third of the patches' number and a
    quarter of the context. Layers: the method's 9, or what the smaller tower has. Depth: all of them. ViT-B/16 gets the
    method's own numbers, the bundled backbone those of `config.for_tiny_backbone`.

    Raises:
      UserError: prompts that do not fit into the backbone.
    """
    vision, text = sites["vision"], sites["text"]
    blocks = min(vision.layers, text.layers)
    room = max(1, min(16, vision.room // 3, (text.room + CONTEXT_ENDS) // 4))
    layers = options.layers or max(min(9, blocks), options.depth)
    fit = replace(
        options,
        length=options.length or 1 << (room.bit_length() - 1),
        layers=layers,
        depth=options.depth or min(layers, blocks),
    )
    for name, site in (("vision", vision), ("text", text)):
        if fit.depth > site.layers:
            raise UserError(
                f"config.method.depth is {fit.depth}, but the {name} tower has {site.layers} layers; use"
                f" --config.method.depth={blocks}, or --config.method.depth=0 for as many as there are"
            )
    if fit.length > min(vision.room, text.room):
        raise UserError(
            f"config.method.length is {fit.length}, too long for a context of {text.room + CONTEXT_ENDS} tokens"
            f" and {vision.room} patches; use --config.method.length={min(text.room, vision.room)} or"
            " less, or --config.method.length=0 to have it chosen"
        )
    return fit


def init(options: Options, sites: Mapping[str, Site], key: Array) -> Tree:
    """A new task's trainable tree, every number drawn from N(0, 0.5^2); 5,284 numbers at CLIP ViT-B/16's defaults.

    But for the gates, which begin at `options.gate`; with them 5,302. An interaction of form "residual" begins as the
    identity.

    Args:
      options: with every size (`fitted`). key: a scalar random key.
    """
    o, vision_width, text_width = options, sites["vision"].width, sites["text"].width
    shapes: Tree = {
        "factors": {
            **dict.fromkeys(("layer",) if o.shared else ("layer_visual", "layer_textual"), (o.layers, o.rank)),
            "token_visual": (o.length, o.rank),
            "token_textual": (o.length, o.rank),
            "width_visual": (vision_width, o.rank),
            "width_textual": (text_width, o.rank),
        }
    }
    if o.interaction:
        shapes["interaction"] = interaction.shapes(o.layers, o.rank, vision_width, text_width)
    leaves, treedef = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(key, len(leaves))
    drawn = [FACTOR_STD * jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, leaves, strict=True)]
    tree = treedef.unflatten(drawn)
    if o.interaction:
        tree["interaction"] = interaction.begun(tree["interaction"], o.interaction_form)
    if o.injection == "attend":
        tree["gates"] = {name: jnp.full(o.layers, o.gate, jnp.float32) for name in ("visual", "textual")}
    return tree


def context(options: Options, one: Tree, finished: Tree, alike: np.ndarray) -> Tree:
    """What a new task's losses compare it with: the finished tasks' prompts and similarities, padded to a capacity.

    Args:
      one: the shapes of one task's factors. finished: the factors of T finished tasks, leaves [T, ...], or {}.
      alike: [T + 1, T + 1] float32 cosines of the tasks' meanings, the new one last.

    Returns:
      visual [C, L, P, Dv], textual [C, L, P, Dx], similarity [C, C] float32; current: T, the new task's empty row; with
      `options.task` "current" also threshold [] float32, the cosine above which tasks count as similar.
    """
    count = len(alike) - 1
    capacity = memories.capacity(count + 1)
    # Padded on the host before anything is computed: one shape, one compilation.
    factors = jax.tree.map(lambda leaf: np.zeros((capacity, *leaf.shape), np.float32), one)
    for name, rows in factors.items() if count else ():
        rows[:count] = finished[name]
    padded = np.zeros((capacity, capacity), np.float32)
    padded[: count + 1, : count + 1] = alike
    visual, textual = _expand(factors)
    known = {"visual": visual, "textual": textual, "similarity": jnp.asarray(padded), "current": jnp.int32(count)}
    if options.task == "current":
        known["threshold"] = jnp.float32(options.rule.limit(alike))
    return known


def mixed(options: Options, trainable: Tree) -> tuple[Array, Array]:
    """Prompts visual [L, P, Dv] and textual [L, P, Dx], expanded and, where there are maps for it, interacted."""
    visual, textual = expand(trainable["factors"])
    if "interaction" in trainable:
        visual, textual = interact(trainable["interaction"], visual, textual, options.interaction_form)
    return visual, textual


def prompts(options: Options, trainable: Tree) -> dict[str, Array]:
    """By site the prompts that enter the towers, [depth, P, D]; with injection "attend" [depth, 2P, D]."""
    visual, textual = mixed(options, trainable)
    if "gates" in trainable:
        gates = trainable["gates"]
        visual, textual = attended(visual, gates["visual"]), attended(textual, gates["textual"])
    return {"vision": visual[: options.depth], "text": textual[: options.depth]}


def losses(options: Options, trainable: Tree, constants: Tree) -> dict[str, Array]:
    """The weighted alignment loss, and the task loss from the second task on, scalars in nats.

    Args:
      trainable: the task's tree. constants: from `context`; with `options.alignment` "projected" also those of the
        frozen leaves that are named in `JOINT`.
    """
    # As they are expanded: an interaction changes prompts only for the towers, and so for the alignment "projected".
    visual, textual = expand(trainable["factors"])
    current = constants["current"]
    index = jnp.arange(len(constants["similarity"]))

    def distance(finished: Array, own: Array) -> Array:
        if options.task == "current":
            similar = constants["similarity"][current] > constants["threshold"]
            return current_task_loss(own, finished, similar, seen=index < current)
        stacked = jnp.where((index == current)[:, None, None, None], own, finished)
        return task_loss(stacked, constants["similarity"], options.task, options.threshold, seen=index <= current)

    if options.alignment == "projected":
        to_visual, to_textual, logit_scale = (constants[name] for name in JOINT)
        to_joint = to_visual["kernel"], to_textual["kernel"]
        aligned = projected_alignment_loss(*mixed(options, trainable), *to_joint, jnp.exp(logit_scale))
    else:
        aligned = alignment_loss(visual, textual, options.alignment)
    align = options.alignment_weight * aligned
    apart = (distance(constants["visual"], visual) + distance(constants["textual"], textual)) / 2
    return {"align": align, "task": options.task_weight * jnp.where(current > 0, apart, 0.0)}


def without_values(trainable: Tree) -> Tree:
    """A task's tree with every gate closed: nothing is attended to, and the towers are the frozen ones."""
    return {**trainable, "gates": jax.tree.map(np.zeros_like, trainable["gates"])}


def facts(options: Options, memory: Tree, names: Sequence[str]) -> dict[str, Any]:
    """What the results tell: how alike the tasks are, and which of them are left to the frozen backbone."""
    told = similarity.facts(memory, names, options.rule, options.task_weight)
    if options.injection != "attend":
        return told
    open_gates = [np.any(gates, axis=1) for gates in memory["trained"]["gates"].values()]
    plain = [name for name, *some in zip(names, *open_gates, strict=True) if not any(some)]
    return {**told, "plain_tasks": {"count": len(plain), "names": plain}}


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """LPI as the loop sees it. Raises UserError for prompts that do not fit into the backbone."""
    options = fitted(options, sites)

    def begin(key: Array, memory: Tree, frozen: Tree, task: TaskContext) -> tuple[Tree, Tree]:
        meanings = np.concatenate([*([memory["descriptions"]] if memory else []), task.meaning[None]])
        alike = processes.copied(options.rule.cosines(meanings, task.names))
        one = jax.eval_shape(lambda: init(options, sites, jax.random.key(0)))["factors"]
        finished = memory["trained"]["factors"] if memory else {}
        known = context(options, one, finished, alike)
        if options.alignment == "projected":
            known |= base.kept({name: frozen[name] for name in JOINT})
        return init(options, sites, key), known

    return Method(
        name="lpi",
        options=options,
        begin=begin,
        adapt=lambda trainable, constants, frozen, queries: (Adapter(frozen, prompts(options, trainable)), None),
        finish=lambda memory, trainable, task: routing.remembered(memory, trainable, task, router),
        view=lambda memory, task: (memories.row(memory["trained"], task), {}),
        losses=lambda trainable, constants, *_: losses(options, trainable, constants),
        assign=partial(routing.assign, options=router),
        reserve=base.NOTHING if options.injection == "attend" else {"vision": options.length, "text": options.length},
        injection=options.injection,
        check=partial(similarity.check, source=options.similarity),
        plain=without_values if options.injection == "attend" else None,
        facts=partial(facts, options),
    )
