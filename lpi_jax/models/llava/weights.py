"""LLaVA's checkpoints -> parameter trees: Hugging Face's names and directories, never a pickle.

Every leaf is made of one tensor and every tensor is used, or the error lists what does not fit. A directory is read
tensor by tensor: each is converted and placed before the next is read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from lpi_jax.errors import UserError
from lpi_jax.models.hub import USUAL, local_path
from lpi_jax.models.llava.config import LlavaConfig
from lpi_jax.models.llava.llava import param_shapes
from lpi_jax.models.llava.names import Leaf, by_common_name, check, name_of
from lpi_jax.models.llava.told import config_of
from lpi_jax.models.shards import Shards
from lpi_jax.models.tensor_files import json_object
from lpi_jax.parallel.placement import put

Params = dict[str, Any]  # nested dicts of arrays
# One sharding for all leaves, or (path of a leaf, its shape) -> its sharding.
Placing = jax.sharding.Sharding | Callable[[Leaf, tuple[int, ...]], jax.sharding.Sharding]
_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


def from_hf(state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> tuple[LlavaConfig, Params]:
    """A LLaVA from tensors under Hugging Face's names.

    Args:
      state: arrays [...] by name: LLaMA's, the projector's, CLIP's towers and `visual_projection.weight`; those of
        LlavaForConditionalGeneration in any version. A tensor that is there under two names must be the same twice.
      config: LLaVA's config.json in Hugging Face's form, or the flat LLaMA form with `vision_config`; CLIP's as `clip`
        or its text tower's as `clip_text_config`. Sizes follow from the shapes.

    Returns: the configuration and the tree of float32 NumPy arrays.
    Raises: UserError that lists what is missing, left over or misshapen, or names what the configuration lacks.
    """
    name, shapes = "the state", {key: np.shape(value) for key, value in state.items()}
    for keys in by_common_name(shapes).values():
        for key in keys[1:]:
            if not np.array_equal(state[keys[0]], state[key]):
                raise UserError(f"{name} has {keys[0]} and {key}, two names of one tensor, with different values")
    plan = _planned(shapes, config, name)
    leaves = {leaf: _converted(state[key], key, leaf, np.float32) for key, leaf in plan.leaves.items()}
    return plan.config, traverse_util.unflatten_dict(leaves)


def load(
    directory: str | Path, clip: str | Path, sharding: Placing | None = None, dtype: Any = None
) -> tuple[LlavaConfig, Params]:
    """Reads a LLaVA and the CLIP that it guides with; the host holds the placed leaves and one tensor.

    Args:
      directory: a Hugging Face directory or hub id: config.json and safetensors, one file or sharded with an index.
      clip: the same of the CLIP whose image tower the LLaVA sees with; gives the text tower and the projections, and
        the image tower as far as the LLaVA's files have none.
      sharding: where leaves are placed; None: they are NumPy arrays on the host.
      dtype: of all leaves; None: float32.

    Returns: the configuration and the tree of arrays.
    Raises: UserError where anything is missing, left over, misshapen or unreadable.
    """
    both = _both(directory, clip)
    plan, leaves = both.plan, {}
    for source, keys in both.keys:
        for key, tensor in source.tensors(keys & plan.leaves.keys()):
            leaf = plan.leaves[key]
            value = _converted(tensor, f"{both.name}: {key}", leaf, np.float32 if dtype is None else dtype)
            leaves[leaf] = value if sharding is None else _placed(value, leaf, sharding)
    return plan.config, traverse_util.unflatten_dict(leaves)


def config(directory: str | Path, clip: str | Path) -> LlavaConfig:
    """The configuration alone, from the files' headers. Arguments and errors are those of `load`."""
    return _both(directory, clip).plan.config


class _Plan(NamedTuple):
    """The configuration, and which key of the checkpoint each leaf is made of."""

    config: LlavaConfig
    leaves: dict[str, Leaf]


class _Both(NamedTuple):
    """A LLaVA's directory and its CLIP's: what they are called, what becomes of them, and whose tensors are read."""

    name: str
    plan: _Plan
    keys: tuple[tuple[Shards, set[str]], ...]


def _both(directory: str | Path, clip: str | Path) -> _Both:
    directory, beside = local_path(directory, USUAL), local_path(clip, USUAL)
    name = f"{directory} with {beside}"
    fields = {**json_object(directory / "config.json"), "clip": json_object(beside / "config.json")}
    shards, more = Shards(directory), Shards(beside)
    there = by_common_name(shards.shapes)
    missing = [key for common, keys in by_common_name(more.shapes).items() if common not in there for key in keys]
    plan = _planned({**shards.shapes, **{key: more.shapes[key] for key in missing}}, fields, name)
    return _Both(name, plan, ((shards, set(shards.shapes)), (more, set(missing))))


def _planned(shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any], name: str) -> _Plan:
    """What becomes of tensors of these shapes; raises UserError where they do not fill the tree exactly."""
    keys = {common: found[0] for common, found in by_common_name(shapes).items()}
    config = config_of(fields, {common: shapes[key] for common, key in keys.items()}, name)
    leaves = {leaf: value.shape for leaf, value in traverse_util.flatten_dict(param_shapes(config)).items()}
    wanted = {name_of(leaf): leaf for leaf in leaves}
    wrong = [
        f"{keys[common]} is {list(shapes[keys[common]])}, expected {list(expected)}"
        for common, leaf in wanted.items()
        if common in keys and shapes[keys[common]] != (expected := _source_shape(leaf, leaves[leaf]))
    ]
    # A tensor is named as the checkpoint names it; one that is missing has the common name.
    check(name, (keys.get(common, common) for common in wanted), keys.values(), wrong)
    return _Plan(config, {keys[common]: leaf for common, leaf in wanted.items()})


def _source_shape(leaf: Leaf, shape: tuple[int, ...]) -> tuple[int, ...]:
    if leaf[-1] != "kernel":
        return shape
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _converted(tensor: np.ndarray, key: str, leaf: Leaf, dtype: Any) -> np.ndarray:
    """The leaf [...] that a tensor becomes: matrices from [out, in], the patch embedding from OIHW."""
    tensor = np.asarray(tensor)
    if tensor.dtype not in _FLOATS:
        raise UserError(f"{key} has dtype {tensor.dtype}, expected float16, bfloat16, float32 or float64")
    if leaf[-1] == "kernel":
        tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return np.array(tensor, dtype, order="C")


def _placed(value: np.ndarray, leaf: Leaf, sharding: Placing) -> jax.Array:
    where = sharding if isinstance(sharding, jax.sharding.Sharding) else sharding(leaf, value.shape)
    return jax.block_until_ready(put(value, where))
