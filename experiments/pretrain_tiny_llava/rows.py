"""Rows of a fixed length: a picture and as many conversations about it as fit, each alone with the picture.

A row is [BOS | a random prefix or a system text | USER: | patches | conversation, conversation, ...]. A conversation
sees what stands before the patches, the patches and itself; one without a picture sees BOS and itself. Its positions
go on behind what it sees, so that it is read as it would be in a row of its own, and the picture is read once for all.

A batch is a pure function of its number: general samples of that seed, further questions about the same pictures, and
facts. Some questions have nonsense around them, and half of the rows have a prefix of any ids: an unknown phrase shall
not lead astray, and neither shall prompts, which begin as such ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import rules
import variants

from lpi_jax.data.questions.drawn import Images
from lpi_jax.data.questions.general import general
from lpi_jax.data.questions.general_facts import FACTS
from lpi_jax.data.questions.general_skills import ANYWHERE, BESIDE, CROWD, Scene
from lpi_jax.data.questions.picture import RADIUS, STEP, Picture, one
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.problems.instruction import conversation

Generator = np.random.Generator
Turn = tuple[str, str]
Skill = Callable[[Generator, Scene], Turn]
LENGTH = 160
SHORTEST = 12  # tokens of a conversation, nearly
MORE = 6  # further questions about a picture, at most
MOST = MORE + 2  # conversations of a row, with the picture's first and a fact
MAX_PREFIX = 24  # random ids before a row's conversations, at most
FACT_SHARE = 0.5  # of the rows, which have a question without a picture
SYSTEM_SHARE = 0.06  # of the rows, which have LLaVA's usual system text
NONSENSE_SHARE = 0.2  # of the questions
FIRST_PIECE = 259  # the ids before it are special ones and bytes
OUTSIDE = -1  # the conversation that padding belongs to


class Pieces:
    """A tokenizer of `transformers` as conversations are encoded with it, without the cost of its wrapper."""

    def __init__(self, tokenizer: Any):
        """tokenizer: a fast one."""
        self._backend = tokenizer.backend_tokenizer
        self.bos_token_id, self.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id

    def __len__(self) -> int:
        return self._backend.get_vocab_size()

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        """The ids of a text."""
        return {"input_ids": self._backend.encode(text, add_special_tokens=add_special_tokens).ids}


class Rows(NamedTuple):
    """A batch.

    Attributes:
      images: [B, S, S, 3] uint8. start: [B] int32, where the patches begin.
      ids, labels: [B, L] int32, 0 and IGNORE at the patches. positions: [B, L] int32.
      group: [B, L] int32: 0 of what stands before the conversations, then their numbers; OUTSIDE of padding.
      sees: [B, L] bool, whether a token sees more of group 0 than BOS.
    """

    images: np.ndarray
    start: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    group: np.ndarray
    sees: np.ndarray


@dataclass(frozen=True)
class Packing:
    """tokenizer: of the LLaMA. count: rows of a batch, B. size: side of the images, pixels. patches: of an image.

    ruled: share of the rows in front of which rules stand that hold for what is asked about the picture (`rules`).
    varied: share of those whose questions are a made-up task's, behind its prompt (`variants`); their ids in front are
    those behind the tokenizer's.
    """

    tokenizer: Any
    count: int
    size: int
    patches: int
    ruled: float = 0.0
    varied: float = 0.0

    def batch(self, seed: int) -> Rows:
        """The rows of general samples with this seed."""
        rng = np.random.default_rng([seed, 1])
        split = general(seed, self.count + self.count // 2 + 8, self.size)
        seen = [k for k, record in enumerate(split.records) if record.has_image][: self.count]
        rows = []
        for index in seen:
            scene = scene_of(split.load.__self__, index)
            skills = rng.permutation(np.asarray(skills_of(scene), object))[:MORE]
            asked = [(split.records[index].turns, True)]
            asked += [([one(rng, FACTS)(rng)], False)] * int(rng.random() < FACT_SHARE)
            asked += [([skill(rng, scene)], True) for skill in skills]
            if self.varied and rng.random() < self.varied:
                rows.append(self.led(rng, np.asarray(split.load(index)), scene))
                continue
            rows.append(self.row(rng, np.asarray(split.load(index)), asked))
        return Rows(*map(np.stack, zip(*rows, strict=True)))

    def row(self, rng: Generator, image: np.ndarray, asked: Sequence[tuple[Sequence[Turn], bool]]) -> Rows:
        """One row of an image and the conversations that fit; asked: the turns of each, and whether it is about it."""
        told = rules.drawn(rng, [turn for turns, about in asked[:4] if about for turn in turns]) if self.ruled else []
        told = told if rng.random() < self.ruled else []
        asked = [([_under(told, turn) for turn in turns] if about else turns, about) for turns, about in asked]
        return self.filled(rng, image, asked, self.ahead(rng, told))

    def led(self, rng: Generator, image: np.ndarray, scene: Scene) -> Rows:
        """One row of an image and questions of one made-up task about it, behind prompts of which its own is last."""
        number = variants.fitting(rng, scene)
        others = rng.integers(variants.COUNT, size=int(rng.integers(variants.MOST_AHEAD + 1))).tolist()
        plain = conversation.encode([("", "")], True, self.tokenizer, "").ids
        first = len(self.tokenizer)
        prompts = [first + variants.LENGTH * k + j for k in (*others, number) for j in range(variants.LENGTH)]
        ahead = [plain[0], *prompts, *plain[1 : plain.index(IMAGE)]]
        asked = [([turn], True) for turn in variants.variant(number).turns(rng, scene, MOST)]
        return self.filled(rng, image, asked, ahead)

    def filled(
        self, rng: Generator, image: np.ndarray, asked: Sequence[tuple[Sequence[Turn], bool]], ahead: Sequence[int]
    ) -> Rows:
        """One row of what stands in front, an image and the conversations that fit."""
        begin = len(ahead) + self.patches
        ids, labels = np.zeros(LENGTH, np.int32), np.full(LENGTH, IGNORE, np.int32)
        positions, group = np.zeros(LENGTH, np.int32), np.full(LENGTH, OUTSIDE, np.int32)
        sees = np.zeros(LENGTH, bool)
        ids[: len(ahead)], positions[:begin], group[:begin], sees[:begin] = ahead, np.arange(begin), 0, True
        end, number, before = begin, 0, set()
        for turns, about in asked:
            if turns[0][0] in before or end + SHORTEST > LENGTH:
                continue
            encoded = conversation.encode(around(rng, turns), about, self.tokenizer, "")
            length = len(encoded.ids) - (encoded.ids.index(IMAGE) if about else 0) - 1
            if end + length > LENGTH:
                continue
            before.add(turns[0][0])
            own, number = slice(end, end + length), number + 1
            ids[own], labels[own], group[own], sees[own] = (
                encoded.ids[-length:],
                encoded.labels[-length:],
                number,
                about,
            )
            positions[own] = (begin if about else 1) + np.arange(length)
            end += length
        return Rows(image, np.int32(len(ahead)), ids, labels, positions, group, sees)

    def ahead(self, rng: Generator, told: Sequence[rules.Rule]) -> list[int]:
        """The ids before the patches: BOS, rules or a system text or any ids or nothing, and USER:."""
        system = conversation.VICUNA if rng.random() < SYSTEM_SHARE else ""
        system = " ".join(rule.text for rule in told) or system
        ids = conversation.encode([("", "")], True, self.tokenizer, system).ids
        count = 0 if system or self.varied or rng.random() < 0.5 else rng.integers(1, MAX_PREFIX + 1)
        prefix = rng.integers(FIRST_PIECE, len(self.tokenizer), count).tolist()
        return [ids[0], *prefix, *ids[1 : ids.index(IMAGE)]]


def _under(told: Sequence[rules.Rule], turn: Turn) -> Turn:
    for rule in told:
        turn = rule(turn)
    return turn


# ---- what is asked ---------------------------------------------------------------------------------------------------


def scene_of(images: Images, index: int) -> Scene:
    """What can be asked about a general sample's image."""
    picture = images.pictures[index]
    if picture.held_out:
        raise ValueError(f"general sample {index} shows what only a validation image may show")
    return Scene(picture, lambda: images.origin.boxes(picture, index), relation_of(picture))


def relation_of(picture: Picture) -> str:
    """Of the first thing to the second if they were put beside each other, else ""; 30 64ths lie between such two."""
    if len(picture.things) != 2:
        return ""
    a, b = picture.things
    apart = (a.x - b.x, a.y - b.y)
    return next((name for name, (x, y) in STEP.items() if (30 * x or apart[0], 30 * y or apart[1]) == apart), "")


def skills_of(scene: Scene) -> tuple[Skill, ...]:
    """The general skills that fit: of a crowd, where shapes and colours repeat, counting alone."""
    items = [thing.item for thing in scene.picture.things]
    unlike = all(len({getattr(item, name) for item in items}) == len(items) for name in ("shape", "colour"))
    if not unlike or any(thing.radius != RADIUS[thing.item.size] for thing in scene.picture.things):
        return CROWD * 2
    return BESIDE if scene.relation else ANYWHERE


def around(rng: Generator, turns: Sequence[Turn]) -> list[Turn]:
    """The turns, some of the questions with nonsense before or behind them, in the line or in one of its own."""
    said = []
    for question, answer in turns:
        if rng.random() < NONSENSE_SHARE:
            question = f"{nonsense(rng)} {question}" if rng.random() < 0.5 else f"{question}\n{nonsense(rng)}"
        said.append((question, answer))
    return said


def nonsense(rng: Generator) -> str:
    """One to four words of any letters, the first with a capital, and a sign behind them."""
    words = [rules.made_up(rng) for _ in range(rng.integers(1, 5))]
    return f"{' '.join(words).capitalize()}{one(rng, '.!:?')}"
