"""Splits of captioned images for tests: made of lists, and what one wants to see of them."""

from lpi_jax.data.captioned import Captioned
from lpi_jax.data.stream import Split


def split_of(keys, captions, load, annotations=None):
    """A split of these keys, each with its captions (and annotation)."""
    annotations = [None] * len(keys) if annotations is None else annotations
    return Split(tuple(map(Captioned, keys, map(tuple, captions), annotations)), load)


def captions_of(split):
    """Each image's captions."""
    return tuple(record.captions for record in split.records)


def annotations_of(split):
    """Each image's annotation."""
    return tuple(record.annotation for record in split.records)
