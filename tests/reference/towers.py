"""Plain CLIP towers with prompts: every block sees the full sequence, nothing is cached, fused or cut short.

`weights` is a flat dict of arrays under Hugging Face's names, linear weights as [out, in], the patch kernel as OIHW:
`vision_model.embeddings.{class_embedding, patch_embedding.weight, position_embedding.weight}`,
`vision_model.{pre_layrnorm, post_layernorm}.{weight, bias}` (the misspelling is Hugging Face's),
`text_model.embeddings.{token_embedding, position_embedding}.weight`, `text_model.final_layer_norm.{weight, bias}`,
`{vision_model, text_model}.encoder.layers.N.{self_attn.{q,k,v,out}_proj, layer_norm1, layer_norm2, mlp.fc1, mlp.fc2}`
with `.weight` and `.bias`, `visual_projection.weight`, `text_projection.weight`, `logit_scale`.

Prompts are None, [L, P, D] or [B, L, P, D]. Row 0 enters at the input; row l = 1 .. depth-1 meets the hidden states at
positions 1..P just before block l (the specification counts layers from 1, these files from 0). Mode 'attend' takes no
positions: [L, 2P, D] or [B, L, 2P, D], row l = 0 .. depth-1 being P keys, then P values for the tokens of block l.
"""

import numpy as np


def layer_norm(x, weight, bias, eps=1e-5):
    """weight * (x - mean) / sqrt(var + eps) + bias over the last axis; x: [..., D]."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return weight * (x - mean) / np.sqrt(variance + eps) + bias


def quick_gelu(x):
    """x * sigmoid(1.702 x)."""
    return x / (1 + np.exp(-1.702 * x))


def softmax(scores):
    """exp(s) / sum exp(s) over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def attention(x, weights, name, heads, causal, prompts=None):
    """Multi-head self-attention of one sequence, one head at a time: softmax(q k^t / sqrt(d)) v.

    Prompts add softmax(q k'^t / sqrt(d)) v' to each head, with k' = keys W_k + b_k and v' = values W_v, for every
    token and without a mask.

    Args:
      x: [S, D].
      weights: the flat dict.
      name: prefix of the attention module, e.g. `text_model.encoder.layers.0.self_attn`.
      heads: number of heads; d = D / heads.
      causal: whether position s may only look at positions up to s.
      prompts: None or [2P, D], the keys, then the values.

    Returns:
      [S, D].
    """
    length, width = x.shape
    size = width // heads
    q = x @ weights[name + ".q_proj.weight"].T + weights[name + ".q_proj.bias"]
    k = x @ weights[name + ".k_proj.weight"].T + weights[name + ".k_proj.bias"]
    v = x @ weights[name + ".v_proj.weight"].T + weights[name + ".v_proj.bias"]
    mixed = np.zeros((length, width))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / np.sqrt(size)
        if causal:
            for s in range(length):
                scores[s, s + 1 :] = -np.inf
        mixed[:, part] = softmax(scores) @ v[:, part]
        if prompts is not None:
            keys, values = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
            prompt_k = keys @ weights[name + ".k_proj.weight"].T + weights[name + ".k_proj.bias"]
            prompt_v = values @ weights[name + ".v_proj.weight"].T
            for s in range(length):
                shares = softmax(prompt_k[:, part] @ q[s, part] / np.sqrt(size))
                mixed[s, part] += shares @ prompt_v[:, part]
    return mixed @ weights[name + ".out_proj.weight"].T + weights[name + ".out_proj.bias"]


def block(x, weights, name, heads, causal, prompts=None):
    """One pre-norm block: x += attention(LN1(x)); x += fc2(quick_gelu(fc1(LN2(x)))). x: [S, D].

    Prompts [2P, D] meet the same norm: keys as LN1(k), values as w1 v, w1 being its weight.
    """
    normed = layer_norm(x, weights[name + ".layer_norm1.weight"], weights[name + ".layer_norm1.bias"])
    if prompts is not None:
        keys, values = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
        keys = layer_norm(keys, weights[name + ".layer_norm1.weight"], weights[name + ".layer_norm1.bias"])
        prompts = np.concatenate([keys, values * weights[name + ".layer_norm1.weight"]])
    x = x + attention(normed, weights, name + ".self_attn", heads, causal, prompts)
    normed = layer_norm(x, weights[name + ".layer_norm2.weight"], weights[name + ".layer_norm2.bias"])
    hidden = quick_gelu(normed @ weights[name + ".mlp.fc1.weight"].T + weights[name + ".mlp.fc1.bias"])
    return x + hidden @ weights[name + ".mlp.fc2.weight"].T + weights[name + ".mlp.fc2.bias"]


def blocks(x, weights, tower, heads, causal, prompts, depth, mode):
    """All blocks of one tower on one sequence, with the deeper prompts. x: [S, D]; prompts: None or [L, P, D]."""
    count = 0
    while f"{tower}.encoder.layers.{count}.layer_norm1.weight" in weights:
        count += 1
    for layer in range(count):
        attended = None
        if prompts is not None and mode == "attend":
            attended = prompts[layer] if layer < min(depth, prompts.shape[0]) else None
        elif prompts is not None and 1 <= layer < min(depth, prompts.shape[0]):
            tokens = prompts.shape[1]
            x = x.copy()
            if mode == "add":
                x[1 : 1 + tokens] = x[1 : 1 + tokens] + prompts[layer]
            elif mode == "replace":
                x[1 : 1 + tokens] = prompts[layer]
            else:
                raise ValueError(f"mode is {mode!r}, expected 'add', 'replace' or 'attend'")
        x = block(x, weights, f"{tower}.encoder.layers.{layer}", heads, causal, attended)
    return x


def embed_patches(image, kernel):
    """The patches of one image, row by row, each against every kernel: sum_{c,i,j} kernel[d,c,i,j] patch[i,j,c].

    Args:
      image: [H, W, 3].
      kernel: [D, 3, p, p].

    Returns:
      [(H / p) * (W / p), D].
    """
    size = kernel.shape[-1]
    tokens = []
    for row in range(image.shape[0] // size):
        for column in range(image.shape[1] // size):
            patch = image[row * size : (row + 1) * size, column * size : (column + 1) * size]
            tokens.append([(out * patch.transpose(2, 0, 1)).sum() for out in kernel])
    return np.array(tokens)


def _of_item(prompts, item):
    """The prompts of one item: [L, P, D] or None, out of [L, P, D], [B, L, P, D] or None."""
    if prompts is None:
        return None
    prompts = np.asarray(prompts, np.float64)
    return prompts[item] if prompts.ndim == 4 else prompts


def normalise(x):
    """x / |x|_2 over the last axis."""
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


def encode_image(weights, images, heads, prompts=None, depth=None, mode="add"):
    """Image features: patches, class token, positions, [prompts behind the class token], pre-LN, blocks, post-LN, head.

    Args:
      weights: the flat dict of the module's docstring.
      images: [B, H, W, 3], already normalised; H and W whole multiples of the patch size.
      heads: attention heads of the vision tower.
      prompts: None, [L, P, Dv] or [B, L, P, Dv].
      depth: rows of prompts in use; 1 means the input only, None means all of them.
      mode: 'add' or 'replace', what rows 1 .. depth-1 do to the hidden states at positions 1..P; or 'attend'.

    Returns:
      [B, E] float64, L2-normalised.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    kernel = weights["vision_model.embeddings.patch_embedding.weight"]  # [Dv, 3, p, p]
    features = []
    for item, image in enumerate(np.asarray(images, np.float64)):
        class_token = weights["vision_model.embeddings.class_embedding"][None]
        x = np.concatenate([class_token, embed_patches(image, kernel)])
        x = x + weights["vision_model.embeddings.position_embedding.weight"]
        own = _of_item(prompts, item)
        if own is not None and mode != "attend":
            x = np.concatenate([x[:1], own[0], x[1:]])
        x = layer_norm(x, weights["vision_model.pre_layrnorm.weight"], weights["vision_model.pre_layrnorm.bias"])
        rows = 0 if own is None else own.shape[0]
        x = blocks(x, weights, "vision_model", heads, False, own, rows if depth is None else depth, mode)
        pooled = layer_norm(
            x[0], weights["vision_model.post_layernorm.weight"], weights["vision_model.post_layernorm.bias"]
        )
        features.append(weights["visual_projection.weight"] @ pooled)
    return normalise(np.stack(features))


def encode_text(weights, token_ids, heads, prompts=None, depth=None, mode="add"):
    """Text features: embeddings, [prompts in place of positions 1..P], positions, causal blocks, final LN, EOT, head.

    Args:
      weights: the flat dict of the module's docstring.
      token_ids: [B, S] integers: SOT, P placeholders, caption, EOT (the highest id), padding.
      heads: attention heads of the text tower.
      prompts: None, [L, P, Dx] or [B, L, P, Dx].
      depth: rows of prompts in use; 1 means the input only, None means all of them.
      mode: 'add' or 'replace', what rows 1 .. depth-1 do to the hidden states at positions 1..P; or 'attend'.

    Returns:
      [B, E] float64, L2-normalised.
    """
    weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    features = []
    for item, ids in enumerate(np.asarray(token_ids)):
        x = np.stack([weights["text_model.embeddings.token_embedding.weight"][i] for i in ids])
        own = _of_item(prompts, item)
        if own is not None and mode != "attend":
            x[1 : 1 + own.shape[1]] = own[0]
        x = x + weights["text_model.embeddings.position_embedding.weight"][: len(ids)]
        rows = 0 if own is None else own.shape[0]
        x = blocks(x, weights, "text_model", heads, True, own, rows if depth is None else depth, mode)
        x = layer_norm(x, weights["text_model.final_layer_norm.weight"], weights["text_model.final_layer_norm.bias"])
        features.append(weights["text_projection.weight"] @ x[np.argmax(ids)])
    return normalise(np.stack(features))
