"""What the backward pass finds kept of a network's blocks, and what it computes once more."""

from collections.abc import Callable
from typing import Any, Literal

Remat = Literal["none", "blocks", "dots"]
KEPT = ("none", "blocks", "dots")


def recomputed(block: Any, remat: Remat) -> Callable[..., Any]:
    """A block's class, or a function whose first argument is a block, computed again for the backward pass.

    Args:
      remat: `none`: nothing is; `blocks`: all but its inputs; `dots`: all but products with weights, which are most of
        the work: norms, activations and attention are computed again.
    """
    if remat == "none":
        return block
    import jax  # here and below, because the table of options is read without any model
    from flax import linen as nn

    policies = jax.checkpoint_policies
    return nn.remat(block, policy=policies.dots_with_no_batch_dims_saveable if remat == "dots" else None)
