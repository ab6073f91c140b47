"""In what form general samples want an answer: a line says it, behind the question or in front of all of them."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lpi_jax.data.questions.knowledge import MAP, NUMBERS
from lpi_jax.data.questions.picture import one

Generator = np.random.Generator
PLAIN_SHARE, SILENT_SHARE = 0.5, 0.5  # of the questions, which want the usual form; of these, which say nothing of it


class Said(NamedTuple):
    """A question; all that is right, in the usual form, first what is taught; form: which of FORMS, "caption" or ""."""

    question: str
    answers: tuple[str, ...]
    form: str = ""


class Form(NamedTuple):
    """lines: ways to ask for it. say: an answer in the usual form -> in this one."""

    lines: tuple[str, ...]
    say: Callable[[str], str]


def _as_it_is(answer: str) -> str:
    return answer


def _renamed(names: Mapping[str, str]) -> Callable[[str], str]:
    return lambda answer: names.get(answer, answer)


_TO_THE = re.compile("to the (left|right) of")
_FIGURES = {word: str(number) for number, word in enumerate(NUMBERS)}
FORMS: Mapping[str, tuple[Form, ...]] = {  # the usual one first
    "number": (
        Form(("Answer with a word.", "In words.", "Write the number as a word.", "Spell it out."), _as_it_is),
        Form(("Answer with a digit.", "As a digit.", "Digits only.", "Write a numeral."), _renamed(_FIGURES)),
    ),
    "colour": (
        Form(("Answer with one word.", "One word.", "Only the colour.", "Name a colour."), _as_it_is),
        Form(("Begin with the.", "Say which one."), "the {} one".format),
    ),
    "yes": (
        Form(("Answer yes or no.", "Yes or no?", "A yes or a no."), _as_it_is),
        Form(("Answer true or false.", "True or false?"), _renamed({"yes": "true", "no": "false"})),
    ),
    "side": (
        Form(("Answer left, right, above or below.", "Left, right, above or below?"), _as_it_is),
        Form(
            ("Answer north, east, south or west.", "As on a map.", "Answer with a compass direction.", "North is up."),
            _renamed({"left": MAP["left"], "right": MAP["right"], "above": MAP["up"], "below": MAP["down"]}),
        ),
        Form(("Left, right, over or under?", "Say over or under."), _renamed({"above": "over", "below": "under"})),
    ),
    "box": (
        Form(("Left, top, right and bottom.", "Give four numbers.", "Answer with a box."), _as_it_is),
    ),
}  # fmt: skip
_NOUNS = ("object", "one", "item", "figure", "shape")


def drawn(rng: Generator, name: str) -> Form:
    """A form of this name with one line, which may be ""."""
    if name == "caption":
        return _caption(rng)
    usual, *others = FORMS[name]
    form = one(rng, others) if others and rng.random() >= PLAIN_SHARE else usual
    line = "" if form is usual and rng.random() < SILENT_SHARE else one(rng, form.lines)
    return Form((line,), form.say)


def finished(rng: Generator, said: Said, given: Mapping[str, Form]) -> tuple[str, tuple[str, ...]]:
    """The question with the line of a form behind it, and the answers in this form; given: forms already asked for."""
    if not said.form:
        return said.question, said.answers
    form = given.get(said.form) or drawn(rng, said.form)
    line = "" if said.form in given else form.lines[0]
    question = f"{said.question}{one(rng, ' ' + chr(10))}{line}" if line else said.question
    return question, tuple(map(form.say, said.answers))


def _caption(rng: Generator) -> Form:
    """What things are called, how it is said where they are, and the end."""
    noun = one(rng, _NOUNS) if rng.random() < 0.5 else "thing"
    short, over, bare = (rng.random(3) < (0.4, 0.4, 0.2)).tolist()
    end = one(rng, "!.") if rng.random() < 0.4 else ""

    def say(answer: str) -> str:
        answer = re.sub(r"\bthing(s?)\b", rf"{noun}\1", answer)
        if short:
            answer = _TO_THE.sub(r"\1 of", answer)
        if over:
            answer = re.sub(r"\babove\b", "over", re.sub(r"\bbelow\b", "under", answer))
        if bare:
            answer = re.sub(r"\ban? ", "", answer)
        return answer + end

    lines = [
        f"Say {noun}." if noun != "thing" else "",
        "Left of, not to the left of." if short else "",
        "Say over or under." if over else "",
        "Leave out a and an." if bare else "",
        f"End with {end}" if end else "",
    ]
    return Form((" ".join(lines[k] for k in rng.permutation(len(lines)) if lines[k]),), say)
