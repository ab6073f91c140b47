"""Every source of files as a function of a path and what a test sets besides."""

import dataclasses
import os
from functools import partial

from lpi_jax.data.sources import registry


def _stream(name, path, *, task_order=(), **given):
    source = registry.SOURCES[name]
    fields = {key: given.pop(key) for key in registry.FIELDS[name] if key in given}
    if fields:
        kinds = {field.name: field.default_factory for field in dataclasses.fields(source.options)}
        given["fields"] = kinds["fields"](**fields)
    return source.build(source.options(path=os.fspath(path), task_order=task_order, **given))


coco = partial(_stream, "coco")
flickr30k = partial(_stream, "flickr30k")
folder = partial(_stream, "folder")
huggingface = partial(_stream, "huggingface")
jsonl = partial(_stream, "jsonl")
table = partial(_stream, "table")
webdataset = partial(_stream, "webdataset")


def tfds(builder, data_dir="", **given):
    """TFDS's data set of this name."""
    return _stream("tfds", data_dir, builder=builder, **given)
