"""The frozen backbone as it is: trains nothing, prompts nothing. The floor every method is compared with."""

from lpi_jax.methods.base import Method, Prompts


def zero_shot() -> Method:
    """The method without trainable numbers; the loop skips training when a task's tree has no leaves."""
    return Method(
        name="zero_shot",
        placeholders=0,
        init=lambda key, finished: {},
        context=lambda finished, capacity: {},
        prompts=lambda trainable: Prompts(None, None),
        losses=lambda trainable, context, features: {},
    )
