"""A linear layer of the LLaMA, which takes low-rank updates beside its kernel: they are in its parameters, or not.

A merged copy of the kernels would be as large as the model, and so would be its gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lpi_jax.types import EXPERTS, LOW


class Linear(nn.Module):
    """[..., in] -> [..., features]: y = x W, and beside the kernel W, where the layer's parameters have it,

    * "low": {"a": [in, r], "b": [r, features]}: x A B is added;
    * "experts": {"gate": [in, N], "a": [N, in, r], "b": [N, r, features]}: sum_n softmax(x gate)_n x A_n B_n is.

    Products are in `dtype`, the experts' shares float32.
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        y = jnp.dot(x, kernel.astype(self.dtype))
        if self.has_variable("params", LOW):
            low = self.get_variable("params", LOW)
            y = y + jnp.dot(jnp.dot(x, low["a"].astype(self.dtype)), low["b"].astype(self.dtype))
        if self.has_variable("params", EXPERTS):
            y = y + mixed(x, self.get_variable("params", EXPERTS), self.dtype)
        return y


def mixed(x: jax.Array, experts: dict[str, jax.Array], dtype: Any) -> jax.Array:
    """sum_n softmax(x gate)_n x A_n B_n, [..., out]; x: [..., in]."""
    logits = jnp.matmul(x.astype(jnp.float32), experts["gate"].astype(jnp.float32), precision="highest")
    low = jnp.einsum("...i,nir->...nr", x, experts["a"].astype(dtype))
    weighted = jax.nn.softmax(logits)[..., None].astype(dtype) * low
    return jnp.einsum("...nr,nro->...o", weighted, experts["b"].astype(dtype))
