"""From a configuration to instruction following and its frozen backbone, or a sentence that says what does not fit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources.registry import INSTRUCTIONS
from lpi_jax.data.stream import Split
from lpi_jax.errors import UserError
from lpi_jax.methods.base import Site
from lpi_jax.models import hub
from lpi_jax.models.llava import LLaVA, weights
from lpi_jax.models.llava.config import LlavaConfig
from lpi_jax.models.llava.llava import param_shapes
from lpi_jax.models.published import CLIPS, LLAMAS
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.models.weights import fingerprint
from lpi_jax.options import chosen
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel import placement
from lpi_jax.parallel.placement import placing
from lpi_jax.problems.base import Backbone, Planned
from lpi_jax.problems.instruction import planned as shapes
from lpi_jax.problems.instruction import texts as reading
from lpi_jax.problems.instruction.options import Asked, Measured
from lpi_jax.problems.instruction.problem import Instruction, sites
from lpi_jax.problems.instruction.sides import SITE
from lpi_jax.problems.instruction.texts import Texts
from lpi_jax.types import Tree

SAID = INSTRUCTIONS
_MANY = 1 << 20
_ASSETS = Path(__file__).parents[2] / "assets"
BUNDLED, BUNDLED_CLIP = _ASSETS / "tiny_llava", _ASSETS / "tiny_clip"


class Places(NamedTuple):
    """Where the parts of a backbone lie: paths or hub ids."""

    llava: str | Path
    clip: str | Path
    tokenizer: str | Path


def places(config: ConfigDict) -> Places:
    """The parts that a configuration names."""
    bundled = config.backbone == "bundled"
    llava = BUNDLED if bundled else config.backbone
    clip = config.problem.clip or (BUNDLED_CLIP if bundled else Path(config.backbone).expanduser() / "clip")
    return Places(llava, clip, config.tokenizer or llava)


def build(config: ConfigDict, mesh: Mesh) -> tuple[Instruction, Backbone]:
    """The problem and its backbone, the weights on the mesh. Raises UserError for what does not fit together."""
    meshes.check_batch("config.eval.batch", config.eval.batch, mesh)
    where = places(config)
    llava, params = weights.load(where.llava, where.clip, placing(mesh), jnp.dtype(config.dtype))
    words, clip = reading.load_tokenizer(where.tokenizer), Tokenizer.load(where.clip)
    check(config, llava, words, clip)
    hashes = {
        "backbone": fingerprint(params),
        "tokenizer": reading.fingerprint(words),
        "clip": clip.fingerprint(),
    }
    return instruction(config, llava, words, clip), Backbone(params, hashes, "", llava.clip.image_size)


def planned(config: ConfigDict, mesh: Mesh) -> Planned:
    """The problem and its network in shapes alone. Raises UserError where their sizes are not known here."""
    meshes.check_batch("config.eval.batch", config.eval.batch, mesh)
    seen = look(config)
    llava = seen.llava or _published(config)
    if llava is None:
        raise UserError(f"the sizes of config.backbone {config.backbone} are not known: {seen.unknown}")
    problem = instruction(config, llava, seen.words, seen.clip)
    frozen = placement.planned(param_shapes(llava), mesh, lambda path: jnp.dtype(config.dtype))
    return Planned(
        problem,
        frozen,
        llava.clip.embed_dim,
        lambda method: shapes.batch(llava, config.train.batch),
        lambda method, *trees: shapes.calls(problem, method, (frozen, mesh), trees),
    )


def _published(config: ConfigDict) -> LlavaConfig | None:
    """The sizes of published ones, LLaVA and CLIP; None where either is another."""
    llama, clip = LLAMAS.get(config.backbone), CLIPS.get(config.problem.clip)
    return LlavaConfig(clip, llama, max_length=4096) if llama and clip else None


def instruction(config: ConfigDict, llava: LlavaConfig, words: Any, clip: Tokenizer) -> Instruction:
    """The problem for a network of these sizes; words: its LLaMA tokenizer."""
    asked = chosen(Asked, config.problem)
    return Instruction(
        model=LLaVA(llava, jnp.dtype(config.dtype), config.matmul_precision, config.train.remat),
        text_feature=asked.text_feature,
        texts=Texts(words, clip, llava.clip.context_length, llava.max_length, asked),
        image=asked.image,
        measured=Measured(
            batch=config.eval.batch,
            max_new=config.eval.max_new,
            image=config.eval.image,
            oracle=config.task_id == "oracle",
            future=config.eval.future,
            shown=config.eval.shown,
        ),
    )


def check(config: ConfigDict, llava: LlavaConfig, words: Any, clip: Tokenizer) -> None:
    """Raises UserError unless both tokenizers are the network's, and questions compare with images."""
    if len(words) > llava.llama.vocab_size or (words.bos_token_id, words.eos_token_id) != (llava.bos, llava.eos):
        raise UserError(
            f"the tokenizer has {len(words)} tokens, begins with {words.bos_token_id} and ends with"
            f" {words.eos_token_id}, but backbone {config.backbone} has {llava.llama.vocab_size}, {llava.bos} and"
            f" {llava.eos}; choose another by --config.tokenizer=DIR"
        )
    ends = (None, clip.vocab_size - 1)
    if clip.vocab_size > llava.clip.vocab_size or llava.clip.end_of_text not in ends:
        raise UserError(
            f"CLIP's tokenizer has {clip.vocab_size} tokens but the text tower embeds {llava.clip.vocab_size} and pools"
            f" at id {llava.clip.end_of_text}; choose another by --config.problem.clip=DIR"
        )
    projected = config.problem.text_feature == "projected"
    if projected and not llava.text_projection:
        raise UserError(
            "config.problem.text_feature is 'projected', but CLIP has no text_projection; expected 'pooler'"
        )
    if not projected and llava.clip.text.width != llava.clip.embed_dim:
        raise UserError(
            f"config.problem.text_feature is 'pooler', {llava.clip.text.width} numbers of CLIP's text tower, but images"
            f" have {llava.clip.embed_dim}; use --config.problem.text_feature=projected"
        )


def examples(split: Split[Instructed]) -> int:
    """How many training examples a split has: each sample is one."""
    return len(split)


def texts(record: Instructed) -> tuple[str, ...]:
    """What is said of an image: its questions with their answers."""
    return tuple(f"{question} {answer}" for question, answer in record.turns)


class Look(NamedTuple):
    """What of the backbone can be known without its tensors and without fetching it.

    Attributes:
      llava: sizes of the network. words, clip: its two tokenizers. None: not known.
      unknown: why something is not known; "" where all is. refused: why a run would not use it.
    """

    llava: LlavaConfig | None
    words: Any
    clip: Tokenizer | None
    unknown: str
    refused: tuple[str, ...]

    @property
    def image_size(self) -> int | None:
        """Side of the backbone's input, pixels."""
        return self.llava.clip.image_size if self.llava else None

    @property
    def sites(self) -> Mapping[str, Site] | None:
        """Where prompts may enter."""
        return sites(self.llava) if self.llava else None

    @property
    def spacious(self) -> Mapping[str, Site]:
        """A network with room for any prompts: for what is asked of a method whatever the backbone."""
        return {SITE: Site(layers=_MANY, width=1, room=_MANY)}

    @property
    def shapes(self) -> Tree:
        """The parameters without their numbers."""
        return param_shapes(self.llava)

    def count_cut(self, config: ConfigDict, reserve: Mapping[str, int]) -> Callable[[Split], int] | None:
        """A split -> how many of its conversations lose their end behind `reserve` and image; None: unknown."""
        if self.llava is None or self.words is None or self.clip is None:
            return None
        problem = instruction(config, self.llava, self.words, self.clip)
        return lambda split: problem.cut(split, reserve)

    def check(self, config: ConfigDict) -> None:
        """Raises UserError where tokenizers and network do not fit together."""
        if self.llava and self.words and self.clip:
            check(config, self.llava, self.words, self.clip)


def look(config: ConfigDict) -> Look:
    """The network and the tokenizers that a configuration names, as far as they are on this machine."""
    try:
        where = places(config)
    except UserError as error:
        return Look(None, None, None, str(error), (str(error),))
    parts: list[Any] = []
    unknown: list[str] = []
    refused: list[str] = []
    wanted: tuple[tuple[tuple[str | Path, ...], Callable[..., Any]], ...] = (
        ((where.llava, where.clip), weights.config),
        ((where.tokenizer,), reading.load_tokenizer),
        ((where.clip,), Tokenizer.load),
    )
    for names, load in wanted:
        paths = [hub.at_hand(name) for name in names]
        parts.append(None)
        if absent := [str(name) for name, path in zip(names, paths, strict=True) if _would_fetch(name, path)]:
            unknown.append(f"{' and '.join(absent)} is not on this machine; a run would have to fetch it")
            continue
        try:
            parts[-1] = load(*(path or name for name, path in zip(names, paths, strict=True)))
        except UserError as error:
            refused.append(str(error))
            unknown.append(str(error))
    return Look(*parts, "; ".join(dict.fromkeys(unknown)), tuple(dict.fromkeys(refused)))


def _would_fetch(name: str | Path, path: Path | None) -> bool:
    return path is None and not isinstance(name, Path) and hub.is_hub_id(name)
