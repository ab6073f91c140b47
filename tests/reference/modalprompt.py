"""ModalPrompt: prototypes, scores, selection, alignment, the language model's input, its loss and the optimiser.

Sections 1.2 to 1.8 of its specification. Tasks are numbered from 0 here, T of them so far, the current one last.
`transforms` is {"hidden": {"kernel" [T, D, D], "bias" [T, D]}, "out": {"kernel" [T, D, C], "bias" [T, C]}}.
"""

import math

import numpy as np

IMAGE = -200  # the id in whose place the image's patches come
IGNORE = -100  # the label of a position that is not supervised
EPS = 1e-8  # no length counts as less in a cosine


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def transform(x, transforms, task):
    """g(x) = silu(x W1 + b1) W2 + b2 with silu(h) = h sigmoid(h). x: [P, D]; returns (g [P, C], h [P, D])."""
    hidden = x @ transforms["hidden"]["kernel"][task] + transforms["hidden"]["bias"][task]
    out = hidden * sigmoid(hidden) @ transforms["out"]["kernel"][task] + transforms["out"]["bias"][task]
    return out, hidden


def prototypes(prompts, transforms):
    """p_i = mean_j g_i(P_i[j]): the mean over a task's tokens comes after its network.

    Args:
      prompts: [T, P, D].
      transforms: the tree of the module's docstring.

    Returns:
      [T, C] float64.
    """
    prompts = np.asarray(prompts, np.float64)
    return np.array([transform(own, transforms, task)[0].mean(axis=0) for task, own in enumerate(prompts)])


def cosine(a, b):
    """a.b / (|a| |b|) of two vectors."""
    return (a @ b) / (max(np.sqrt(a @ a), EPS) * max(np.sqrt(b @ b), EPS))


def scores(image, text, prototypes, share=0.5):
    """s_bi = share cos(v_b, p_i) + (1 - share) cos(q_b, p_i).

    Args:
      image: v, [B, C].
      text: q, [B, C].
      prototypes: p, [T, C].
      share: the image's weight.

    Returns:
      [B, T] float64.
    """
    image, text, prototypes = (np.asarray(array, np.float64) for array in (image, text, prototypes))
    return np.array(
        [
            [share * cosine(v, p) + (1 - share) * cosine(q, p) for p in prototypes]
            for v, q in zip(image, text, strict=True)
        ]
    )


def best(row, count):
    """The numbers of the highest values, the highest last; of equal ones the later number counts as the lower."""
    falling = sorted(range(len(row)), key=lambda task: (-row[task], task))
    return falling[:count][::-1]


def select(scores, k, training):
    """Which tasks' prompts a sample gets, in the order in which they stand: the best match nearest to the text.

    In training the current task is always the last one; before it come the k - 1 best earlier ones, or simply all of
    them in the order of the tasks where there are no more. At inference the k best of all, without the current one
    where it is not among them.

    Args:
      scores: [B, T].
      k: most sets a sample gets.
      training: whether the last task is being trained.

    Returns:
      [B, min(k, T)] integers from 0.
    """
    chosen = []
    for row in np.asarray(scores, np.float64):
        current = len(row) - 1
        if not training:
            chosen.append(best(row, min(k, len(row))))
        elif len(row) <= k - 1:
            chosen.append(list(range(len(row))))
        else:
            chosen.append([*best(row[:current], k - 1), current])
    return np.array(chosen)


def losses(image, text, prototype):
    """1 - mean_b cos(v_b, p) and 1 - mean_b cos(q_b, p) with the current task's prototype.

    Args:
      image: v, [B, C].
      text: q, [B, C].
      prototype: p, [C].

    Returns:
      {"align_image", "align_text"}, numbers, to be added to the cross-entropy with weight 1 each.
    """
    prototype, both = np.asarray(prototype, np.float64), {"align_image": image, "align_text": text}
    return {
        name: 1 - sum(cosine(row, prototype) for row in np.asarray(rows, np.float64)) / len(rows)
        for name, rows in both.items()
    }


def alignment_gradients(image, text, prompts, transforms):
    """The gradients of the two losses' sum, carried back by hand from the current prototype to the token embeddings.

    d/dp (1 - cos(v, p)) = -(v / |v| - cos(v, p) p / |p|) / |p|; silu'(h) = s + h s (1 - s) with s = sigmoid(h).

    Args:
      image: v, [B, C].
      text: q, [B, C].
      prompts: [T, P, D].
      transforms: the tree of the module's docstring.

    Returns:
      (gradient of prompts [T, P, D], tree of the gradients of transforms); zeros but for the last task.
    """
    prompts = np.asarray(prompts, np.float64)
    own, tokens = prompts[-1], prompts.shape[1]
    g, hidden = transform(own, transforms, -1)
    p = g.mean(axis=0)
    length = np.sqrt(p @ p)
    to_p = np.zeros_like(p)
    for rows in (image, text):
        for row in np.asarray(rows, np.float64):
            to_p -= (row / np.sqrt(row @ row) - cosine(row, p) * p / length) / length / len(rows)
    to_g = np.tile(to_p / tokens, (tokens, 1))
    s = sigmoid(hidden)
    to_hidden = to_g @ np.transpose(transforms["out"]["kernel"][-1]) * (s + hidden * s * (1 - s))
    tree = {part: {name: np.zeros(np.shape(a)) for name, a in leaves.items()} for part, leaves in transforms.items()}
    tree["out"]["kernel"][-1], tree["out"]["bias"][-1] = (hidden * s).T @ to_g, to_g.sum(axis=0)
    tree["hidden"]["kernel"][-1], tree["hidden"]["bias"][-1] = own.T @ to_hidden, to_hidden.sum(axis=0)
    to_prompts = np.zeros_like(prompts)
    to_prompts[-1] = to_hidden @ np.transpose(transforms["hidden"]["kernel"][-1])
    return to_prompts, tree


def assemble(ids, labels, table, soft, patches, max_length=2048):
    """One sample's input: BOS, the chosen prompts, the text before the image, the patches, the text behind it.

    Args:
      ids: [n] token ids, BOS first, IMAGE at most once.
      labels: [n], IGNORE where not supervised.
      table: [V, D] token embeddings.
      soft: [M, D], the chosen sets one after the other; M = 0 is the language model without prompts.
      patches: [N, D], the image in the width of the language model.
      max_length: how many positions are kept, from the front.

    Returns:
      (embeddings [L, D], labels [L]) with L = n - 1 + N + M, or n + M without an image; prompts and patches have label
      IGNORE, mask 1 and positions counted like all others.
    """
    rows, targets = [], []
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if token == IMAGE:
            rows += list(patches)
            targets += [IGNORE] * len(patches)
        else:
            rows.append(table[token])
            targets.append(label)
        if place == 0:
            rows += list(soft)
            targets += [IGNORE] * len(soft)
    return np.array(rows[:max_length], np.float64), np.array(targets[:max_length])


def cross_entropy(logits, labels):
    """The mean over all supervised tokens of the batch of -log softmax(logits[s])[labels[s + 1]].

    Args:
      logits: B arrays [L, V]; samples may differ in L.
      labels: B arrays [L] of ids, aligned to the inputs, IGNORE where not supervised.

    Returns:
      A number; NaN where nothing is supervised.
    """
    total, count = 0.0, 0
    for rows, targets in zip(logits, labels, strict=True):
        for row, target in zip(np.asarray(rows, np.float64)[:-1], targets[1:], strict=True):
            if target != IGNORE:
                total += row.max() + np.log(np.exp(row - row.max()).sum()) - row[target]
                count += 1
    return total / count if count else math.nan


def ds_log_const(step, total, base, ratio=0.03):
    """The whole rate at step 0, then base min(1, ln step / ln W) with W = max(2, ceil(ratio total)).

    Args:
      step: optimiser steps done before this one.
      total: steps of the task.
      base: the rate after the warm-up.
      ratio: share of the steps that are warm-up.
    """
    warmup = max(2, math.ceil(ratio * total))
    return base if step == 0 else base * min(1.0, math.log(step) / math.log(warmup))


def adamw(parameters, gradients, state, lr, weight_decay=0.0, clip=1.0, betas=(0.9, 0.999), eps=1e-8):
    """One step: g <- g min(1, clip / |g|), |g| over all arrays; p <- p - lr (m^ / (sqrt(v^) + eps) + wd p).

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2; m^ = m / (1 - b1^n), v^ = v / (1 - b2^n) at the n-th step.

    Args:
      parameters: dict of arrays.
      gradients: dict of arrays of the same shapes.
      state: what the step before returned, or None before the first one.
      lr: this step's rate.
      weight_decay: decoupled, of the parameter before the step.
      clip: the largest length of all gradients together.
      betas: (b1, b2).
      eps: added to the root.

    Returns:
      (new parameters, new state); the arguments are left as they are.
    """
    zeros = {name: np.zeros(np.shape(array)) for name, array in parameters.items()}
    steps, first, second = state or (0, zeros, zeros)
    length = math.sqrt(sum(float((np.asarray(array, np.float64) ** 2).sum()) for array in gradients.values()))
    scale = min(1.0, clip / length) if length > 0 else 1.0
    steps, new, new_first, new_second = steps + 1, {}, {}, {}
    for name in parameters:
        p, g = np.asarray(parameters[name], np.float64), scale * np.asarray(gradients[name], np.float64)
        new_first[name] = betas[0] * first[name] + (1 - betas[0]) * g
        new_second[name] = betas[1] * second[name] + (1 - betas[1]) * g**2
        mean, square = new_first[name] / (1 - betas[0] ** steps), new_second[name] / (1 - betas[1] ** steps)
        new[name] = p - lr * (mean / (np.sqrt(square) + eps) + weight_decay * p)
    return new, (steps, new_first, new_second)
