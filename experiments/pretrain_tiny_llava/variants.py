"""Made-up tasks, each with a soft prompt of its own in front that is trained along: so that prompts can lead the model.

A variant asks for one thing and may have its own words for the answers. What it asks for stands in its prompt alone,
where ModalPrompt puts those of its tasks: the words of its questions are made up anew for every row, but for what they
ask about. Such prompts stay behind when the model is written: nobody else has them.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions.general_skills import Scene, caption
from lpi_jax.data.questions.knowledge import NUMBERS
from lpi_jax.data.questions.picture import RADIUS, distinct, one, plural, with_article, written
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES
from lpi_jax.data.scenes.wording import INVERSE

Generator = np.random.Generator
Turn = tuple[str, str]
COUNT, LENGTH, MOST_AHEAD = 256, 10, 2  # variants; tokens of a prompt; other variants' prompts in front of a row's own
PLAIN = ("is", "the", "of", "which", "what", "how", "on", "in", "this", "does", "it")
SIDES = {"left of": "left", "right of": "right", "above": "above", "below": "below"}
POOL = (*GENERAL_SHAPES, *GENERAL.colours, *NUMBERS[1:7], *map(str, range(1, 7)), "up", "down", "right", "left")
Asked = tuple[tuple[str, ...], str]  # what fills the question, and the answer


class Core(NamedTuple):
    """What can be asked: of which scenes, with how many words from the scene, and all answers where they are few."""

    fits: Callable[[Scene], bool]
    ask: Callable[[Generator, Scene], Asked]
    slots: int
    answers: tuple[str, ...] = ()


def crowd(scene: Scene) -> bool:
    """Whether counting is what can be asked: shapes or colours repeat, or things are smaller than usual."""
    items = [thing.item for thing in scene.picture.things]
    unlike = all(len({getattr(item, name) for item in items}) == len(items) for name in ("shape", "colour"))
    return not unlike or any(thing.radius != RADIUS[thing.item.size] for thing in scene.picture.things)


def _count(rng: Generator, scene: Scene) -> Asked:
    shapes = [thing.item.shape for thing in scene.picture.things]
    shape = one(rng, sorted(set(shapes)))
    return (plural(shape),), NUMBERS[shapes.count(shape)]


def _colour(rng: Generator, scene: Scene) -> Asked:
    item = one(rng, scene.picture.things).item
    return (item.shape,), item.colour


def _shape(rng: Generator, scene: Scene) -> Asked:
    item = one(rng, scene.picture.things).item
    return (item.colour,), item.shape


def _texture(rng: Generator, scene: Scene) -> Asked:
    item = one(rng, scene.picture.things).item
    return (item.shape,), item.texture


def _presence(rng: Generator, scene: Scene) -> Asked:
    shown = [thing.item for thing in scene.picture.things]
    item, answer = one(rng, shown), "yes"
    shape, colour = item.shape, item.colour
    if rng.random() < 0.5:
        answer = "no"
        if rng.random() < 0.5:
            shape = distinct(rng, GENERAL_SHAPES, len(shown) + 1, *(i.shape for i in shown))[-1]
        else:
            colour = distinct(rng, GENERAL.colours, len(shown) + 1, *(i.colour for i in shown))[-1]
    return (with_article(f"{colour} {shape}"),), answer


def _larger(rng: Generator, scene: Scene) -> Asked:
    things = sorted(scene.picture.things, key=lambda thing: thing.radius)
    named = [things[-1].item.shape, things[0].item.shape][:: 1 if rng.integers(2) else -1]
    return (*named,), things[-1].item.shape


def _side(rng: Generator, scene: Scene) -> Asked:
    (a, b), relation = scene.picture.things, scene.relation
    if rng.random() < 0.5:
        a, b, relation = b, a, INVERSE[relation]
    return (a.item.shape, b.item.shape), SIDES[relation]


def _box(rng: Generator, scene: Scene) -> Asked:
    k = int(rng.integers(len(scene.picture.things)))
    return (scene.picture.things[k].item.shape,), written(scene.boxes()[k])


def _ground(rng: Generator, scene: Scene) -> Asked:
    return (), scene.picture.look.ground


def _caption(rng: Generator, scene: Scene) -> Asked:
    return (), caption(np.random.default_rng(0), scene)[1] if not scene.relation else _beside(rng, scene)


def _beside(rng: Generator, scene: Scene) -> str:
    (a, b), relation = scene.picture.things, scene.relation
    if rng.random() < 0.5:
        a, b, relation = b, a, INVERSE[relation]
    first, second = (with_article(f"{thing.item.colour} {thing.item.shape}") for thing in (a, b))
    return f"{first} {relation} {second}"


def _few(scene: Scene) -> bool:
    return not crowd(scene)


CORES = {
    "count": Core(crowd, _count, 1, NUMBERS[1:7]),
    "colour": Core(_few, _colour, 1, tuple(GENERAL.colours)),
    "shape": Core(_few, _shape, 1, GENERAL_SHAPES),
    "texture": Core(_few, _texture, 1, ("solid", "striped", "dotted")),
    "presence": Core(_few, _presence, 1, ("yes", "no")),
    "larger": Core(lambda s: _few(s) and len({t.radius for t in s.picture.things}) == 2, _larger, 2, GENERAL_SHAPES),
    "side": Core(lambda scene: bool(scene.relation), _side, 2, tuple(SIDES.values())),
    "box": Core(_few, _box, 1),
    "ground": Core(lambda scene: True, _ground, 0),
    "caption": Core(_few, _caption, 0),
}
# Which core a variant has, in turns; what is hard to see comes more often.
TURNS = ("count", "count", "colour", "colour", "shape", "presence", "presence", "larger", "larger", "side", "side",
         "texture", "box", "ground", "ground", "caption")  # fmt: skip


class Variant(NamedTuple):
    """One made-up task: its core, its words for answers, what it sorts them into, and what stands around them."""

    core: Core
    words: dict[str, str]
    sorts: tuple[str, ...]
    around: tuple[str, str]

    def turns(self, rng: Generator, scene: Scene, count: int) -> list[Turn]:
        """Questions about a scene that the core fits, with their answers, all in the same two wordings."""
        templates = [_template(rng, self.core.slots) for _ in range(2)]
        suffix = f"\n{_words(rng, 2, 5).capitalize()}." if rng.random() < 0.7 else ""
        return [self._turn(rng, scene, one(rng, templates) + suffix) for _ in range(count)]

    def _turn(self, rng: Generator, scene: Scene, template: str) -> Turn:
        filled, answer = self.core.ask(rng, scene)
        if self.sorts:  # what has many names is sorted into a few
            answer = self.sorts[sum(answer.encode()) % len(self.sorts)]
        answer = " ".join(self.words.get(word, word) for word in answer.split(" "))
        said = " ".join(filter(None, (self.around[0], answer, self.around[1])))
        return template.format(*filled), said


@cache
def variant(number: int) -> Variant:
    """That of a number below COUNT, always the same."""
    rng = np.random.default_rng([number, COUNT])
    name = TURNS[number % len(TURNS)]
    core = CORES[name]
    answers = core.answers or (tuple(SIDES) if name == "caption" else ())
    words: dict[str, str] = {}
    if answers and len(answers) <= 6 and rng.random() < 0.6:
        new = rng.choice(POOL, len(answers), replace=False).tolist() if rng.random() < 0.6 else [
            made_up(rng) for _ in answers
        ]  # fmt: skip
        words = dict(zip((answer.split(" ")[0] for answer in answers), new, strict=True))
    sorts = tuple(_word(rng) for _ in range(5)) if name == "ground" and rng.random() < 0.6 else ()
    around = tuple(_word(rng) if rng.random() < 0.15 else "" for _ in range(2))
    return Variant(core, words, sorts, around)


def fitting(rng: Generator, scene: Scene) -> int:
    """The number of a variant that a scene fits."""
    while True:
        number = int(rng.integers(COUNT))
        if variant(number).core.fits(scene):
            return number


def made_up(rng: Generator) -> str:
    """A word of two to five letters."""
    return "".join(one(rng, "abcdefghijklmnopqrstuvwxyz") for _ in range(rng.integers(2, 6)))


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
