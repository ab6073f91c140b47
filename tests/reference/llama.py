"""A plain LLaMA: every call sees the full sequence, nothing is cached.

`weights` is a flat dict of arrays under Hugging Face's names, linear weights as [out, in] and without biases:
`model.embed_tokens.weight`, `model.norm.weight`, `lm_head.weight` and, by layer, `model.layers.N.` followed by
`input_layernorm.weight`, `self_attn.{q,k,v,o}_proj.weight`, `post_attention_layernorm.weight` and
`mlp.{gate,up,down}_proj.weight`. The size of a head is q_proj's rows over `heads`; k_proj's rows say how many heads
keys and values have.
"""

import numpy as np


def rms_norm(x, weight, eps):
    """weight x / sqrt(mean(x^2) + eps) over the last axis; x: [..., D]."""
    return weight * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)


def silu(x):
    """x sigmoid(x)."""
    return x / (1 + np.exp(-x))


def rotate(x, position, theta):
    """Turns the pairs (x_i, x_{i + d/2}) by the angle position theta^(-2 i / d), i < d / 2. x: [d]."""
    half = len(x) // 2
    turned = np.zeros(len(x))
    for i in range(half):
        angle = position * theta ** (-2 * i / len(x))
        turned[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
        turned[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return turned


def attention(x, weights, name, heads, mask, positions, theta):
    """Causal self-attention of one sequence, one head and one query at a time; query head h reads head h // group.

    Args:
      x: [L, D].
      weights: the flat dict.
      name: prefix of the module, e.g. `model.layers.0.self_attn`.
      heads: query heads.
      mask: [L] bool, the positions that others may see; each sees itself.
      positions: [L], for the rotation.
      theta: the rotation's base.

    Returns:
      [L, D].
    """
    q, k, v = (x @ weights[f"{name}.{part}_proj.weight"].T for part in "qkv")
    size = q.shape[1] // heads
    group = heads // (k.shape[1] // size)
    mixed = np.zeros_like(q)
    for head in range(heads):
        own, shared = slice(head * size, (head + 1) * size), slice(head // group * size, (head // group + 1) * size)
        queries = [rotate(row, position, theta) for row, position in zip(q[:, own], positions, strict=True)]
        keys = [rotate(row, position, theta) for row, position in zip(k[:, shared], positions, strict=True)]
        for s, query in enumerate(queries):
            seen = [other for other in range(s + 1) if mask[other] or other == s]
            scores = np.array([query @ keys[other] / np.sqrt(size) for other in seen])
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            mixed[s, own] = sum(part * v[other, shared] for part, other in zip(shares, seen, strict=True))
    return mixed @ weights[f"{name}.o_proj.weight"].T


def forward(weights, embeddings, heads, mask=None, positions=None, theta=1e4, eps=1e-5):
    """Blocks x += attention(norm(x)); x += down(silu(gate(norm(x))) up(norm(x))), a norm, the head.

    Args:
      weights: the flat dict of the module's docstring.
      embeddings: [B, L, D].
      heads: query heads.
      mask: [B, L], 1 where a position may be seen by later ones; None for all.
      positions: [B, L]; None for 0 .. L - 1.
      theta: base of the rotation.
      eps: in the norms.

    Returns:
      Logits [B, L, V] float64; those of positions with mask 0 mean nothing.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    batch, length = np.shape(embeddings)[:2]
    mask = np.ones((batch, length), bool) if mask is None else np.asarray(mask, bool)
    positions = np.tile(np.arange(length), (batch, 1)) if positions is None else np.asarray(positions)
    logits = []
    for x, seen, places in zip(np.asarray(embeddings, np.float64), mask, positions, strict=True):
        layer = 0
        while f"model.layers.{layer}.input_layernorm.weight" in weights:
            name = f"model.layers.{layer}"
            normed = rms_norm(x, weights[f"{name}.input_layernorm.weight"], eps)
            x = x + attention(normed, weights, f"{name}.self_attn", heads, seen, places, theta)
            normed = rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"], eps)
            gate, up = (normed @ weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            x = x + (silu(gate) * up) @ weights[f"{name}.mlp.down_proj.weight"].T
            layer += 1
        logits.append(rms_norm(x, weights["model.norm.weight"], eps) @ weights["lm_head.weight"].T)
    return np.stack(logits)


def greedy(weights, embeddings, heads, eos, max_new, theta=1e4, eps=1e-5):
    """The most likely next token again and again, each time from a forward pass over everything so far.

    Args:
      weights, heads, theta, eps: as for `forward`.
      embeddings: [L, D], one sample's input without padding.
      eos: the id that ends the answer.
      max_new: most tokens to be made.

    Returns:
      List of ids, `eos` included where it came; of equal logits the lower id wins.
    """
    embeddings, made = np.asarray(embeddings, np.float64), []
    while len(made) < max_new and eos not in made:
        made.append(int(np.argmax(forward(weights, embeddings[None], heads, theta=theta, eps=eps)[0, -1])))
        embeddings = np.concatenate([embeddings, np.asarray(weights["model.embed_tokens.weight"])[made[-1:]]])
    return made
