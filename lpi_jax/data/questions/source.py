"""The embedded stream of instruction tasks: eight kinds of questions about drawn pictures, each with its own look.

Nothing is stored: a sample is a pure function of (seed, task, split, index), a longer split begins like a shorter one.

Training and validation are disjoint by construction: an image is held out by the shapes, colours and places of its
things, whatever the seed and the task, and every fifth question without an image is. Answers take turns, so that no
constant answer and no guess from the question alone scores high.
"""

import difflib
import hashlib
import json
from dataclasses import dataclass

from lpi_jax.data import arrange
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.questions.drawn import CONTENT, TURNS, UNSEEN, VERSION, WORDS, Images, Origin, annotation
from lpi_jax.data.questions.picture import Picture, written
from lpi_jax.data.questions.table import FAMILIES, Family
from lpi_jax.data.stream import Split, Stream, Task
from lpi_jax.errors import UserError
from lpi_jax.options import option

NAMES = tuple(FAMILIES)
EVERY = 5  # one sample in so many has no image, and one unseen question in so many is held out


@dataclass(frozen=True)
class Options:
    """`image_size` is no key: the backbone decides it."""

    tasks: tuple[str, ...] = option((), "names of the tasks to keep; (): all eight")
    task_order: tuple[str, ...] = option((), "names of the tasks; (): the stream's own order")
    seed: int = option(0, "decides which images", least=0)
    train: int = option(200, "training images a task", least=1)
    val: int = option(100, "validation images a task", least=1)
    image_size: int = 64


def build(options: Options) -> Stream[Instructed]:
    """The stream of the options, in the order of `tasks`.

    Raises:
      UserError: an unknown or repeated task, or a `task_order` that is not the tasks' names.
    """
    names = _checked(options.tasks)
    seed, size = options.seed, options.image_size
    tasks = tuple(
        Task(
            name,
            FAMILIES[name].description,
            _split(FAMILIES[name], Origin(name, "train", seed), options.train, size),
            _split(FAMILIES[name], Origin(name, "val", seed), options.val, size),
        )
        for name in names
    )
    notes = {
        "generator": f"questions version {VERSION}",
        "seed": seed,
        "tasks": list(names),
        "disjoint": "no arrangement of shapes, colours and places of a val image occurs in a train or general image",
    }
    wordings = [[f.name, f.description, f.turns, sorted(f.domains.items()), f.templates, f.suffix] for f in
                map(FAMILIES.get, names)]  # fmt: skip
    made_from = {**notes, "train": options.train, "val": options.val, "image_size": size, "wordings": wordings}
    fingerprint = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    stream = Stream("questions", tasks, fingerprint, notes=notes)
    return arrange.ordered(stream, options.task_order) if options.task_order else stream


def _checked(tasks: tuple[str, ...]) -> tuple[str, ...]:
    for name in tasks:
        if name not in NAMES:
            near = difflib.get_close_matches(str(name), NAMES, 1, 0.0)[0]
            raise UserError(f"config.data.tasks has {name!r}; did you mean {near!r}? Known are {', '.join(NAMES)}")
        if tasks.count(name) > 1:
            raise UserError(f"config.data.tasks has {name!r} {tasks.count(name)} times, expected once")
    return tuple(tasks) or NAMES


def _split(family: Family, origin: Origin, count: int, size: int) -> Split[Instructed]:
    made = [_sample(family, origin, index, size) for index in range(count)]
    return Split(tuple(record for record, _ in made), Images(origin, [picture for _, picture in made], size).load)


def _sample(family: Family, origin: Origin, index: int, size: int) -> tuple[Instructed, Picture | None]:
    turn = family.turns[origin.turn(TURNS, index, len(family.turns))]
    if family.unseen and origin.turn(UNSEEN, index, EVERY) == 0:
        return _without_image(family, origin, index, turn), None
    domain, rng, held_out = family.domain(turn), origin.rng(CONTENT, index), origin.split == "val"
    while True:
        asked = family.ask(rng, domain, turn)
        picture = Picture(asked.things, domain.looks[0], domain.strength)
        if picture.held_out == held_out:
            break
    box = None if asked.answers else origin.boxes(picture, index)[0]
    answers = asked.answers or (written(box),)
    template = family.templates[int(origin.rng(WORDS, index).integers(len(family.templates)))]
    question = f"{template.format(**asked.words)}\n{family.suffix}"
    known = annotation(picture, size, box)
    return Instructed(
        origin.key(index), ((question, answers[0]),), answers, scoring=family.scoring, annotation=known
    ), picture


def _without_image(family: Family, origin: Origin, index: int, turn: str) -> Instructed:
    asked = family.unseen(turn)
    asked = [one for k, one in enumerate(asked) if (k % EVERY == 0) == (origin.split == "val")]
    question, answer = asked[int(origin.rng(WORDS, index).integers(len(asked)))]
    return Instructed(
        origin.key(index),
        ((f"{question}\n{family.suffix}", answer),),
        (answer,),
        has_image=False,
        scoring=family.scoring,
    )
