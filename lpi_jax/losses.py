"""The three losses of LPI: retrieval, hierarchical alignment between the modalities' layers, and task distance.

Each is a plain function of arrays that returns an unweighted scalar; a method adds them with its weights.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

ALIGNMENT_TEMPERATURE = 0.01
RELEASED_TASK_TEMPERATURE = 0.001
INTENDED_TASK_TEMPERATURE = 0.1


def retrieval_loss(image_features: Array, text_features: Array, logit_scale: Array | float) -> Array:
    """Symmetric cross entropy of matching pairs, over the whole (global) batch.

    S = logit_scale * I T^t; the mean of the cross entropies of rows and columns with the diagonal as target. Features
    that lie on several devices are gathered, and multiplied, in float32.

    Args:
      image_features: [B, E] float, L2-normalised.
      text_features: [B, E] float, L2-normalised; row i belongs to image i.
      logit_scale: the factor itself (about 100 for CLIP), not its logarithm.

    Returns:
      Scalar, in nats.
    """
    _expect(image_features.ndim == 2 and image_features.shape == text_features.shape, image_features, text_features)
    return _diagonal_cross_entropy(_product(logit_scale * image_features, text_features))


def alignment_loss(visual: Array, textual: Array, form: Literal["released", "cosine"] = "cosine") -> Array:
    """Contrasts the layers of the two modalities: layer l of one is the positive of layer l of the other.

    With vbar, xbar [L, P] the prompts' means over their width, the score [L, L] is
    `released`: (vbar / 0.01)(xbar / 0.01)^t; `cosine`: cos(vbar_l, xbar_l') / 0.01.

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
    (the release divides 0 by 0 there and the loss turns into NaN).

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
        z, z_same = cosine / INTENDED_TASK_TEMPERATURE, jnp.inf
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
