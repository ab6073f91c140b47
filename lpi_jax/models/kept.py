"""In what a frozen CLIP's leaves are kept: in the dtype that they are computed with, so that prompts change no number.

A method that changes leaves starts from what is kept: its bfloat16 run begins at rounded weights.
"""

import re
from typing import Any

import jax.numpy as jnp

# Layers that round their factors first; norms, embeddings, projections and the logit scale are used in float32.
_ROUNDED = re.compile(r"(_proj|fc1|fc2|patch_embedding)/(kernel|bias)$")


def kept(path: tuple[str, ...], dtype: Any) -> Any:
    """The dtype of a leaf of towers whose blocks compute in `dtype`: that, or float32 where it is not rounded first."""
    return jnp.dtype(dtype if _ROUNDED.search("/".join(path)) else jnp.float32)
