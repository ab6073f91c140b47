"""What tensors under OpenAI's names do not say of themselves: activation and heads, from keys, open_clip, or OpenAI's.

open_clip, LAION, DataComp and others publish under the same names; shapes tell neither the activation nor the heads.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lpi_jax.errors import UserError
from lpi_jax.models import tensor_files
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.tensor_files import brief

MAX_LAYERS = 512
DESCRIPTION = "open_clip_config.json"
OPENAI_WIDTHS = ((768, 512), (1024, 768))  # vision and text, of all ViT that OpenAI published
SMALLEST_PUBLISHED = 384  # narrower towers are nobody's published weights, but toys made to OpenAI's rule
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]

FAMILIES = (
    (r"visual\.layer1\.", "a ResNet CLIP"),
    (r"logit_bias$|params/img/", "a SigLIP"),
    (r"visual\.trunk\.", "a CLIP with a timm vision tower (SigLIP, EVA, ConvNeXt and others)"),
    (r"visual\.(blocks\.|rope|patch_embed\.)", "an EVA-CLIP"),
    (r"text\.(transformer\.(embeddings|encoder|word)|proj)", "a CLIP with a text tower of transformers"),
    (r"text_decoder\.|visual\.attn_pool", "a CoCa"),
    (r"image_encoder\.", "a MobileCLIP"),
    (r"(.*\.)?ls_[12]\.gamma$", "a CLIP with layer scale"),
)

# Fields of open_clip's that change nothing once a model is trained, and those that may only have one value.
IDLE = {"patch_dropout", "output_tokens", "output_dict", "custom_text", "cast_dtype", "init_logit_scale", "pad_id"}
IDLE |= {"nonscalar_logit_scale", "hf_tokenizer_name", "tokenizer_kwargs", "eos_id", "bos_id"}
IDLE_PREFIXES = ("timm_", "hf_", "attn_pooler_")
USUAL = {"vision_cfg.pool_type": "tok", "vision_cfg.pos_embed_type": "learnable"}
USUAL |= {"text_cfg.pool_type": "argmax", "text_cfg.proj_type": "linear"}
SIZES = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "layers", "width", "head_width", "heads", "mlp_ratio"}
SIZES |= {"patch_size", "image_size", "context_length", "vocab_size"}

Value = TypeVar("Value")


class Towers(NamedTuple):
    """What a user or a file says: the activation ("": nothing) and the heads of both towers (0: nothing)."""

    activation: str = ""
    vision_heads: int = 0
    text_heads: int = 0


UNTOLD = Towers()


class Described(NamedTuple):
    """open_clip_config.json: what it says of the towers, and the sizes that the tensors must have, by name."""

    path: Path
    towers: Towers
    sizes: dict[str, int]
    note: str


def plain_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Without the prefixes that wrappers and open_clip's separate text tower put before OpenAI's names, and buffers."""
    for prefix in ("module.", "_orig_mod."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    if "text.token_embedding.weight" in tensors:
        tensors = {key.removeprefix("text."): value for key, value in tensors.items()}
    return {key: value for key, value in tensors.items() if not re.search(r"(^|\.)(attn_mask|position_ids)$", key)}


def described(directory: Path) -> Described | None:
    """What open_clip_config.json in a directory says; None where there is none.

    Raises: UserError where it is damaged, or describes other towers than CLIP's ViT.
    """
    path = directory / DESCRIPTION
    if not path.is_file():
        return None
    fields = tensor_files.json_object(path)
    # Beside weights stands {"model_cfg": ...}; open_clip's own list of models has what is in it alone.
    if "model_cfg" not in fields and "vision_cfg" not in fields:
        raise UserError(f"{path} has neither model_cfg nor vision_cfg; expected what open_clip writes beside weights")
    model = _object(path, fields, "model_cfg") if "model_cfg" in fields else fields
    vision, text = _object(path, model, "vision_cfg"), _object(path, model, "text_cfg")
    if "multimodal_cfg" in model or model.get("init_logit_bias") is not None:
        family = "CoCa" if "multimodal_cfg" in model else "SigLIP"
        raise UserError(f"{path} describes a {family}; only CLIP's own ViT towers are supported")
    if isinstance(vision.get("layers"), list):
        raise UserError(f"{path} describes a ResNet CLIP; only the ViT models are supported")
    for part, section in (("vision_cfg.", vision), ("text_cfg.", text), ("", model)):
        for key, value in section.items():
            named = key in ("timm_model_name", "hf_model_name") and value
            idle = key in SIZES | IDLE or (key.startswith(IDLE_PREFIXES) and not named)
            if not idle and value not in (None, False, {}, USUAL.get(part + key)):
                raise UserError(
                    f"{path}: model_cfg.{part}{key} is {brief(value)}, which is another model than CLIP's own ViT"
                    " towers; only those are supported"
                )

    def size(part: str, section: Mapping[str, Any], key: str, usual: int) -> int:
        value = section.get(key, usual)
        if key == "image_size" and isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if type(value) is not int or not 1 <= value <= 2**20:
            raise UserError(f"{path}: model_cfg.{part}{key} must be a whole number above 0, not {brief(value)}")
        return value

    defaults = {"width": 768, "layers": 12, "patch_size": 16, "image_size": 224}
    sizes = {f"vision_{key}": size("vision_cfg.", vision, key, usual) for key, usual in defaults.items()}
    defaults = {"width": 512, "layers": 12, "context_length": 77, "vocab_size": 49408}
    sizes |= {f"text_{key}": size("text_cfg.", text, key, usual) for key, usual in defaults.items()}
    sizes["embed_dim"] = size("", model, "embed_dim", 512)
    heads = max(1, sizes["vision_width"] // size("vision_cfg.", vision, "head_width", 64))
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    mean = _object(path, fields, "preprocess_cfg").get("mean", CLIP_MEAN)
    note = "" if mean == CLIP_MEAN else f"; it saw pixels of mean {brief(mean)}: compare config.pixels"
    return Described(path, Towers(activation, heads, size("text_cfg.", text, "heads", 8)), sizes, note)


def from_shapes(shapes: Mapping[str, tuple[int, ...]], name: str, told: Towers, file: Described | None) -> CLIPConfig:
    """The configuration of tensors under OpenAI's names, with a sentence on where the rest was taken from.

    Args:
      shapes: by `plain_names`. name: of the file, for messages.
      told: what the user says; it goes before `file`, and that before what OpenAI's models have.

    Raises: UserError where shapes do not belong to a ViT CLIP or to what `file` describes, and for towers of widths
      that OpenAI never had where nobody says their activation and heads.
    """
    if any(key.startswith("vision_model.") for key in shapes):
        raise UserError(f"{name} has Hugging Face's key names: give the directory that holds it and its config.json")
    _refuse_families(shapes, name)

    def shape(key: str, rank: int) -> tuple[int, ...]:
        if key not in shapes:
            raise UserError(f"{name} does not fit a CLIP ViT; tensors missing: {key}")
        found = shapes[key]
        if len(found) != rank or 0 in found:
            raise UserError(f"{name}: {key} is {list(found)}, expected {rank} dimensions, none of them 0")
        return found

    vision_width, _, patch, _ = shape("visual.conv1.weight", 4)
    vocab_size, text_width = shape("token_embedding.weight", 2)
    patches = shape("visual.positional_embedding", 2)[0] - 1
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        raise UserError(f"{name}: visual.positional_embedding has {patches + 1} rows, expected 1 + a square number")
    (activation, vision_heads, text_heads), assumed = _decided(vision_width, text_width, name, told, file)

    def tower(width: int, heads: int, prefix: str) -> TowerConfig:
        blocks = {key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)}
        if not 1 <= len(blocks) <= MAX_LAYERS:
            raise UserError(f"{name} has {len(blocks)} blocks below {prefix}, expected 1 to {MAX_LAYERS}")
        return TowerConfig(width, len(blocks), heads, shape(f"{prefix}0.mlp.c_fc.weight", 2)[0])

    try:
        config = CLIPConfig(
            image_size=math.isqrt(patches) * patch,
            patch_size=patch,
            embed_dim=shape("text_projection", 2)[1],
            vision=tower(vision_width, vision_heads, "visual.transformer.resblocks."),
            text=tower(text_width, text_heads, "transformer.resblocks."),
            vocab_size=vocab_size,
            context_length=shape("positional_embedding", 2)[0],
            activation=activation,
            assumed=assumed,
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if file:
        _compare(config, file, name)
    return config


def _decided(vision: int, text: int, name: str, told: Towers, file: Described | None) -> tuple[Towers, str]:
    """Activation and heads of towers of these widths, and in words where each comes from."""
    by_openai = Towers("quick_gelu", max(1, vision // 64), max(1, text // 64))
    sources = {"config.towers": told, DESCRIPTION: file.towers if file else UNTOLD, "assumed, as OpenAI's": by_openai}
    origins = [next(s for s, towers in sources.items() if towers[field]) for field in range(len(Towers._fields))]
    decided = Towers(*(sources[origin][field] for field, origin in enumerate(origins)))
    said = [
        f"activation {decided.activation}",
        f"{decided.vision_heads} vision heads",
        f"{decided.text_heads} text heads",
    ]
    assumed = f"{name}: " + ", ".join(f"{what} ({source})" for what, source in zip(said, origins, strict=True))
    if any(sources[origin] is by_openai for origin in origins):
        _refuse_to_guess(vision, text, name, told)
        assumed += f"; {DESCRIPTION} beside the weights or config.towers tells of others'"
    return decided, assumed + (file.note if file else "")


def _refuse_families(names: Iterable[str], name: str) -> None:
    for pattern, family in FAMILIES:
        if any(re.match(pattern, key) for key in names):
            raise UserError(f"{name} is {family}; only CLIP's own ViT towers are supported")


def _refuse_to_guess(vision: int, text: int, name: str, told: Towers) -> None:
    """Raises UserError for towers that OpenAI's rule does not fit, as far as nobody told of them."""
    remedy = (
        f"put its {DESCRIPTION} beside it, or set --config.towers.activation, --config.towers.vision_heads and"
        " --config.towers.text_heads"
    )
    for width, heads, prefix in (
        (vision, told.vision_heads, "visual.transformer.resblocks."),
        (text, told.text_heads, "transformer.resblocks."),
    ):
        if width % 64 and not heads:
            raise UserError(
                f"{name}: the width below {prefix} is {width}, expected a multiple of 64 (64 per head); {remedy}"
            )
    if max(vision, text) >= SMALLEST_PUBLISHED and (vision, text) not in OPENAI_WIDTHS:
        raise UserError(
            f"{name} has towers of widths {vision} and {text}, which OpenAI's never had, so that their activation and"
            f" heads are not known: {remedy}"
        )


def _compare(config: CLIPConfig, file: Described, name: str) -> None:
    found = {
        "vision_width": config.vision.width,
        "vision_layers": config.vision.layers,
        "vision_patch_size": config.patch_size,
        "vision_image_size": config.image_size,
        "text_width": config.text.width,
        "text_layers": config.text.layers,
        "text_context_length": config.context_length,
        "embed_dim": config.embed_dim,
    }
    different = [f"{key} {file.sizes[key]} (tensors: {size})" for key, size in found.items() if file.sizes[key] != size]
    if config.vocab_size < file.sizes["text_vocab_size"]:  # more rows than tokens are padding
        different.append(f"text_vocab_size {file.sizes['text_vocab_size']} (tensors: {config.vocab_size})")
    if different:
        raise UserError(f"{file.path} describes other weights than {name}: {', '.join(different)}")


def _object(path: Path, fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name} must be an object, not {brief(value)}")
    return value
