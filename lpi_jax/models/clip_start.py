"""CLIP's initial values, to pretrain from."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from lpi_jax.models import drawn
from lpi_jax.models.clip import CLIPConfig, param_shapes


def init_params(config: CLIPConfig, key: jax.Array) -> dict[str, Any]:
    """A float32 tree of random parameters [...] at CLIP's initial scales, good to pretrain from.

    Normal, with standard deviations (D width, K layers of the tower): query, key, value, both projections, class token
    and vision positions D^-1/2; the outputs of attention and MLP (2 K D)^-1/2; the MLP's first matrix (2 D)^-1/2;
    patches (3 inputs)^-1/2; token embeddings 0.02; text positions 0.01. Biases 0, norms 1, logit scale log(1 / 0.07).
    """

    def std(path: tuple[str, ...], shape: tuple[int, ...]) -> float:
        tower = config.vision if path[0] in ("vision_model", "visual_projection") else config.text
        variances = {
            "out_proj": 1 / (2 * tower.layers * tower.width),
            "fc1": 1 / (2 * tower.width),
            "fc2": 1 / (2 * tower.layers * tower.width),
            "patch_embedding": 1 / (3 * math.prod(shape[:-1])),
            "token_embedding": 0.02**2,
        }
        if path[0] == "text_model":
            variances["position_embedding"] = 0.01**2
        return math.sqrt(variances.get(path[-2] if len(path) > 1 else "", 1 / tower.width))

    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(param_shapes(config)).items()}
    random = {path: shape for path, shape in sorted(shapes.items()) if path[-1] not in ("bias", "scale", "logit_scale")}
    stds = {path: std(path, shape) for path, shape in random.items()}

    leaves = {("logit_scale",): jnp.float32(math.log(1 / 0.07)), **drawn.normal(key, random, stds)}
    for path in shapes.keys() - leaves.keys():
        leaves[path] = jnp.asarray(np.full(shapes[path], path[-1] == "scale", np.float32))
    return traverse_util.unflatten_dict(leaves)
