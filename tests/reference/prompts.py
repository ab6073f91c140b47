"""Factorised prompts and the optional interaction of the two modalities' prompts (sections 1 and 2)."""

import numpy as np


def expand(factors):
    """Expands one task's factors: prompt_m[l,n,j] = (1/r) sum_k layer[l,k] token_m[n,k] width_m[j,k].

    Args:
      factors: dict of `layer` [L, r], `token_visual` [P, r], `token_textual` [P, r], `width_visual` [Dv, r],
        `width_textual` [Dx, r]. Where the modalities share no factor, `layer_visual` and `layer_textual` for `layer`.

    Returns:
      (visual [L, P, Dv], textual [L, P, Dx]), float64.
    """
    prompts = []
    for modality in ("visual", "textual"):
        layers = np.asarray(factors["layer" if "layer" in factors else "layer_" + modality], np.float64)
        token = np.asarray(factors["token_" + modality], np.float64)
        width = np.asarray(factors["width_" + modality], np.float64)
        rank = layers.shape[1]
        prompt = np.zeros((layers.shape[0], token.shape[0], width.shape[0]))
        for layer in range(layers.shape[0]):
            for n in range(token.shape[0]):
                for k in range(rank):
                    prompt[layer, n, :] += layers[layer, k] * token[n, k] * width[:, k] / rank
        prompts.append(prompt)
    return prompts[0], prompts[1]


def plain_layer_norm(x, eps=1e-5):
    """(x - mean) / sqrt(var + eps) over the last axis, without a learned scale or shift."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def affine_map(parameters, layer):
    """Layer l's map: W[i,j] = (1/r) sum_k E1[l,k] E2[i,k] E3[j,k]; b = the last row of W, M = the others.

    Args:
      parameters: dict of `E1` [L, r], `E2` [d_in + 1, r], `E3` [d_out, r].
      layer: l, from 0.

    Returns:
      (M [d_in, d_out], b [d_out]).
    """
    e1, e2, e3 = (np.asarray(parameters[name], np.float64) for name in ("E1", "E2", "E3"))
    rank = e1.shape[1]
    full = np.zeros((e2.shape[0], e3.shape[0]))
    for k in range(rank):
        full += e1[layer, k] * np.outer(e2[:, k], e3[:, k]) / rank
    return full[:-1], full[-1]


def interact(visual, textual, parameters, a=0.1):
    """Lets the two modalities' prompts speak to each other, layer by layer; both directions read the *old* prompts.

    X' = LN((1-a) X + a (V M_vx + b)) and V' = LN((1-a) V + a (X M_xv + c)).

    Args:
      visual: V, [L, P, Dv].
      textual: X, [L, P, Dx].
      parameters: dict of two dicts, `visual_to_textual` (d_in = Dv, d_out = Dx) and `textual_to_visual` (d_in = Dx,
        d_out = Dv), each with `E1` [L, r], `E2` [d_in + 1, r] (the last row is the bias) and `E3` [d_out, r].
      a: the mixing weight.

    Returns:
      (V' [L, P, Dv], X' [L, P, Dx]), float64.
    """
    visual, textual = np.asarray(visual, np.float64), np.asarray(textual, np.float64)
    new_visual, new_textual = np.zeros_like(visual), np.zeros_like(textual)
    for layer in range(visual.shape[0]):
        to_textual, b = affine_map(parameters["visual_to_textual"], layer)
        to_visual, c = affine_map(parameters["textual_to_visual"], layer)
        new_textual[layer] = plain_layer_norm((1 - a) * textual[layer] + a * (visual[layer] @ to_textual + b))
        new_visual[layer] = plain_layer_norm((1 - a) * visual[layer] + a * (textual[layer] @ to_visual + c))
    return new_visual, new_textual


def interact_residually(visual, textual, parameters, a=0.1):
    """The interaction that keeps sizes: X' = |X| (X + a (V M + b)) / |X + a (V M + b)|, each row by itself.

    Layer 0 stays as it is; a row of zeros stays one. Both directions read the *old* prompts.

    Args:
      visual, textual, parameters, a: as for `interact`.

    Returns:
      (V' [L, P, Dv], X' [L, P, Dx]), float64.
    """
    visual, textual = np.array(visual, np.float64), np.array(textual, np.float64)
    new_visual, new_textual = visual.copy(), textual.copy()
    for layer in range(1, visual.shape[0]):
        for own, other, new, name in (
            (textual, visual, new_textual, "visual_to_textual"),
            (visual, textual, new_visual, "textual_to_visual"),
        ):
            matrix, bias = affine_map(parameters[name], layer)
            for n in range(own.shape[1]):
                moved = own[layer, n] + a * (other[layer, n] @ matrix + bias)
                length = np.sqrt((moved**2).sum())
                new[layer, n] = moved * (np.sqrt((own[layer, n] ** 2).sum()) / length if length > 0 else 0.0)
    return new_visual, new_textual


def attended(prompts, gates):
    """Keys and values that a layer attends to: the prompts, then the gate times (prompt - mean) / sqrt(var + 1e-5).

    Args:
      prompts: [L, P, D].
      gates: [L].

    Returns:
      [L, 2 P, D] float64.
    """
    prompts = np.asarray(prompts, np.float64)
    rows = []
    for layer, gate in zip(prompts, gates, strict=True):
        centred = layer - layer.mean(axis=-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        rows.append(np.concatenate([layer, gate * normed]))
    return np.stack(rows)
