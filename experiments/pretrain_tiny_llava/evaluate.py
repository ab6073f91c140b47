"""How right a LLaVA answers: by kind of held-out general questions, and by task of the stream before it is learnt."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import network
import numpy as np
from PIL import Image
from rows import scene_of

from lpi_jax.data.questions import source
from lpi_jax.data.questions.general import general
from lpi_jax.data.questions.general_facts import FACTS
from lpi_jax.data.questions.general_forms import finished
from lpi_jax.data.questions.general_skills import fitting
from lpi_jax.data.questions.picture import one
from lpi_jax.data.transforms import resize_and_crop
from lpi_jax.models.llava.generation import generate
from lpi_jax.models.llava.llava import Inputs, LLaVA
from lpi_jax.problems.instruction import conversation
from lpi_jax.problems.instruction.boxes import clean_parse, iou
from lpi_jax.problems.instruction.scoring import scores
from lpi_jax.types import Tree

BATCH, MAX_NEW = 50, 48
ROUND = 64  # lengths of questions are rounded up to a multiple, so that few programs are compiled


class Question(NamedTuple):
    """kind: of what is asked. answers: all that are right. image: None: there is none."""

    kind: str
    text: str
    answers: frozenset[str]
    image: Image.Image | None


def held_out(seed: int, count: int, size: int) -> list[Question]:
    """A question about each of so many general samples."""
    split, rng, questions = general(seed, count, size), np.random.default_rng(seed), []
    for index, record in enumerate(split.records):
        if record.has_image:
            scene = scene_of(split.load.__self__, index)
            skill = one(rng, fitting(scene))
            kind, ask, image = skill.__name__, partial(skill, scene=scene), split.load(index)
        else:
            ask, image = one(rng, FACTS), None
            kind = f"fact, {ask.__name__}"
        text, answers = finished(rng, ask(rng), {})
        questions.append(Question(kind, text, frozenset(answers), image))
    return questions


class Answerer(NamedTuple):
    """A LLaVA that is asked; tokenizer: its own. system: the text before a conversation."""

    model: LLaVA
    params: Tree
    tokenizer: Any
    system: str = ""

    def __call__(self, texts: Sequence[str], images: Sequence[Image.Image | None]) -> list[str]:
        """The likeliest answer to each question about its image."""
        size = self.model.config.clip.image_size
        pixels = [np.zeros((size, size, 3), np.uint8) if one is None else resize_and_crop(one, size) for one in images]
        told = [
            conversation.Encoded(ids, [])
            for text, image in zip(texts, images, strict=True)
            for ids in [conversation.prompt([(text, "")], image is not None, self.tokenizer, self.system)]
        ]
        longest, answers = -(-max(len(one.ids) for one in told) // ROUND) * ROUND, []
        for first in range(0, len(told), BATCH):
            some = [min(k, len(told) - 1) for k in range(first, first + BATCH)]  # one shape: the last is repeated
            batch = conversation.pad([told[k] for k in some], longest)
            inputs = Inputs(
                batch.ids,
                network.pixels(np.stack([pixels[k] for k in some])),
                has_image=np.asarray([images[k] is not None for k in some]),
                length=batch.length,
            )
            ids, length = map(np.asarray, generate(self.model, self.params, inputs, MAX_NEW))
            answers += [
                self.tokenizer.decode(row[:n], skip_special_tokens=True).strip()
                for row, n in zip(ids, length, strict=True)
            ]
        return answers[: len(told)]


def by_kind(answer: Callable, questions: Sequence[Question]) -> dict[str, dict[str, float]]:
    """Of each kind: how many there are, the shares in per cent that are answered word for word, also with the picture
    of the next question that has one instead, and of boxes those that share more than half of what they cover."""
    texts, images = [q.text for q in questions], [q.image for q in questions]
    there = [k for k, image in enumerate(images) if image is not None]
    exchanged = list(images)
    for k, other in zip(there, np.roll(there, -1), strict=True):
        exchanged[k] = images[other]
    rows = defaultdict(lambda: defaultdict(list))
    for q, own, other in zip(questions, answer(texts, images), answer(texts, exchanged), strict=True):
        rows[q.kind]["exact"].append(own in q.answers)
        if q.image is not None:
            rows[q.kind]["exact_other_picture"].append(other in q.answers)
        if q.kind == "box":
            boxes = clean_parse(own), clean_parse(next(iter(q.answers)))
            rows[q.kind]["found"].append(None not in boxes and iou(*boxes) > 0.5)
    return {
        kind: {"count": len(found["exact"])} | {name: _per_cent(share) for name, share in found.items()}
        for kind, found in sorted(rows.items())
    }


def by_task(answer: Callable, options: source.Options) -> dict[str, float]:
    """The score of each of the stream's tasks: in per cent, of captions CIDEr-D in hundredths."""
    found = {}
    for task in source.build(options).tasks:
        split = task.val
        images = [split.load(k) if record.has_image else None for k, record in enumerate(split.records)]
        answers = answer([record.turns[-1][0] for record in split.records], images)
        found[task.name] = _per_cent(scores(answers, split.records, "official"))
    return found


def _per_cent(shares: Sequence[float]) -> float:
    return round(100 * float(np.mean(shares)), 1)
