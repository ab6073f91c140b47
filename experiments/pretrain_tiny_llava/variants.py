"""Made-up tasks, each with a soft prompt of its own in front that is trained along: so that prompts can lead the model.

A variant asks for one thing and may have its own words for the answers. What it asks for stands in its prompt alone,
where ModalPrompt puts those of its tasks: the words of its questions are made up anew for every row, but for what they
ask about. In front of it are other variants' prompts, or such as are trained to mislead: what prompts a sample gets
besides its own task's shall not matter. All of them stay behind when the model is written: nobody else has them.

Others are told in words, in the prompts' place or behind the question: so that what stands there is read word by word,
which a prompt that is learnt later, and begins as any words, can make use of.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions import asked, general_facts
from lpi_jax.data.questions.asked import Asked, Scene
from lpi_jax.data.questions.knowledge import BY_SIZE, NUMBERS
from lpi_jax.data.questions.picture import distinct, made_up, one, with_article
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES

Generator = np.random.Generator
Turn = tuple[str, str]
COUNT, LENGTH, MOST_AHEAD = 256, 10, 2  # variants; tokens of a prompt; other prompts in front of a row's own
MISLEADING = 32  # prompts that no task has
PLAIN = ("is", "the", "of", "which", "what", "how", "on", "in", "this", "does", "it")
COLOURS = tuple(GENERAL.colours)
POOL = (*GENERAL_SHAPES, *COLOURS, *NUMBERS[1:7], *map(str, range(1, 7)), "up", "down", "right", "left")


class Core(NamedTuple):
    """What can be asked: of which scenes and how; called: the ways to say in words what it asks for.

    answers: where they are few all of them, or all that stands between the things of a caption. fact: what can be asked
    without an image.
    """

    called: tuple[str, ...]
    fits: Callable[[Scene], bool]
    ask: Callable[[Generator, Scene], Asked]
    answers: tuple[str, ...] = ()
    fact: Callable[[Generator], Asked] | None = None


def _caption(rng: Generator, scene: Scene) -> Asked:
    a, b, relation = asked.either(rng, scene)
    first, second = (with_article(f"{thing.item.colour} thing") for thing in (a, b))
    return (), f"{first} {relation} {second}"


def _sum(rng: Generator) -> Asked:
    words, number = general_facts.added(rng, 6)
    return (" ".join(words),), NUMBERS[number]


def _usual_colour(rng: Generator) -> Asked:
    thing, colour = general_facts.coloured(rng)
    return (thing,), colour


def _usually_larger(rng: Generator) -> Asked:
    named = distinct(rng, BY_SIZE, 2)
    return tuple(map(with_article, named)), max(named, key=BY_SIZE.index)


def _few(scene: Scene) -> bool:
    return not scene.crowd


def _beside(scene: Scene) -> bool:
    return bool(scene.relation)


CORES = {
    "number": Core(("number", "how many", "count"), lambda scene: scene.crowd, asked.number, NUMBERS[1:7], _sum),
    "at_edge": Core(
        ("colour", "which colour"),
        lambda scene: _few(scene) and bool(scene.outermost),
        asked.at_edge,
        COLOURS,
        _usual_colour,
    ),
    "texture": Core(("pattern",), _few, asked.texture, ("solid", "striped", "dotted")),
    "presence": Core(("is there", "can you see"), _few, asked.presence, ("yes", "no")),
    "larger": Core(
        ("larger", "bigger"),
        lambda scene: _few(scene) and scene.pair is not None,
        asked.larger,
        COLOURS,
        _usually_larger,
    ),
    "side": Core(("position", "where"), _beside, asked.side, tuple(asked.SIDES.values())),
    "box": Core(("box", "bounding box"), _few, asked.box),
    "ground": Core(("background", "on what"), lambda scene: True, asked.ground),
    "caption": Core(("describe", "caption"), _beside, _caption, tuple(asked.SIDES)),
}
# Which core a variant has, in turns.
TURNS = ("number", "number", "at_edge", "at_edge", "presence", "presence", "larger", "larger", "side", "side",
         "texture", "box", "box", "ground", "ground", "caption")  # fmt: skip


class Variant(NamedTuple):
    """One made-up task: its core, its words for answers, what it sorts them into, and what stands around them."""

    core: Core
    words: dict[str, str]
    sorts: tuple[str, ...]
    around: tuple[str, str]

    def turns(self, rng: Generator, scene: Scene, count: int, behind: str = "") -> list[Turn]:
        """Questions about a scene that the core fits, with their answers; behind: a line behind each question."""
        return self._worded(rng, [self.core.ask(rng, scene) for _ in range(count)], behind)

    def facts(self, rng: Generator, count: int, behind: str = "") -> list[Turn]:
        """Questions without an image, where the core has any."""
        return self._worded(rng, [self.core.fact(rng) for _ in range(count)] if self.core.fact else [], behind)

    def told(self, rng: Generator) -> str:
        """The task in words, in any order: what is asked for, what answers are called, what stands around them."""
        parts = [one(rng, self.core.called)]
        if self.words:
            parts.append(", ".join(f"{new} for {old}" for old, new in self.words.items()))
        elif self.core.answers and len(self.core.answers) <= 6 and rng.random() < 0.5:
            parts.append(" or ".join(self.core.answers))
        parts += [f"{verb} with {word}" for verb, word in zip(("begin", "end"), self.around, strict=True) if word]
        return " ".join(f"{parts[k].capitalize()}." for k in rng.permutation(len(parts)))

    def _worded(self, rng: Generator, found: Sequence[Asked], behind: str) -> list[Turn]:
        """Each in words of its own, and perhaps a line behind them all."""
        suffix = f"\n{behind or f'{_words(rng, 2, 5).capitalize()}.'}" if behind or rng.random() < 0.5 else ""
        return [((_template(rng, len(words)) + suffix).format(*words), self.said(answer)) for words, answer in found]

    def said(self, answer: str) -> str:
        """An answer in the variant's own words."""
        if self.sorts:  # what has many names is sorted into a few
            answer = self.sorts[sum(answer.encode()) % len(self.sorts)]
        answer = " ".join(self.words.get(word, word) for word in answer.split(" "))
        return " ".join(filter(None, (self.around[0], answer, self.around[1])))


@cache
def variant(number: int) -> Variant:
    """That of a number below COUNT, always the same."""
    return _drawn(np.random.default_rng([number, COUNT]), TURNS[number % len(TURNS)])


def fresh(rng: Generator, scene: Scene) -> Variant:
    """One that a scene fits and that nobody met before; `Variant.told` says all of it."""
    while True:
        name = one(rng, TURNS)
        if CORES[name].fits(scene):
            return _drawn(rng, name)._replace(sorts=())


def _drawn(rng: Generator, name: str) -> Variant:
    core = CORES[name]
    words: dict[str, str] = {}
    if core.answers and len(core.answers) <= 6 and rng.random() < 0.6:
        new = distinct(rng, POOL, len(core.answers)) if rng.random() < 0.6 else [made_up(rng) for _ in core.answers]
        words = dict(zip((answer.split(" ")[0] for answer in core.answers), new, strict=True))
    sorts = tuple(_word(rng) for _ in range(5)) if name == "ground" and rng.random() < 0.6 else ()
    around = tuple(_word(rng) if rng.random() < 0.15 else "" for _ in range(2))
    return Variant(core, words, sorts, around)


def fitting(rng: Generator, scene: Scene) -> int:
    """The number of a variant that a scene fits."""
    while True:
        number = int(rng.integers(COUNT))
        if variant(number).core.fits(scene):
            return number


def _word(rng: Generator) -> str:
    return one(rng, POOL) if rng.random() < 0.5 else made_up(rng)


def _words(rng: Generator, least: int, most: int) -> str:
    return " ".join(one(rng, PLAIN) if rng.random() < 0.4 else made_up(rng) for _ in range(rng.integers(least, most)))


def _template(rng: Generator, slots: int) -> str:
    parts = [_words(rng, 1, 4)]
    for slot in range(slots):
        parts += [f"{{{slot}}}", *([_words(rng, 1, 3)] if slot + 1 < slots or rng.random() < 0.5 else [])]
    text = " ".join(parts)
    return f"{text[0].upper()}{text[1:]}{one(rng, '?.')}"
