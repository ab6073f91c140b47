"""The frozen backbone as it is: trains nothing, prompts nothing. The floor every method is compared with.

It learns centres and tells where it would route items, so that routing can be judged without a method.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from lpi_jax.methods import base, routing, similarity
from lpi_jax.methods.base import Method, Site
from lpi_jax.types import Adapter


@dataclass(frozen=True)
class Options(base.Options):
    """Nothing to choose."""

    trains: ClassVar[bool] = False
    routes: ClassVar[bool] = True
    keeps_tasks: ClassVar[bool] = True


def build(options: Options, sites: Mapping[str, Site], router: routing.Options) -> Method:
    """The method without trainable numbers."""
    return Method(
        name="zero_shot",
        options=options,
        begin=lambda key, memory, frozen, task: ({}, {}),
        adapt=lambda trainable, constants, frozen, queries: (Adapter(frozen, {}), None),
        finish=lambda memory, trainable, task: routing.remembered(memory, {}, task, router),
        view=lambda memory, number: ({}, {}),
        assign=partial(routing.assign, options=router),
        facts=similarity.facts,
    )
