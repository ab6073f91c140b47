"""CLIP checkpoints <-> parameter trees: Hugging Face directories, hub ids and OpenAI's key names, never a pickle.

Every leaf of the tree names the one source tensor it is made of (a frozen backbone is no more than its source and its
sha256), so a checkpoint either fills the whole tree and is used up by it, or the error lists what does not fit.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from flax import traverse_util

from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically, write_json
from lpi_jax.models import shards, tensor_files
from lpi_jax.models.clip import ACTIVATIONS, CLIPConfig, TowerConfig, param_shapes
from lpi_jax.models.hub import FLAX, local_path, names_in, unreadable, with_weights
from lpi_jax.models.tensor_files import brief, listed
from lpi_jax.models.towers import (
    DESCRIPTION,
    MAX_LAYERS,
    UNTOLD,
    Described,
    Towers,
    described,
    from_shapes,
    plain_names,
)
from lpi_jax.parallel.placement import whole

Leaf = tuple[str, ...]  # the path of a leaf in the tree
Params = dict[str, Any]  # nested dicts of float32 arrays
__all__ = ["Towers", "config", "fingerprint", "from_openai", "load", "local_path", "save"]

HF_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
MAX_SIZE, MAX_PADDING = 2**20, 1024


# ---- loading ---------------------------------------------------------------------------------------------------------


def load(path_or_hub_id: str | Path, towers: Towers = UNTOLD) -> tuple[CLIPConfig, Params]:
    """Reads a CLIP checkpoint.

    Args:
      path_or_hub_id: a Hugging Face directory (config.json and safetensors, one file or sharded, or Flax's msgpack); a
        directory with open_clip_config.json and open_clip_model.safetensors; a hub id such as
        "openai/clip-vit-base-patch16", or ID@REVISION (downloaded once into the hub's cache); or one .safetensors or
        .npz file with OpenAI's key names, which open_clip_config.json beside it may describe.
      towers: what is known of weights under OpenAI's names, before what files say.

    Returns: the configuration and the tree of float32 NumPy arrays, to be placed on devices by the caller.
    Raises: UserError where anything is missing, left over, misshapen or unreadable.
    """
    path = with_weights(path_or_hub_id)
    if file := _openai_file(path):
        return _from_openai(tensor_files.tensors(file), str(file), towers, described(file.parent))
    config = _config_of_directory(path, towers)
    if tensor_files.holds_safetensors(path):
        return config, _fill(config, shards.directory_tensors(path), _hf_source, HF_BUFFERS, str(path))
    if not (path / FLAX).is_file():
        raise UserError(f"{path / 'model.safetensors'} does not exist; the folder {unreadable(names_in(path))}")
    return config, _fill(config, tensor_files.msgpack_tensors(path / FLAX), _flax_source, (), str(path))


def config(path_or_hub_id: str | Path, towers: Towers = UNTOLD) -> CLIPConfig:
    """The configuration that `load` returns, without the tensors.

    Args:
      path_or_hub_id, towers: as for `load`. Of a Hugging Face directory only config.json is read, of a .safetensors
        file only the shapes; a .npz file is read whole. A hub id is downloaded as for `load`.

    Raises: UserError where what is read is missing, unreadable or unusable. Only `load` finds out whether all tensors
      fit.
    """
    path = with_weights(path_or_hub_id)
    if file := _openai_file(path):
        return from_shapes(plain_names(tensor_files.shapes(file)), str(file), towers, described(file.parent))
    return _config_of_directory(path, towers)


def from_openai(state: Mapping[str, np.ndarray], towers: Towers = UNTOLD) -> tuple[CLIPConfig, Params]:
    """A ViT CLIP from tensors under OpenAI's key names; the configuration follows from the shapes.

    Args:
      state: arrays [...] by name.
      towers: activation and heads; what it does not say is as in OpenAI's models: quick_gelu, heads = width / 64.

    Raises: UserError that lists what is missing, left over or misshapen.
    """
    return _from_openai(state, "the OpenAI state", towers, None)


def _openai_file(path: Path) -> Path | None:
    """The file with OpenAI's names that `path` is or holds; None for a Hugging Face directory."""
    if not path.is_dir():
        return path
    known = _is_hugging_faces(path / "config.json")
    if not (path / DESCRIPTION).is_file() or (known and tensor_files.holds_safetensors(path)):
        return None
    files = [path / "open_clip_model.safetensors"]
    if not files[0].is_file():
        files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".npz"))
    if len(files) == 1:
        return files[0]
    if known:
        return None
    if files:
        raise UserError(
            f"{path} holds {DESCRIPTION} and several checkpoints: {listed(f.name for f in files)}; name one"
        )
    raise UserError(f"{path} {unreadable(names_in(path))}")


def _is_hugging_faces(config: Path) -> bool:
    """Whether a config.json is one of transformers', or damaged, which is told later. timm has others of that name."""
    if not config.is_file():
        return False
    try:
        return not {"model_type", "text_config", "text_config_dict"}.isdisjoint(tensor_files.json_object(config))
    except UserError:
        return True


# ---- saving ----------------------------------------------------------------------------------------------------------


def save(path: str | Path, config: CLIPConfig, params: Params, dtype: Any = np.float32) -> None:
    """Writes config.json and model.safetensors as Hugging Face lays them out, each under a temporary name first.

    Args:
      path: a directory, made if it does not exist; other files in it stay.
      config, params: as `load` returns them; params may be on devices.
      dtype: np.float32 (exact) or np.float16 (half the size; features keep a cosine of about 0.999 or better).

    Raises: UserError where the tree does not fit the configuration or a value does not fit the dtype.
    """
    path, dtype = Path(path), np.dtype(dtype)
    if dtype not in (np.float32, np.float16):
        raise UserError(f"weights are saved as float32 or float16, not as {dtype}")
    leaves = traverse_util.flatten_dict(params)
    shapes = _shapes(config)
    wrong = [f"{'/'.join(leaf)}" for leaf in shapes.keys() ^ leaves.keys()]
    wrong += [f"{'/'.join(leaf)}" for leaf in shapes.keys() & leaves.keys() if np.shape(leaves[leaf]) != shapes[leaf]]
    if wrong:
        raise UserError(f"the parameters do not fit the configuration: {listed(wrong)}")
    state = {}
    for leaf, value in leaves.items():
        key, _, convert = _hf_source(leaf, shapes[leaf])
        value = np.asarray(value, np.float32)
        if dtype == np.float16 and np.abs(value).max(initial=0) > np.finfo(np.float16).max:
            raise UserError(f"{key} has values that float16 cannot hold; save it as float32")
        # All conversions of this layout are transpositions that undo themselves, but for the patch embedding's.
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else convert(value)
        state[key] = np.array(value, dtype, order="C")
    path.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(state, metadata={"format": "pt"})
    write_atomically(path / "model.safetensors", lambda file: file.write(data))
    write_json(path / "config.json", _config_to_hf(config, dtype))


def fingerprint(params: Params) -> str:
    """sha256 (hexadecimal) over the sorted paths, the shapes, dtypes and bytes of all leaves."""
    digest = hashlib.sha256()
    for leaf, value in sorted(traverse_util.flatten_dict(params).items()):
        value = whole(value)
        digest.update(f"{'/'.join(leaf)} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


# ---- leaves and their source tensors ---------------------------------------------------------------------------------

# leaf and its shape -> the source's key, the source's shape, and how to make the leaf from the source.
Source = Callable[[Leaf, tuple[int, ...]], tuple[str, tuple[int, ...], Callable[[np.ndarray], np.ndarray]]]


def _shapes(config: CLIPConfig) -> dict[Leaf, tuple[int, ...]]:
    """Shape of every leaf. One block is traced and stands for all blocks of its tower."""

    def single(tower: TowerConfig) -> TowerConfig:
        return TowerConfig(tower.width, 1, tower.heads, tower.mlp_dim)

    small = CLIPConfig(**{**vars(config), "vision": single(config.vision), "text": single(config.text)})
    shapes = {}
    for leaf, value in traverse_util.flatten_dict(param_shapes(small)).items():
        tower = config.vision if leaf[0] == "vision_model" else config.text
        for layer in range(tower.layers if "layers_0" in leaf else 1):
            shapes[tuple(f"layers_{layer}" if part == "layers_0" else part for part in leaf)] = value.shape
    return shapes


def _hf_source(leaf: Leaf, shape: tuple[int, ...]):
    """Hugging Face: the same names; matrices are [out, in], the patch embedding OIHW."""
    key = ".".join(re.sub(r"^layers_(\d+)$", r"layers.\1", part) for part in leaf)
    key = re.sub(r"\.(kernel|scale|embedding)$", ".weight", key)
    if leaf[-1] != "kernel":
        return key, shape, lambda source: source
    if len(shape) == 4:
        return key, (shape[3], shape[2], shape[0], shape[1]), lambda source: source.transpose(2, 3, 1, 0)
    return key, shape[::-1], lambda source: source.T


_OPENAI_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.weight$", "visual.conv1.weight"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.self_attn\.[qkv]_proj\.", ".attn.in_proj_"),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def _flax_source(leaf: Leaf, shape: tuple[int, ...]):
    """transformers' Flax models: the same names and layouts, blocks numbered one level deeper."""
    return "/".join(re.sub(r"^layers_(\d+)$", r"layers/\1", part) for part in leaf), shape, lambda source: source


def _openai_source(leaf: Leaf, shape: tuple[int, ...]):
    """OpenAI: other names, query, key and value fused, both projections [in, out]."""
    key, source_shape, convert = _hf_source(leaf, shape)
    for pattern, name in _OPENAI_NAMES:
        key = re.sub(pattern, name, key)
    if leaf[0] in ("visual_projection", "text_projection"):
        return key, shape, lambda source: source
    if leaf[-2:-1] and leaf[-2] in ("q_proj", "k_proj", "v_proj"):
        third, rows = "qkv".index(leaf[-2][0]), shape[-1]
        fused = (3 * rows, *source_shape[1:])
        return key, fused, lambda source: convert(source[third * rows : (third + 1) * rows])
    return key, source_shape, convert


def _fill(
    config: CLIPConfig, state: Mapping[str, np.ndarray], source_of: Source, ignored: Iterable[str], name: str
) -> Params:
    """The tree, every leaf made from its source tensor; UserError lists all that does not fit."""
    leaves, used, missing, misshapen = {}, set(ignored), [], []
    for leaf, shape in _shapes(config).items():
        key, source_shape, convert = source_of(leaf, shape)
        used.add(key)
        if key not in state:
            missing.append(key)
        elif source_shape == () and np.shape(state[key]) == (1,):  # how some save logit_scale
            leaves[leaf] = np.array(_as_float32(state[key], key, name)[0], np.float32)
        elif np.shape(state[key]) != source_shape:
            misshapen.append(f"{key} is {list(np.shape(state[key]))}, expected {list(source_shape)}")
        else:
            leaves[leaf] = np.array(convert(_as_float32(state[key], key, name)), np.float32, order="C")
    problems = [
        f"{what}: {listed(keys)}"
        for what, keys in (
            ("missing", missing),
            ("not used by the model", [key for key in state if key not in used]),
            ("of the wrong shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise UserError(f"{name} does not fit a CLIP ViT of its configuration; tensors {'; '.join(problems)}")
    return traverse_util.unflatten_dict(leaves)


def _as_float32(source: np.ndarray, key: str, name: str) -> np.ndarray:
    source = np.asarray(source)
    if source.dtype == np.dtype("V2"):  # how npz keeps bfloat16
        source = source.view(ml_dtypes.bfloat16)
    if source.dtype not in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        raise UserError(f"{name}: {key} has dtype {source.dtype}, expected float16, bfloat16, float32 or float64")
    return source.astype(np.float32, copy=False)


# ---- configurations --------------------------------------------------------------------------------------------------

_HF_TEXT = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 2048}
_HF_VISION = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def _config_of_directory(directory: Path, towers: Towers) -> CLIPConfig:
    path = directory / "config.json"
    if towers != UNTOLD:
        told = ", ".join(f"{key} {value!r}" for key, value in towers._asdict().items() if value)
        raise UserError(f"config.towers says {told}, but {path} says it itself; leave config.towers as it was")
    return _config_from_hf(tensor_files.json_object(path), path)


def _config_from_hf(fields: dict[str, Any], path: Path) -> CLIPConfig:
    """config.json -> CLIPConfig; a missing field has the default of transformers' CLIP classes."""

    def section(name: str) -> dict[str, Any]:
        merged = {}
        for part in (fields.get(name), fields.get(f"{name}_dict")):  # the second is an older spelling and wins
            if not isinstance(part, dict | None):
                raise UserError(f"{path}: {name} must be an object, not {brief(part)}")
            merged |= part or {}
        return merged

    def size(part: dict[str, Any], name: str, default: int, largest: int = MAX_SIZE) -> int:
        value = part.get(name, default)
        if type(value) is not int or not 1 <= value <= largest:
            raise UserError(f"{path}: {name} must be a whole number from 1 to {largest}, not {brief(value)}")
        return value

    def tower(part: dict[str, Any], default: dict[str, int]) -> TowerConfig:
        limits = {"num_hidden_layers": MAX_LAYERS}
        width, layers, heads, hidden = (size(part, key, default[key], limits.get(key, MAX_SIZE)) for key in default)
        return TowerConfig(width, layers, heads, hidden)

    def common(name: str, default: Any) -> Any:
        values = [part.get(name, default) for part in (text, vision)]
        if values[0] != values[1]:
            raise UserError(f"{path}: {name} must be the same in both towers, not {values[0]!r} and {values[1]!r}")
        return values[0]

    if fields.get("model_type", "clip") != "clip":
        raise UserError(
            f"{path}: model_type must be 'clip', not {brief(fields['model_type'])}, another family of models"
        )
    text, vision = section("text_config"), section("vision_config")
    if vision.get("num_channels", 3) != 3:
        raise UserError(f"{path}: num_channels must be 3, not {brief(vision['num_channels'])}")
    vocab_size = size(text, "vocab_size", 49408)
    activation, epsilon = common("hidden_act", "quick_gelu"), common("layer_norm_eps", 1e-5)
    if activation not in list(ACTIVATIONS):
        raise UserError(f"{path}: hidden_act must be one of {sorted(ACTIVATIONS)}, not {brief(activation)}")
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise UserError(f"{path}: layer_norm_eps must be between 0 and 1, not {brief(epsilon)}")
    try:
        return CLIPConfig(
            image_size=size(vision, "image_size", 224, 2**14),
            patch_size=size(vision, "patch_size", 32, 2**14),
            embed_dim=size(fields, "projection_dim", 512),
            vision=tower(vision, _HF_VISION),
            text=tower(text, _HF_TEXT),
            vocab_size=vocab_size,
            context_length=size(text, "max_position_embeddings", 77),
            activation=activation,
            layer_norm_eps=float(epsilon),
            end_of_text=_end_of_text(text, vocab_size, path),
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _end_of_text(text: dict[str, Any], vocab_size: int, path: Path) -> int | None:
    """The id that captions are pooled at; None: the highest of the vocabulary."""
    # 2 is what the first converted checkpoints say; they too pool at the highest id. Rows behind it are padding.
    end = text.get("eos_token_id", 2)
    if type(end) is not int or (end != 2 and not vocab_size - MAX_PADDING <= end < vocab_size):
        raise UserError(
            f"{path}: eos_token_id must be {vocab_size - 1}, the highest id (or 2 in old files), where captions are "
            f"pooled, or less by the rows of padding, fewer than {MAX_PADDING}; not {brief(end)}"
        )
    return None if end in (2, vocab_size - 1) else end


def _config_to_hf(config: CLIPConfig, dtype: np.dtype) -> dict[str, Any]:
    def section(tower: TowerConfig, **more: Any) -> dict[str, Any]:
        sizes = zip(_HF_TEXT, (tower.width, tower.layers, tower.heads, tower.mlp_dim), strict=True)
        common = {"hidden_act": config.activation, "layer_norm_eps": config.layer_norm_eps}
        return {**dict(sizes), **common, "projection_dim": config.embed_dim, **more}

    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": str(dtype),
        "projection_dim": config.embed_dim,
        "text_config": section(
            config.text,
            model_type="clip_text_model",
            vocab_size=config.vocab_size,
            max_position_embeddings=config.context_length,
            bos_token_id=(config.vocab_size - 1 if config.end_of_text is None else config.end_of_text) - 1,
            eos_token_id=config.vocab_size - 1 if config.end_of_text is None else config.end_of_text,
            pad_token_id=0,
        ),
        "vision_config": section(
            config.vision,
            model_type="clip_vision_model",
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=3,
        ),
    }


def _from_openai(
    state: Mapping[str, np.ndarray], name: str, towers: Towers, file: Described | None
) -> tuple[CLIPConfig, Params]:
    state = plain_names(state)
    config = from_shapes({key: np.shape(value) for key, value in state.items()}, name, towers, file)
    return config, _fill(config, state, _openai_source, OPENAI_SCALARS, name)
