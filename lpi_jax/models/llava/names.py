"""The names of tensors in LLaVA's checkpoints, which differ by release and library version, as one set of names.

`vision_model.`, `text_model.`, `visual_projection.` and `text_projection.` as in Hugging Face's CLIP,
`projector.linear_1.` and `projector.linear_2.`, and `language_model.` before what follows `model.` in its LLaMA.
"""

import re
from collections.abc import Iterable

from lpi_jax.errors import UserError
from lpi_jax.models.tensor_files import listed

Leaf = tuple[str, ...]  # the path of a leaf in the tree

# The first that matches counts.
_RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(?:model\.)?(?:(vision|text)_tower\.)+(?:(?:vision|text)_model\.)?", r"\1_model."),
        (r"^(?:.*\.)?(?:mm_)?projector\.(?:0\.)?(?=(?:weight|bias)$)", "projector.linear_1."),
        (r"^(?:.*\.)?(?:mm_)?projector\.2\.", "projector.linear_2."),
        (r"^(?:.*\.)?multi_modal_projector\.", "projector."),
        (r"^(?:language_model\.)?lm_head\.", "language_model.lm_head."),
        (r"^(?:language_model\.model|model\.language_model|model)\.", "language_model."),
    )
)
# Buffers that follow from the sizes, and what only retrieval needs.
_UNUSED = re.compile(r"(?:^|\.)(?:position_ids|inv_freq|logit_scale)$")


def by_common_name(keys: Iterable[str]) -> dict[str, list[str]]:
    """Common name -> the checkpoint's keys that have it, without what no leaf is made of."""
    found: dict[str, list[str]] = {}
    for key in keys:
        if not _UNUSED.search(key):
            found.setdefault(common_name(key), []).append(key)
    return found


def common_name(key: str) -> str:
    """The one name of what a checkpoint calls `key`."""
    for pattern, name in _RULES:
        if pattern.search(key):
            return pattern.sub(name, key, count=1)
    return key


def name_of(leaf: Leaf) -> str:
    """The common name of the tensor that a leaf is made of."""
    name = re.sub(r"\blayers_(\d+)\b", r"layers.\1", ".".join(leaf))
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", name)


def check(name: str, wanted: Iterable[str], there: Iterable[str], misshapen: Iterable[str]) -> None:
    """Raises UserError that lists what of the wanted names is missing, what else is there, and what is misshapen."""
    wanted, there = set(wanted), set(there)
    problems = (
        ("missing", wanted - there),
        ("not used by the model", there - wanted),
        ("of the wrong shape", misshapen),
    )
    said = [f"{what}: {listed(names)}" for what, names in problems if names]
    if said:
        raise UserError(f"{name} does not fit a LLaVA of its configuration; tensors {'; '.join(said)}")
