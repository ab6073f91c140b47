"""Rows of a fixed length: a picture and as many conversations about it as fit, each alone with the picture.

A row is [BOS | a prefix or a system text or prompts | USER: | patches | conversation, conversation, ...]. Each
conversation sees what stands before the patches, the patches and itself; one without a picture sees BOS and itself, and
a made-up task's its prompt too. Its positions go on behind what it sees, so that it is read as it would be in a row of
its own, and the picture is read once for all.

A batch is a pure function of its number: general samples of that seed, further questions about the same pictures, and
facts. In what form answers are wanted stands behind a question or, in some rows, in front of all of them, where prompts
stand later. Some questions have nonsense around them, and some rows a prefix of any ids: an unknown phrase shall not
lead astray, and neither shall prompts, which begin as such ids. Other rows are of a made-up task, behind its own prompt
(`variants`): so that prompts can lead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import variants

from lpi_jax.data.questions.asked import Scene
from lpi_jax.data.questions.drawn import Images
from lpi_jax.data.questions.general import general
from lpi_jax.data.questions.general_facts import FACTS
from lpi_jax.data.questions.general_forms import FORMS, Form, drawn, finished
from lpi_jax.data.questions.general_skills import fitting
from lpi_jax.data.questions.picture import STEP, Picture, made_up, one
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.problems.instruction import conversation

Generator = np.random.Generator
Turn = tuple[str, str]
LENGTH = 160
LONG = 60  # letters of what is told of a task; more is not said again with every question
SHORTEST = 12  # tokens of a conversation, nearly
MORE = 6  # further questions about a picture, at most
MOST = MORE + 2  # conversations of a row, with the picture's first and a fact
MAX_PREFIX = 24  # random ids before a row's conversations, at most
MOST_FORMS = 3  # that are told in front of a row
FACT_SHARE = 0.5  # of the rows, which have a question without a picture
SYSTEM_SHARE = 0.06  # of the rows without a made-up task, which have LLaVA's usual system text
TOLD_AHEAD = 0.4  # of the others, which tell in front in what form answers are wanted
PREFIX_SHARE = 0.3  # of all but those with the system text
NONSENSE_SHARE = 0.2  # of the questions
FIRST_PIECE = 259  # the ids before it are special ones and bytes
OUTSIDE = -1  # the conversation that padding belongs to
BOS, AHEAD, PATCHES = range(3)  # how much of what stands before it a conversation sees


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
      sees: [B, L] int32, how much of group 0 a token sees: BOS, all of it AHEAD of the patches, or these PATCHES too.
    """

    images: np.ndarray
    start: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    group: np.ndarray
    sees: np.ndarray


class Mix(NamedTuple):
    """What rows hold, in shares.

    varied: those with a made-up task's questions; told: of these, those whose task is told in words; misled: of other
    prompts in front of a task's own, misleading ones.
    """

    varied: float = 0.0
    misled: float = 0.0
    told: float = 0.0


PLAIN = Mix()


@dataclass(frozen=True)
class Packing:
    """tokenizer: of the LLaMA. count: rows of a batch, B. size: side of the images, pixels. patches: of an image."""

    tokenizer: Any
    count: int
    size: int
    patches: int

    def batch(self, seed: int, mix: Mix = PLAIN) -> Rows:
        """The rows of general samples with this seed.

        The ids of made-up tasks' prompts are those behind the tokenizer's, and behind them those of misleading ones.
        """
        rng = np.random.default_rng([seed, 1])
        split = general(seed, self.count + self.count // 2 + 8, self.size)
        seen = [k for k, record in enumerate(split.records) if record.has_image][: self.count]
        rows = []
        for index in seen:
            scene, image = scene_of(split.load.__self__, index), np.asarray(split.load(index))
            if rng.random() < mix.varied:
                rows.append(self.led(rng, image, scene, mix))
                continue
            ahead, given = self.ahead(rng)
            said = [(one(rng, FACTS)(rng), BOS)] * int(rng.random() < FACT_SHARE)
            skills = rng.permutation(np.asarray(fitting(scene), object))[:MORE]
            said += [(skill(rng, scene), PATCHES) for skill in skills]
            asked = [] if given else [(split.records[index].turns, PATCHES)]
            for one_said, sees in said:
                question, answers = finished(rng, one_said, given if sees == PATCHES else {})
                asked.append(([(question, answers[0])], sees))
            rows.append(self.row(image, [(around(rng, turns), sees) for turns, sees in asked], ahead))
        return Rows(*map(np.stack, zip(*rows, strict=True)))

    def led(self, rng: Generator, image: np.ndarray, scene: Scene, mix: Mix) -> Rows:
        """One row of an image and questions of one made-up task about it.

        Behind others' prompts stands its own, or what is told of it, if that does not stand behind the questions.
        """
        number = variants.fitting(rng, scene)
        others = rng.integers(variants.COUNT, size=int(rng.integers(variants.MOST_AHEAD + 1))).tolist()
        others = [
            variants.COUNT + k % variants.MISLEADING if mix.misled and rng.random() < mix.misled else k for k in others
        ]
        task, first, behind = variants.variant(number), len(self.tokenizer), ""
        own = [first + variants.LENGTH * number + j for j in range(variants.LENGTH)]
        if mix.told and rng.random() < mix.told:
            task = variants.fresh(rng, scene)
            told = task.told(rng)
            if len(told) < LONG and rng.random() < 0.5:
                own, behind = [], told
            else:
                own = self.tokenizer(told, add_special_tokens=False)["input_ids"]
        facts = task.facts(rng, 1, behind) if rng.random() < FACT_SHARE else []
        asked = [([turn], AHEAD) for turn in facts]
        asked += [([turn], PATCHES) for turn in task.turns(rng, scene, MOST, behind)]
        template = self.template()
        prompts = [first + variants.LENGTH * k + j for k in others for j in range(variants.LENGTH)]
        return self.row(image, asked, [template[0], *prompts, *own, *template[1:]])

    def row(self, image: np.ndarray, asked: Sequence[tuple[Sequence[Turn], int]], ahead: Sequence[int]) -> Rows:
        """One row of the ids ahead, an image and the conversations that fit; asked: their turns, how much they see."""
        begin, user = len(ahead) + self.patches, len(self.template()) - 1
        ids, labels = np.zeros(LENGTH, np.int32), np.full(LENGTH, IGNORE, np.int32)
        positions, group = np.zeros(LENGTH, np.int32), np.full(LENGTH, OUTSIDE, np.int32)
        sees = np.zeros(LENGTH, np.int32)
        ids[: len(ahead)], positions[:begin], group[:begin], sees[:begin] = ahead, np.arange(begin), 0, PATCHES
        end, number, before = begin, 0, set()
        behind = {BOS: 1, AHEAD: len(ahead), PATCHES: begin}
        for turns, seen in asked:
            if turns[0][0] in before or end + SHORTEST > LENGTH:
                continue
            encoded = conversation.encode(turns, seen == PATCHES, self.tokenizer, "")
            there = encoded.ids.index(IMAGE) if seen == PATCHES else user * (seen == AHEAD)  # last id that stands ahead
            length = len(encoded.ids) - there - 1
            if end + length > LENGTH:
                continue
            before.add(turns[0][0])
            own, number = slice(end, end + length), number + 1
            ids[own], labels[own] = encoded.ids[-length:], encoded.labels[-length:]
            group[own], sees[own], positions[own] = number, seen, behind[seen] + np.arange(length)
            end += length
        return Rows(image, np.int32(len(ahead)), ids, labels, positions, group, sees)

    def ahead(self, rng: Generator) -> tuple[list[int], dict[str, Form]]:
        """The ids before the patches: BOS, what may stand in front, and USER:; and the forms that are asked for there.

        In front stands a system text, or any ids or none and then the lines of some forms.
        """
        if rng.random() < SYSTEM_SHARE:
            return self.template(conversation.VICUNA), {}
        count = rng.integers(1, MAX_PREFIX + 1) if rng.random() < PREFIX_SHARE else 0
        prefix = rng.integers(FIRST_PIECE, len(self.tokenizer), count).tolist()
        given: dict[str, Form] = {}
        if rng.random() < TOLD_AHEAD:
            names = rng.permutation((*FORMS, "caption"))[: 1 + int(rng.integers(MOST_FORMS))].tolist()
            given = {name: drawn(rng, name) for name in names}
            told = " ".join(form.lines[0] for form in given.values() if form.lines[0])
            prefix += self.tokenizer(told, add_special_tokens=False)["input_ids"]
        ids = self.template()
        return [ids[0], *prefix, *ids[1:]], given

    def template(self, system: str = "") -> list[int]:
        """The ids before an image."""
        ids = conversation.encode([("", "")], True, self.tokenizer, system).ids
        return ids[: ids.index(IMAGE)]


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
    words = [made_up(rng) for _ in range(rng.integers(1, 5))]
    return f"{' '.join(words).capitalize()}{one(rng, '.!:?')}"
