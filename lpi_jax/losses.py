"""The three losses of LPI: retrieval, hierarchical alignment between the modalities' layers, and task distance.

Each is a plain function of arrays that returns an unweighted scalar; a method adds them with its weights.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

ALIGNMENT_TEMPERATURE = 0.01
RELEASED_TASK_TEMPERATURE = 0.001
TASK_TEMPERATURE = 0.1
LAYER_NORM_EPS = 1e-5


def retrieval_loss(
    image_features: Array, text_features: Array, logit_scale: Array | float, right: Array | None = None
) -> Array:
    """Symmetric cross entropy of matching pairs, over the whole (global) batch.

    S = logit_scale * I T^t; the mean of the cross entropies of rows and columns with the diagonal as target. Features
    that lie on several devices are gathered, and multiplied, in float32.

    Args:
      image_features: [B, E] float, L2-normalised.
      text_features: [B, E] float, L2-normalised; row i belongs to image i.
      logit_scale: the factor itself (about 100 for CLIP), not its logarithm.
      right: None, or [B, B] bool, symmetric, which texts answer which images beside the diagonal, all of which is True:
        a row's cross entropy is then -log of the sum of the probabilities of its right answers.

    Returns:
      Scalar, in nats.
    """
    _expect(image_features.ndim == 2 and image_features.shape == text_features.shape, image_features, text_features)
    scores = _product(logit_scale * image_features, text_features)
    if right is None:
        return _diagonal_cross_entropy(scores)
    found = jnp.where(right, scores, -jnp.inf)
    rows, columns = (jax.nn.logsumexp(scores, axis) - jax.nn.logsumexp(found, axis) for axis in (1, 0))
    return (rows.mean() + columns.mean()) / 2


def alignment_loss(visual: Array, textual: Array, form: Literal["released", "cosine"] = "cosine") -> Array:
    """Contrasts the layers of the two modalities: layer l of one is the positive of layer l of the other.

    With vbar, xbar [L, P] the prompts' means over their width, the score [L, L] is
    `released`: (vbar / 0.01)(xbar / 0.01)^t; `cosine`: cos(vbar_l, xbar_l') / 0.01. The LayerNorms of the towers take
    these means away: what is drawn together here is hardly what they see (`projected_alignment_loss`).

    Args:
      visual: [L, P, Dv] float.
      textual: [L, P, Dx] float.
      form: which score.

    Returns:
      Scalar, in nats; both directions averaged.
    """
    _expect(visual.ndim == textual.ndim == 3 and visual.shape[:2] == textual.shape[:2], visual, textual)
    v, x = visual.mean(-1), textual.mean(-1)
    if form == "released":
        scores = _product(v / ALIGNMENT_TEMPERATURE, x / ALIGNMENT_TEMPERATURE)
    elif form == "cosine":
        scores = _product(_unit_rows(v), _unit_rows(x)) / ALIGNMENT_TEMPERATURE
    else:
        raise ValueError(f"alignment form is {form!r}, expected 'released' or 'cosine'")
    return _diagonal_cross_entropy(scores)


def projected_alignment_loss(
    visual: Array, textual: Array, to_joint_visual: Array, to_joint_textual: Array, logit_scale: Array | float
) -> Array:
    """Contrasts the layers of the two modalities in what the towers see of their prompts, where features are compared.

    With LN the LayerNorm without affine, u_l = mean_n LN(prompt[l, n]) and a tower's final projection W, a layer is
    e_l = u_l W / |u_l W|; the score [L, L] is logit_scale * cos(e_visual_l, e_textual_l'), layers as classes.

    Args:
      visual: [L, P, Dv] float.
      textual: [L, P, Dx] float.
      to_joint_visual: W [Dv, E] float, the frozen vision tower's.
      to_joint_textual: W [Dx, E] float, the frozen text tower's.
      logit_scale: the factor itself (about 100 for CLIP), not its logarithm.

    Returns:
      Scalar, in nats; both directions averaged. A constant added to a token changes nothing.
    """
    _expect(visual.ndim == textual.ndim == 3 and visual.shape[:2] == textual.shape[:2], visual, textual)
    _expect(to_joint_visual.shape[0] == visual.shape[-1], visual, to_joint_visual)
    _expect(to_joint_textual.shape[0] == textual.shape[-1], textual, to_joint_textual)
    e_visual, e_textual = (
        _unit_rows(_product(layer_norm(prompts).mean(-2), to_joint.T))
        for prompts, to_joint in ((visual, to_joint_visual), (textual, to_joint_textual))
    )
    return _diagonal_cross_entropy(logit_scale * _product(e_visual, e_textual))


def task_loss(
    prompts: Array,
    similarity: Array,
    form: Literal["released", "intended"] = "intended",
    threshold: float = 0.4,
    seen: Array | None = None,
) -> Array:
    """Draws the prompts of semantically similar tasks together and pushes those of different tasks apart.

    c_ij is the cosine of two tasks' flattened prompts, y_ij = [similarity_ij > threshold], c_ii = +inf. With
    `intended`: z = c / 0.1; `released`: z = sigmoid(c / 0.001), to which BCE-with-logits applies a second sigmoid.
    L = mean_i [ sum_{y=1} BCE(z_ij, 1) / #pos_i + sum_{y=0} BCE(z_ij, 0) / #neg_i ]; a side without members counts 0
    (the release divides 0 by 0 there and the loss turns into NaN). Where only one task has a gradient, that fades as
    2 / T: all other pairs are constants (`current_task_loss`).

    Args:
      prompts: [T, L, P, D] float, one modality; stop the gradient of finished tasks before calling.
      similarity: [T, T] float, cosines of the tasks' meanings; the diagonal is taken as similar.
      form: which z.
      threshold: a cosine; tasks above it are similar.
      seen: [T] bool, which rows hold a task; None means all. Lets a caller keep T fixed while tasks arrive.

    Returns:
      Scalar, in nats, unweighted.
    """
    _expect(prompts.ndim == 4 and similarity.shape == (len(prompts),) * 2, prompts, similarity)
    same = jnp.eye(len(prompts), dtype=bool)
    flat = _unit_rows(prompts.reshape(len(prompts), -1))
    cosine = _product(flat, flat)
    if form == "released":
        z, z_same = jax.nn.sigmoid(cosine / RELEASED_TASK_TEMPERATURE), 1.0
    elif form == "intended":
        z, z_same = cosine / TASK_TEMPERATURE, jnp.inf
    else:
        raise ValueError(f"task loss form is {form!r}, expected 'released' or 'intended'")
    # The diagonal is a constant: putting it in after the BCE keeps infinities out of the gradient.
    attract = jnp.where(same, jax.nn.softplus(-z_same), jax.nn.softplus(-z))
    repel = jax.nn.softplus(z)

    seen = jnp.ones(len(prompts), bool) if seen is None else seen
    pairs = seen[:, None] & seen[None, :]
    similar = (similarity > threshold) | same
    rows = _mean_where(attract, pairs & similar) + _mean_where(repel, pairs & ~similar)
    return jnp.where(seen, rows, 0.0).sum() / seen.sum()


def current_task_loss(own: Array, finished: Array, similar: Array, seen: Array) -> Array:
    """Draws one task's prompts to those of similar finished tasks and pushes them away from those of the others.

    c_j is the cosine of the task's flattened prompts with those of finished task j, z = c / 0.1;
    L = mean_{similar j} BCE(z_j, 1) + mean_{other j} BCE(z_j, 0). A side without members counts 0, and so does a task
    without finished ones. Only pairs that have a gradient are averaged, each once: it does not fade as tasks arrive.

    Args:
      own: [L, P, D] float, one modality.
      finished: [C, L, P, D] float, of the same modality; no gradient is wanted of them.
      similar: [C] bool, which finished tasks count as similar.
      seen: [C] bool, which rows hold a finished task. Lets a caller keep C fixed while tasks arrive.

    Returns:
      Scalar, in nats, unweighted.
    """
    _expect(finished.ndim == 4 and finished.shape[1:] == own.shape, own, finished)
    _expect(similar.shape == seen.shape == finished.shape[:1], similar, seen)
    z = _product(_unit_rows(own.reshape(1, -1)), _unit_rows(finished.reshape(len(finished), -1))) / TASK_TEMPERATURE
    attract = _mean_where(jax.nn.softplus(-z), (seen & similar)[None])
    repel = _mean_where(jax.nn.softplus(z), (seen & ~similar)[None])
    return (attract + repel)[0]


def layer_norm(x: Array) -> Array:
    """LayerNorm without affine: (x - mean) / sqrt(variance + 1e-5) over the last axis; x [..., D], the same shape."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPS)


def _product(a: Array, b: Array) -> Array:
    """a [N, E], b [M, E] -> a b^t [N, M] from all bits of the factors, on any device: temperatures magnify errors."""
    return jnp.matmul(a, b.T, precision="highest")


def _diagonal_cross_entropy(scores: Array) -> Array:
    rows = jnp.diagonal(jax.nn.log_softmax(scores, axis=1))
    columns = jnp.diagonal(jax.nn.log_softmax(scores, axis=0))
    return -(rows.mean() + columns.mean()) / 2


def _mean_where(values: Array, mask: Array) -> Array:
    """Row means of the masked values; 0 where a row has none."""
    return jnp.where(mask, values, 0.0).sum(1) / jnp.maximum(mask.sum(1), 1)


def _unit_rows(x: Array) -> Array:
    # The floor is under the root so that the gradient of a zero row is 0, not NaN.
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-24))


def _expect(shapes_agree: bool, a: Array, b: Array) -> None:
    if not shapes_agree:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not belong together here (see the docstring)")
