"""The three losses of section 3, one number at a time."""

import numpy as np


def cross_entropy_on_diagonal(scores):
    """mean_i ( log sum_j exp(s_ij) - s_ii ); scores: [N, N]."""
    total = 0.0
    for i in range(scores.shape[0]):
        top = scores[i].max()
        total += top + np.log(np.exp(scores[i] - top).sum()) - scores[i, i]
    return total / scores.shape[0]


def retrieval_loss(image_features, text_features, logit_scale):
    """S = logit_scale * I T^t; the mean of the cross entropies over rows and over columns, the diagonal as target.

    Args:
      image_features: I, [B, E], L2-normalised.
      text_features: T, [B, E], L2-normalised, row b belonging to image b.
      logit_scale: the factor itself (about 100), not its logarithm.
    """
    image_features, text_features = np.asarray(image_features, np.float64), np.asarray(text_features, np.float64)
    scores = logit_scale * image_features @ text_features.T
    return (cross_entropy_on_diagonal(scores) + cross_entropy_on_diagonal(scores.T)) / 2


def retrieval_loss_of_several(image_features, text_features, logit_scale, right):
    """-log of the sum of the probabilities of a row's right answers, rows and columns averaged; right: [B, B]."""
    image_features, text_features = np.asarray(image_features, np.float64), np.asarray(text_features, np.float64)
    scores = logit_scale * image_features @ text_features.T
    total = 0.0
    for table, truths in ((scores, right), (scores.T, np.transpose(right))):
        for row, truth in zip(table, truths, strict=True):
            likely = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            total -= np.log(likely[np.asarray(truth)].sum()) / len(row)
    return total / 2


def alignment_loss(visual, textual, form="released"):
    """Layers as classes: an [L, L] score of the width-averaged prompts, the same layer as target, both directions.

    `released`: score = (vbar / 0.01)(xbar / 0.01)^t. `cosine`: score = 100 cos(vbar_l, xbar_l').

    Args:
      visual: [L, P, Dv].
      textual: [L, P, Dx].
      form: 'released' or 'cosine'.
    """
    vbar = np.asarray(visual, np.float64).mean(axis=-1)  # [L, P]
    xbar = np.asarray(textual, np.float64).mean(axis=-1)  # [L, P]
    layers = vbar.shape[0]
    scores = np.zeros((layers, layers))
    for i in range(layers):
        for j in range(layers):
            if form == "released":
                scores[i, j] = (vbar[i] / 0.01) @ (xbar[j] / 0.01)
            elif form == "cosine":
                scores[i, j] = 100 * cosine(vbar[i], xbar[j])
            else:
                raise ValueError(f"form is {form!r}, expected 'released' or 'cosine'")
    return (cross_entropy_on_diagonal(scores) + cross_entropy_on_diagonal(scores.T)) / 2


def projected_alignment_loss(visual, textual, to_joint_visual, to_joint_textual, logit_scale):
    """Layers as classes, by the direction in which a tower's projection sends the mean of a layer's normalised prompts.

    Each token is centred and divided by its standard deviation over the width (variance + 1e-5); the mean of these over
    the tokens goes through the tower's projection; score = logit_scale * cosine.

    Args:
      visual: [L, P, Dv].
      textual: [L, P, Dx].
      to_joint_visual: [Dv, E].
      to_joint_textual: [Dx, E].
      logit_scale: the factor itself.
    """
    sides = []
    for prompts, matrix in ((visual, to_joint_visual), (textual, to_joint_textual)):
        prompts, matrix = np.asarray(prompts, np.float64), np.asarray(matrix, np.float64)
        rows = []
        for layer in prompts:
            tokens = [(token - token.mean()) / np.sqrt(token.var() + 1e-5) for token in layer]
            rows.append((sum(tokens) / len(tokens)) @ matrix)
        sides.append(rows)
    scores = np.array([[logit_scale * cosine(v, x) for x in sides[1]] for v in sides[0]])
    return (cross_entropy_on_diagonal(scores) + cross_entropy_on_diagonal(scores.T)) / 2


def cosine(a, b):
    """a.b / (|a| |b|) of two vectors."""
    return (a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b))


def sigmoid(x):
    """1 / (1 + exp(-x)) of one number, +inf included."""
    return 1 / (1 + np.exp(-x)) if x >= 0 else np.exp(x) / (1 + np.exp(x))


def bce_with_logits(z, y):
    """-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)) of one number; z = +inf with y = 1 costs 0."""
    signed = z if y else -z  # the loss is log(1 + exp(-signed))
    return np.log1p(np.exp(-signed)) if signed >= 0 else -signed + np.log1p(np.exp(signed))


def task_loss(prompts, similarity, form="released", threshold=0.4):
    """The task distance of one modality, unweighted: mean_i [ sum_{y=1} l_ij / #pos_i + sum_{y=0} l_ij / #neg_i ].

    c_ij = cosine of tasks i and j's whole prompts, c_ii = +inf; y_ij = 1 where similarity_ij > threshold, y_ii = 1;
    l_ij = BCE-with-logits(z_ij, y_ij). `released`: z = sigmoid(c / 0.001), so that z_ii = 1 and l_ii = log(1 + 1/e).
    `intended`: z = c / 0.1, so that z_ii = +inf and l_ii = 0. A side of a row without members counts 0.

    Args:
      prompts: [T, L, P, D].
      similarity: [T, T].
      form: 'released' or 'intended'.
      threshold: the similarity above which two tasks are positives of each other.
    """
    prompts = np.asarray(prompts, np.float64)
    tasks = prompts.shape[0]
    flat = prompts.reshape(tasks, -1)
    total = 0.0
    for i in range(tasks):
        positives, negatives = [], []
        for j in range(tasks):
            c = np.inf if i == j else cosine(flat[i], flat[j])
            y = i == j or similarity[i][j] > threshold
            if form == "released":
                z = sigmoid(c / 0.001)
            elif form == "intended":
                z = c / 0.1
            else:
                raise ValueError(f"form is {form!r}, expected 'released' or 'intended'")
            (positives if y else negatives).append(bce_with_logits(z, y))
        for side in (positives, negatives):
            if side:
                total += sum(side) / len(side)
    return total / tasks


def current_task_loss(own, finished, similar):
    """The current task's own pairs alone: mean over similar j of BCE(c_j / 0.1, 1) + mean over others of BCE(., 0).

    c_j = cosine of the whole prompts of the current task and of finished task j. A side without members counts 0.

    Args:
      own: [L, P, D].
      finished: list of T arrays [L, P, D].
      similar: list of T booleans.
    """
    flat = np.asarray(own, np.float64).ravel()
    sides = {True: [], False: []}
    for other, alike in zip(finished, similar, strict=True):
        z = cosine(flat, np.asarray(other, np.float64).ravel()) / 0.1
        sides[bool(alike)].append(bce_with_logits(z, bool(alike)))
    return sum(sum(side) / len(side) for side in sides.values() if side)


def similar_by_rank(similarity, share=0.5):
    """Which finished tasks count as similar to the newest: those above the quantile 1 - share of all pairs.

    The quantile lies between two neighbouring values of the sorted pairs, linearly.

    Args:
      similarity: [T + 1, T + 1], symmetric, the newest task last; T >= 1.

    Returns:
      List of T booleans.
    """
    tasks = len(similarity)
    pairs = sorted(float(similarity[i][j]) for i in range(tasks) for j in range(i))
    place = (1 - share) * (len(pairs) - 1)
    below = int(np.floor(place + 1e-9))
    above = min(below + 1, len(pairs) - 1)
    quantile = pairs[below] + (place - below) * (pairs[above] - pairs[below])
    return [float(similarity[-1][j]) > quantile + 1e-9 for j in range(tasks - 1)]


def total(retrieval, alignment, task_visual=0.0, task_textual=0.0, alignment_weight=0.1, task_weight=0.1):
    """L = L_retrieval + 0.1 L_align + 0.1 (L_v + L_x) / 2; on the first task there is no task loss: leave it 0."""
    return retrieval + alignment_weight * alignment + task_weight * (task_visual + task_textual) / 2
