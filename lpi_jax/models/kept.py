"""In what dtype a frozen CLIP's leaves are kept: that which they are computed with, so that nothing is rounded twice."""

import re
from typing import Any

import jax.numpy as jnp

# Layers that round their factors first; norms, embeddings, projections and the logit scale are used in float32.
_ROUNDED = re.compile(r"(_proj|fc1|fc2|patch_embedding)/(kernel|bias)$")


def kept(path: tuple[str, ...], dtype: Any) -> Any:
    """What a leaf is kept in where blocks compute in `dtype`: that, or float32 where its rounding would change numbers."""
    return jnp.dtype(dtype if _ROUNDED.search("/".join(path)) else jnp.float32)
