"""Hugging Face's configuration of a LLaVA -> LlavaConfig: shapes of tensors tell sizes, the fields what they cannot.

Where fields tell a size too, it must be that of the tensors. A field that is missing has transformers' default.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lpi_jax.errors import UserError
from lpi_jax.models.clip import ACTIVATIONS, CLIPConfig, TowerConfig
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.tensor_files import brief, listed
from lpi_jax.models.towers import MAX_LAYERS

Shapes = Mapping[str, tuple[int, ...]]  # by common name (names.py)
MAX_SIZE = 2**20
# Whose shapes tell the sizes, and how many axes they have.
_TELLING = {
    "language_model.embed_tokens.weight": 2,
    "language_model.layers.0.self_attn.k_proj.weight": 2,
    "language_model.layers.0.mlp.gate_proj.weight": 2,
    "projector.linear_1.weight": 2,
    "vision_model.embeddings.patch_embedding.weight": 4,
    "vision_model.embeddings.position_embedding.weight": 2,
    "vision_model.encoder.layers.0.mlp.fc1.weight": 2,
    "visual_projection.weight": 2,
    "text_model.embeddings.token_embedding.weight": 2,
    "text_model.embeddings.position_embedding.weight": 2,
    "text_model.encoder.layers.0.mlp.fc1.weight": 2,
}
# transformers' default number of heads, which holds for the default width only.
_HEADS = {"LLaMA": (4096, 32), "vision": (768, 12), "text": (512, 8)}


class Told:
    """What the sections of a configuration say of one part of the model; they must not contradict each other."""

    def __init__(self, name: str, sections: Mapping[str, Mapping[str, Any]]):
        self.name, self.sections = name, sections

    def __call__(self, key: str, default: Any = None) -> Any:
        """The value of a field; the default where no section has one."""
        values = {label: section[key] for label, section in self.sections.items() if section.get(key) is not None}
        if len({repr(value) for value in values.values()}) > 1:
            said = " and ".join(f"{brief(value)} in {label}" for label, value in values.items())
            raise UserError(f"{self.name}: {key} is {said}; expected one value")
        return next(iter(values.values()), default)

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{self.name}: {key} must be a positive number, not {brief(value)}")
        return float(value)

    def whole(self, key: str, default: int) -> int:
        """A whole number; which, the caller judges."""
        value = self(key, default)
        if type(value) is not int:
            raise UserError(f"{self.name}: {key} must be a whole number, not {brief(value)}")
        return value

    def heads(self, part: str, width: int) -> int:
        """Attention heads of a part of this width, which no shape tells."""
        usual_width, usual = _HEADS[part]
        value = self("num_attention_heads", usual if width == usual_width else None)
        if value is None:
            where = " or ".join(self.sections) or "the configuration"
            raise UserError(f"{self.name}: num_attention_heads of the {part} of width {width} is missing in {where}")
        if type(value) is not int or value < 1 or width % value:
            raise UserError(f"{self.name}: num_attention_heads {brief(value)} must divide the {part}'s width {width}")
        return value

    def compare(self, sizes: Mapping[str, int]) -> None:
        """Raises UserError where a section tells another size than the tensors have."""
        if wrong := [
            f"{key} {brief(self(key))} (tensors: {size})" for key, size in sizes.items() if self(key, size) != size
        ]:
            raise UserError(f"{self.name} describes other weights: {', '.join(wrong)}")


def config_of(fields: Mapping[str, Any], shapes: Shapes, name: str) -> LlavaConfig:
    """The configuration.

    Args:
      fields: LLaVA's config.json in Hugging Face's form (`text_config`, `vision_config`, ...) or the flat LLaMA form;
        CLIP's as `clip`, or its text tower's as `clip_text_config`.
      shapes: of the tensors, by common name. name: whose they are, for errors.

    Raises: UserError for what is missing, contradicts itself or the tensors, or is another kind of model.
    """
    if missing := _TELLING.keys() - shapes.keys():
        raise UserError(f"{name} lacks tensors of a LLaVA with both of CLIP's towers: {listed(missing)}")
    if odd := [key for key, axes in _TELLING.items() if len(shapes[key]) != axes or not min(shapes[key])]:
        raise UserError(f"{name}: of the wrong number of axes: {listed(odd)}")
    clip = _section(fields, "clip", name)
    joint = _section(fields, "text_config", name)
    of_clip = joint.get("model_type") == "clip_text_model"  # in the flat form
    llama = Told(name, {"text_config": joint} if joint and not of_clip else {"config.json": fields})
    vision = {
        "vision_config": _section(fields, "vision_config", name),
        "clip.vision_config": _of_clip(clip, "vision", name),
    }
    text = {
        "text_config": joint if of_clip else {},
        "clip_text_config": _section(fields, "clip_text_config", name),
        "clip.text_config": _of_clip(clip, "text", name),
    }
    top = Told(name, {"config.json": fields})
    _refuse_others(top, llama)
    try:
        sizes = _llama(llama, shapes, name)
        return LlavaConfig(
            clip=_clip(Told(name, vision), Told(name, text), shapes, name),
            llama=sizes,
            projector="mlp2x_gelu" if "projector.linear_2.weight" in shapes else "linear",
            feature_layer=top.whole("vision_feature_layer", top.whole("mm_vision_select_layer", -2)),
            bos=llama.whole("bos_token_id", 1),
            eos=llama.whole("eos_token_id", 2),
            max_length=top.whole("tokenizer_model_max_length", llama.whole("max_position_embeddings", 2048)),
            words=_words(top.whole("image_token_index", 0), sizes.vocab_size),
            text_projection="text_projection.weight" in shapes,
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _words(image_token: int, vocab_size: int) -> int:
    """The image's id is the first that is added behind the words, where it is an id of the vocabulary at all."""
    return image_token if 0 < image_token < vocab_size else 0


def _llama(told: Told, shapes: Shapes, name: str) -> LlamaConfig:
    vocab_size, width = shapes["language_model.embed_tokens.weight"]
    layers = _layers(shapes, "language_model.layers.", name)
    mlp_dim = shapes["language_model.layers.0.mlp.gate_proj.weight"][0]
    heads = told.heads("LLaMA", width)
    kv_heads = max(1, shapes["language_model.layers.0.self_attn.k_proj.weight"][0] // (width // heads))
    told.compare(
        {
            "vocab_size": vocab_size,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "intermediate_size": mlp_dim,
            "num_key_value_heads": kv_heads,
            "head_dim": width // heads,
        }
    )
    rope = Told(name, {key: _section({key: told(key)}, key, name) for key in ("rope_parameters", "rope_scaling")})
    kind = rope("rope_type", rope("type", "default"))
    if kind != "default":
        raise UserError(f"{name}: rotary positions of type {brief(kind)} are not supported, expected 'default'")
    return LlamaConfig(
        vocab_size,
        width,
        layers,
        heads,
        kv_heads,
        mlp_dim,
        rms_norm_eps=told.number("rms_norm_eps", 1e-6),
        rope_theta=rope.number("rope_theta", told.number("rope_theta", 1e4)),
        tied="language_model.lm_head.weight" not in shapes and told("tie_word_embeddings", False) is True,
    )


def _clip(vision: Told, text: Told, shapes: Shapes, name: str) -> CLIPConfig:
    def tower(told: Told, part: str, width: int) -> TowerConfig:
        layers = _layers(shapes, f"{part}_model.encoder.layers.", name)
        hidden = shapes[f"{part}_model.encoder.layers.0.mlp.fc1.weight"][0]
        told.compare({"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": hidden})
        return TowerConfig(width, layers, told.heads(part, width), hidden)

    width, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
    rows = shapes["vision_model.embeddings.position_embedding.weight"][0]
    image_size = vision.whole("image_size", math.isqrt(rows - 1) * patch)
    vision.compare({"patch_size": patch, "num_channels": 3})
    if not patch <= image_size <= MAX_SIZE or (image_size // patch) ** 2 + 1 != rows:
        raise UserError(f"{name}: image_size {image_size} with patches of {patch} does not give {rows} positions")
    vocab_size, text_width = shapes["text_model.embeddings.token_embedding.weight"]
    context = shapes["text_model.embeddings.position_embedding.weight"][0]
    text.compare({"vocab_size": vocab_size, "max_position_embeddings": context})
    both = Told(name, {**text.sections, **vision.sections})
    activation, end = both("hidden_act", "quick_gelu"), text.whole("eos_token_id", 2)
    if activation not in list(ACTIVATIONS):
        raise UserError(f"{name}: hidden_act must be one of {sorted(ACTIVATIONS)}, not {brief(activation)}")
    return CLIPConfig(
        image_size=image_size,
        patch_size=patch,
        embed_dim=shapes["visual_projection.weight"][0],
        vision=tower(vision, "vision", width),
        text=tower(text, "text", text_width),
        vocab_size=vocab_size,
        context_length=context,
        activation=activation,
        layer_norm_eps=both.number("layer_norm_eps", 1e-5),
        end_of_text=end if 2 < end < vocab_size - 1 else None,  # old files say 2 and mean the highest
    )


def _refuse_others(top: Told, llama: Told) -> None:
    expected = (
        (llama, "model_type", ("llama", "llava", "llava_llama")),
        (llama, "hidden_act", ("silu",)),
        (top, "projector_hidden_act", ("gelu",)),
        (top, "mm_projector_type", ("mlp2x_gelu", "linear")),
        (top, "vision_feature_select_strategy", ("default",)),
        (top, "mm_vision_select_feature", ("patch",)),
    )
    for told, key, choices in expected:
        if (value := told(key, choices[0])) not in choices:
            raise UserError(f"{told.name}: {key} must be {' or '.join(choices)}, not {brief(value)}")


def _layers(shapes: Iterable[str], prefix: str, name: str) -> int:
    numbers = {match[1] for key in shapes if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", key))}
    if len(numbers) > MAX_LAYERS:
        raise UserError(f"{name} has {len(numbers)} blocks below {prefix}, expected 1 to {MAX_LAYERS}")
    return len(numbers)


def _section(fields: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    value = fields.get(key)
    if not isinstance(value, Mapping | None):
        raise UserError(f"{name}: {key} must be an object, not {brief(value)}")
    return value or {}


def _of_clip(clip: Mapping[str, Any], part: str, name: str) -> Mapping[str, Any]:
    """A tower's section in CLIP's configuration; the second is an older spelling and wins."""
    return {**_section(clip, f"{part}_config", name), **_section(clip, f"{part}_config_dict", name)}
