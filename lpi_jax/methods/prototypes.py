"""Tasks as points in the space of image and text features: what maps prompts there, and which tasks are nearest.

The part of ModalPrompt (arXiv 2410.05849) that chooses. A task's prototype is the mean of its prompts behind a network
of its own; a sample, an image and a text, is compared with the prototypes of all tasks, and its scores choose whose
prompts it gets. Everything is float32 whatever the backbone computes in: two tasks' scores may be nearly equal.
"""

import jax
import jax.numpy as jnp
from jax import Array

from lpi_jax.types import Tree

EPSILON = 1e-8  # least length in a cosine, that of PyTorch's


def init_transform(key: Array, inputs: int, outputs: int) -> Tree:
    """A new task's network: {"hidden": {"kernel" [D, D], "bias" [D]}, "out": {"kernel" [D, C], "bias" [C]}}.

    Every number is drawn from U(-1 / sqrt(D), 1 / sqrt(D)), D being the inputs of both layers, as PyTorch's `nn.Linear`
    begins; float32.

    Args:
      key: a scalar random key. inputs: D. outputs: C.
    """
    bound = inputs**-0.5

    def drawn(key: Array, *shape: int) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    hidden, hidden_bias, out, out_bias = jax.random.split(key, 4)
    return {
        "hidden": {"kernel": drawn(hidden, inputs, inputs), "bias": drawn(hidden_bias, inputs)},
        "out": {"kernel": drawn(out, inputs, outputs), "bias": drawn(out_bias, outputs)},
    }


def prototypes(prompts: Array, transforms: Tree) -> Array:
    """p_i = mean_j g_i(P_i[j]), g_i(x) = silu(x W_i + b_i) W'_i + b'_i: the mean comes behind the network, not before.

    Args:
      prompts: P, [T, P, D] of T tasks.
      transforms: g, {"hidden": {"kernel" [T, D, D], "bias" [T, D]}, "out": {"kernel" [T, D, C], "bias" [T, C]}}.

    Returns:
      [T, C] float32.
    """
    prompts, transforms = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (prompts, transforms))
    hidden = jax.nn.silu(_linear(prompts, transforms["hidden"]))
    return _linear(hidden, transforms["out"]).mean(1)


def scores(image: Array, text: Array, prototypes: Array, share: float = 0.5) -> Array:
    """s_bi = share cos(v_b, p_i) + (1 - share) cos(q_b, p_i), each length in a cosine at least 1e-8.

    Args:
      image: v, [B, C]. text: q, [B, C]. prototypes: p, [T, C]. share: of the image.

    Returns:
      [B, T] float32, from -1 to 1.
    """
    image, text, prototypes = _unit(image), _unit(text), _unit(prototypes)
    return share * _matmul(image, prototypes.T) + (1 - share) * _matmul(text, prototypes.T)


def select(scores: Array, k: int, training: bool) -> Array:
    """The tasks whose prompts a sample gets, in the order in which these stand: the last is nearest to the text.

    In training the newest task is the current one and comes last; before it the k - 1 best of the earlier ones by
    ascending score, or, while there are fewer than k tasks, all of them in their order. Afterwards the k best tasks, or
    all there are, by ascending score. Of tasks with equal scores the earlier counts as better, and so stands later.

    Args:
      scores: [B, T] float32, T at least 1. k: at least 1.

    Returns:
      [B, min(k, T)] int32, numbers of tasks from 0.
    """
    tasks, _ = select_padded(scores, scores.shape[1], k, training)
    return tasks[:, max(k - scores.shape[1], 0) :]


def select_padded(scores: Array, count: Array | int, k: int, training: bool) -> tuple[Array, Array]:
    """As `select`, in shapes that the number of tasks does not change.

    Args:
      scores: [B, R] float32, of which the first `count` columns are tasks; in training the score of the newest is not
        looked at. count: T, a scalar, at least 1.

    Returns:
      tasks [B, k] int32 and whether they are there [B, k] bool; those that are not come first, with any number.
    """
    slots = k - 1 if training else k
    scores = jnp.pad(scores, ((0, 0), (0, max(slots - scores.shape[1], 0))))
    column = jnp.arange(scores.shape[1])
    if training:
        # Where there is nothing to choose tasks stand in their order, as if a later one had the higher score.
        scores = jnp.where(count < k, column.astype(scores.dtype), scores)
    asked = column < (count - 1 if training else count)
    best, tasks = jax.lax.top_k(jnp.where(asked, scores, -jnp.inf), slots)
    tasks, there = tasks[:, ::-1], best[:, ::-1] > -jnp.inf
    if not training:
        return tasks, there
    current = jnp.full((len(scores), 1), count - 1, tasks.dtype)
    return jnp.concatenate([tasks, current], 1), jnp.concatenate([there, jnp.ones_like(current, bool)], 1)


def losses(image: Array, text: Array, prototype: Array) -> dict[str, Array]:
    """What draws the current task's prototype p to its samples: 1 - mean_b cos(v_b, p) and 1 - mean_b cos(q_b, p).

    The least sum has any p along mean_b(v_b / |v_b|) + mean_b(q_b / |q_b|).

    Args:
      image: v, [B, C]. text: q, [B, C]. prototype: p, [C].

    Returns:
      {"align_image": scalar, "align_text": scalar}, float32, from 0 to 2.
    """
    prototype = _unit(prototype)
    return {
        "align_image": 1 - _matmul(_unit(image), prototype).mean(),
        "align_text": 1 - _matmul(_unit(text), prototype).mean(),
    }


def _linear(rows: Array, layer: Tree) -> Array:
    """rows [T, P, D], each task's by its own layer."""
    return _matmul(rows, layer["kernel"]) + layer["bias"][:, None]


def _matmul(one: Array, other: Array) -> Array:
    return jnp.matmul(one, other, precision="highest")


def _unit(rows: Array) -> Array:
    # The floor is under the root so that the gradient of a row of zeros is 0, not NaN.
    rows = jnp.asarray(rows, jnp.float32)
    return rows * jax.lax.rsqrt(jnp.maximum((rows * rows).sum(-1, keepdims=True), EPSILON**2))
