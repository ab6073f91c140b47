"""The procedural stream: images of a few related shapes with true captions, in domains that look and speak apart.

Nothing is stored: a scene is a pure function of (seed, domain, split, index), a longer split begins like a shorter one.

Training and validation are disjoint by construction. Every stated pair of a scene ("red star left of blue cross", the
same as "blue cross right of red star") is hashed into one of five buckets, whatever the seed, domain, size and
texture. A validation scene has all its pairs in bucket 0; a training scene and a general scene have none there. So no
combination that a validation caption states was ever seen in training, in any domain, nor by a backbone pretrained on
`general`.
"""

import difflib
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from lpi_jax.data import arrange
from lpi_jax.data.scenes.domain import GENERAL, Domain
from lpi_jax.data.scenes.domains import DEVELOPMENT_DOMAINS, DOMAINS, TABLE
from lpi_jax.data.scenes.drawing import Look, Placed, draw, place
from lpi_jax.data.scenes.wording import Item, captions
from lpi_jax.data.stream import Split, Stream, Task
from lpi_jax.errors import UserError
from lpi_jax.options import option

__all__ = ["DEVELOPMENT_DOMAINS", "DOMAINS", "Scene", "SceneObject", "general", "scenes"]

VERSION = 2  # raise it with any change that alters an image or a caption
_BUCKETS = 5
_SPLITS = {"train": 0, "val": 1}
_CONTENT, _WORDS, _PLACES, _PIXELS, _LOOKS = range(5)  # what a random generator is for
TEXTURES, SIZES = ("solid", "striped", "dotted"), ("small", "big")
_ACROSS, _DOWN = ("left of", "right of"), ("above", "below")


@dataclass(frozen=True)
class Content:
    """What a scene shows, in plain words; relations are rows (i, relation, j): object i is `relation` object j."""

    items: tuple[Item, ...]
    relations: tuple[tuple[int, str, int], ...]

    @property
    def pairs(self) -> tuple[str, ...]:
        """The stated pairs without size and texture, sorted; the same from whichever end a pair is told."""
        rows = []
        for i, relation, j in self.relations:
            if relation in ("right of", "below"):
                i, j, relation = j, i, "left of" if relation == "right of" else "above"
            a, b = self.items[i], self.items[j]
            rows.append(f"{a.colour} {a.shape} {relation} {b.colour} {b.shape}")
        return tuple(sorted(rows))

    @property
    def key(self) -> tuple[str, ...]:
        """All that the scene is made of, the same from whichever end a pair is told."""
        things = sorted(f"{t.colour} {t.shape} {t.size} {t.texture}" for t in self.items)
        return (*things, *self.pairs)


@dataclass(frozen=True)
class SceneObject:
    """An object in plain words; box: (x0, y0, x1, y1) pixels of the image, x1 and y1 exclusive."""

    shape: str
    colour: str
    texture: str
    size: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """What is known of an image. relations: rows (i, relation, j): objects[i] is `relation` objects[j].

    ground: what captions call the place where the objects are.
    """

    domain: str
    ground: str
    objects: tuple[SceneObject, ...]
    relations: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Options:
    """`image_size` is no key: the backbone decides it."""

    domains: tuple[str, ...] = option((), "names; (): the twelve")
    task_order: tuple[str, ...] = option((), "names of the tasks; (): the stream's own order")
    seed: int = option(0, "decides which images", least=0)
    train: int = option(200, "training images a task", least=1)
    val: int = option(100, "validation images a task", least=1)
    image_size: int = 64


def build(options: Options) -> Stream:
    """The stream of the options; see `scenes`. Raises UserError also where `task_order` is not the domains' names."""
    if not all(isinstance(domain, str) for domain in options.domains):
        raise UserError(f"config.data.domains is {options.domains!r}, expected names")
    stream = scenes(options.domains or DOMAINS, options.seed, options.train, options.val, options.image_size)
    return arrange.ordered(stream, options.task_order) if options.task_order else stream


def scenes(
    domains: Sequence[str] = DOMAINS, seed: int = 0, train: int = 200, val: int = 100, image_size: int = 64
) -> Stream:
    """One task per domain, in the given order.

    Args:
      domains: names out of DOMAINS or DEVELOPMENT_DOMAINS, each at most once.
      seed: chooses the scenes; at least 0. A domain's scenes do not depend on the other domains.
      train, val: images per task, each with three captions.
      image_size: side of the square images in pixels.

    Raises:
      UserError: an unknown or repeated domain, a number out of range, more images than a domain has distinct scenes.
    """
    domains = (domains,) if isinstance(domains, str) else tuple(domains)
    known = (*DOMAINS, *DEVELOPMENT_DOMAINS)
    if not domains:
        raise UserError(f"scenes: no domain was given; expected one or more of {', '.join(known)}")
    for name in domains:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.0)[0]
            raise UserError(f"scenes: unknown domain {name!r}; did you mean {near!r}? Known are {', '.join(known)}")
        if domains.count(name) > 1:
            raise UserError(f"scenes: domain {name!r} is given {domains.count(name)} times; expected once")
    seed, train, val, image_size = _whole(seed=seed, train=train, val=val, image_size=image_size)
    tasks = tuple(
        Task(
            name,
            TABLE[name].description,
            _split(TABLE[name], "train", seed, train, image_size),
            _split(TABLE[name], "val", seed, val, image_size),
        )
        for name in domains
    )
    notes = {
        "generator": f"scenes version {VERSION}",
        "seed": seed,
        "domains": list(domains),
        "strength": {name: TABLE[name].strength for name in domains},
        "accent": {name: TABLE[name].accent for name in domains},
        "disjoint": "no (colour, shape, relation, colour, shape) of a val scene occurs in a train or general scene",
    }
    tables = [repr(TABLE[name]) for name in domains]
    made_from = {**notes, "train": train, "val": val, "image_size": image_size, "tables": tables}
    fingerprint = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return Stream("scenes", tasks, fingerprint, notes=notes)


def general(seed: int, count: int, image_size: int = 64) -> Split:
    """`count` general scenes for pretraining: broad but plain, free of every pair that a validation scene states."""
    seed, count, image_size = _whole(seed=seed, count=count, image_size=image_size)
    return _split(GENERAL, "train", seed, count, image_size)


def _whole(**numbers: int) -> tuple[int, ...]:
    """The numbers as they are, if each is a whole number and large enough."""
    lowest = {"seed": 0, "image_size": 16}
    for name, value in numbers.items():
        least = lowest.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise UserError(f"scenes: {name} is {value!r}; expected a whole number of at least {least}")
    return tuple(int(value) for value in numbers.values())


def _split(domain: Domain, split: str, seed: int, count: int, image_size: int) -> Split:
    contents = _contents(domain, split, seed, count)
    chosen = _rng(_LOOKS, seed, domain.name, split).integers(0, len(domain.looks), count)
    looks = tuple(domain.looks[k] for k in chosen)
    spoken = tuple(
        captions(
            c.items, c.relations, look.ground, domain.voice, domain.accent, _rng(_WORDS, seed, domain.name, split, i)
        )
        for i, (c, look) in enumerate(zip(contents, looks, strict=True))
    )
    made = _Maker(domain, split, seed, contents, looks, image_size)
    records = tuple(
        DrawnScene(f"scenes/{domain.name}/{split}/{seed}/{i}", said, made, i) for i, said in enumerate(spoken)
    )
    return Split(records, made.image)


@dataclass(frozen=True)
class _Maker:
    """Makes one split's images and annotations; its methods can be sent to other processes."""

    domain: Domain
    split: str
    seed: int
    contents: tuple[Content, ...]
    looks: tuple[Look, ...]
    image_size: int

    def placed(self, index: int) -> tuple[Placed, ...]:
        content = self.contents[index]
        rng = _rng(_PLACES, self.seed, self.domain.name, self.split, index)
        return place(content.items, content.relations, self.looks[index], self.domain.strength, rng)

    def image(self, index: int, without: int | None = None) -> Image.Image:
        """S x S, mode RGB; `without` leaves one object out and changes nothing else."""
        things = [thing for k, thing in enumerate(self.placed(index)) if k != without]
        rng = _rng(_PIXELS, self.seed, self.domain.name, self.split, index)
        return draw(things, self.looks[index], self.domain.strength, rng, self.image_size)

    def scene(self, index: int) -> Scene:
        outline = self.looks[index].outline * self.domain.strength
        objects = tuple(
            SceneObject(t.item.shape, t.item.colour, t.item.texture, t.item.size, t.box(outline, self.image_size))
            for t in self.placed(index)
        )
        return Scene(self.domain.name, self.looks[index].ground, objects, self.contents[index].relations)


@dataclass(frozen=True, slots=True)
class DrawnScene:
    """`Captioned` of a scene; what is known of it is worked out when it is asked for."""

    key: str
    captions: tuple[str, ...]
    maker: _Maker = field(repr=False)
    index: int

    @property
    def annotation(self) -> Scene:
        return self.maker.scene(self.index)


def _rng(purpose: int, seed: int, domain: str, split: str, index: int = 0) -> np.random.Generator:
    return np.random.default_rng([VERSION, purpose, seed, zlib.crc32(domain.encode()), _SPLITS[split], index])


def _bucket(pair: str) -> int:
    return hashlib.sha256(pair.encode()).digest()[0] % _BUCKETS


def _contents(domain: Domain, split: str, seed: int, count: int) -> tuple[Content, ...]:
    """The first `count` distinct contents of a split; in validation no two scenes state the same pairs either."""
    rng = _rng(_CONTENT, seed, domain.name, split)
    contents: list[Content] = []
    keys: set[tuple[str, ...]] = set()
    misses = 0
    while len(contents) < count:
        content = _propose(domain, rng)
        held_out = [_bucket(pair) == 0 for pair in content.pairs]
        right = all(held_out) if split == "val" else not any(held_out)
        key = content.pairs if split == "val" else content.key
        if right and key not in keys:
            keys.add(key)
            contents.append(content)
            misses = 0
        elif (misses := misses + 1) > 5000:
            raise UserError(
                f"scenes: {split} is {count}, but domain {domain.name!r} has hardly more than {len(contents)} distinct "
                f"{split} scenes; ask for fewer"
            )
    return tuple(contents)


def _propose(domain: Domain, rng: np.random.Generator) -> Content:
    """Two objects in a relation; one time in eight a third beside one of them, along the other axis."""
    count = 3 if rng.integers(8) == 0 else 2
    sides = [len(domain.shapes), len(domain.colours), len(TEXTURES), len(SIZES)]
    while True:
        rows = rng.integers(0, sides, (count, 4)).tolist()
        if len({(shape, colour) for shape, colour, _, _ in rows}) == count:
            break
    items = tuple(Item(domain.shapes[s], domain.colours[c], TEXTURES[t], SIZES[z]) for s, c, t, z in rows)
    axis, end, other_end, anchor = rng.integers(0, 2, 4).tolist()
    axes = (_ACROSS, _DOWN)
    relations = [(0, axes[axis][end], 1)]
    if count == 3:
        relations.append((2, axes[1 - axis][other_end], anchor))
    return Content(items, tuple(relations))
