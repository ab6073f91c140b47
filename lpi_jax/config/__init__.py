"""The configuration of a run: what a config file calls."""

from lpi_jax.config.defaults import (
    PRESETS,
    anchored,
    changed,
    check,
    closest,
    flat,
    for_any_backbone,
    for_scenes,
    for_tiny_backbone,
    idle,
    intended,
    preset,
    released,
    unknown_key,
)

__all__ = [
    "PRESETS",
    "anchored",
    "changed",
    "check",
    "closest",
    "flat",
    "for_any_backbone",
    "for_scenes",
    "for_tiny_backbone",
    "idle",
    "intended",
    "preset",
    "released",
    "unknown_key",
]
