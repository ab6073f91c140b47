"""What every problem is told of how it is measured."""

from dataclasses import dataclass

from lpi_jax.options import option


@dataclass(frozen=True)
class Evaluation:
    """Section `eval`, as far as all problems read it."""

    batch: int = option(128, "items encoded or answered at once, over all devices", least=1)
    future: bool = option(
        False, "whether tasks not learnt yet are measured, too: the items of all tasks are there from the start"
    )
    probes: tuple = option(
        (), "streams that are measured and never learnt: a dictionary of config.data's keys for each"
    )
