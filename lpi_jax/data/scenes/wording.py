"""How a scene is put into words: a voice is a vocabulary and a few sentence forms.

Content is kept in plain words (`circle`, `red`, `striped`, `big`, `left of`). A voice says each of them in its own
way with probability `accent`, and plainly otherwise, so the accent is how far a domain's language lies from the
general one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PHRASE = "a {size} {texture} {colour} {shape}"


@dataclass(frozen=True)
class Form:
    """One way to say a scene: `frame` around the clauses, one clause per related pair, one phrase per object.

    A frame may name the {ground}, the place where the objects are.
    In a clause {a} comes before {b}, and {rel} is a's place as seen from b. `flip` tells each pair from its other end.
    `again` names an object that an earlier clause has introduced.
    """

    frame: str = "{}"
    clause: str = "{a} {rel} {b}"
    phrase: str = PHRASE
    flip: bool = False
    join: str = " and "
    again: str = "the {colour} {shape}"


@dataclass(frozen=True)
class Voice:
    """words: plain word -> the voice's own words for it. forms: at least three; three are used per image."""

    forms: tuple[Form, ...]
    words: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Item:
    """One object of a scene, in plain words."""

    shape: str
    colour: str
    texture: str
    size: str


def captions(
    items: tuple[Item, ...],
    relations: tuple[tuple[int, str, int], ...],
    ground: str,
    voice: Voice,
    accent: float,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Three true captions of a scene; each names all objects with colour and shape, and all relations.

    Args:
      items: the objects.
      relations: rows (i, relation, j): object i is `relation` object j.
      ground: the place where the objects are.
      voice: vocabulary and forms.
      accent: probability in [0, 1] that a word is said in the voice's own way; decided once per word and caption.
      rng: the image's own generator.
    """
    chosen = voice.forms
    if len(chosen) > 3:
        chosen = tuple(chosen[k] for k in rng.permutation(len(chosen))[:3])
    return tuple(_say(form, items, relations, ground, voice.words, accent, rng) for form in chosen)


def _say(form, items, relations, ground, words, accent, rng) -> str:
    said: dict[str, str] = {"solid": ""}

    def word(plain: str) -> str:
        if plain not in said:
            choices = words.get(plain, ())
            keep = not choices or rng.random() >= accent
            said[plain] = plain if keep else choices[int(rng.integers(len(choices)))]
        return said[plain]

    named: set[int] = set()

    def phrase(k: int) -> str:
        pattern = form.again if k in named else form.phrase
        named.add(k)
        item = items[k]
        return pattern.format(
            size=word(item.size), texture=word(item.texture), colour=word(item.colour), shape=word(item.shape)
        )

    clauses = []
    for i, relation, j in relations:
        if form.flip:
            i, relation, j = j, INVERSE[relation], i
        first, second = phrase(i), phrase(j)
        clauses.append(form.clause.format(a=first, rel=word(relation), b=second))
    return _tidy(form.frame.format(form.join.join(clauses), ground=ground))


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.:;!?)])", r"\1", text)
    text = re.sub(r"([,:;])(?: ?,)+", r"\1", text)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)
