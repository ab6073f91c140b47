"""The table of the eight tasks: each has a look and a wording of its own.

Looks are those of the scenes' reported domains, and no two tasks share one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lpi_jax.data.questions import families
from lpi_jax.data.questions.knowledge import COMPASS
from lpi_jax.data.questions.unseen import Pool, coloured, reckoned, steered, weighed
from lpi_jax.data.scenes.domain import Domain
from lpi_jax.data.scenes.domains import TABLE


@dataclass(frozen=True)
class Family:
    """One task.

    Attributes:
      ask: generator, domain, whose turn it is -> what is shown and asked.
      domains: names of the domains whose looks it has, by turn; "" for every other turn.
      turns: what takes turns over the samples, so that each comes equally often; mostly the answer.
      templates: the questions; suffix: the line behind each of them.
      unseen: the questions without an image, which one sample in five is; None: it has none.
    """

    name: str
    description: str
    ask: Callable[[np.random.Generator, Domain, str], families.Asked]
    domains: Mapping[str, str]
    turns: tuple[str, ...]
    templates: tuple[str, ...]
    suffix: str
    scoring: str = "exact"
    unseen: Pool | None = None

    def domain(self, turn: str) -> Domain:
        """The domain of a turn."""
        return TABLE[self.domains.get(turn) or self.domains[""]]


_PLACES = {"school": "chalkboard", "museum": "museum", "mill": "knitting", "garden": "garden", "office": "fax"}
_FAMILIES = (
    Family(
        "count",
        "counting the marks of one colour printed on brown cardboard boxes for a stock list, and small sums",
        families.count,
        {"": "parcel"},
        ("1", "2", "3", "4"),
        (
            "Stock check: how many {colour} marks are on this box?",
            "Count what is printed in {colour}.",
            "Number of {colour} marks, please.",
        ),
        "Reply with one figure.",
        unseen=reckoned,
    ),
    Family(
        "colour",
        "naming the tincture of a charge on a stained-glass coat of arms, and of common things",
        families.colour,
        {"": "heraldry"},
        ("yellow", "green", "blue", "black", "pink"),
        (
            "Of what tincture is the charge {edge}?",
            "Herald, which tincture {edge}?",
            "The charge {edge}: its tincture?",
        ),
        "Name the tincture in plain speech.",
        unseen=coloured,
    ),
    Family(
        "relation",
        "compass directions between markers seen from a plane, and headings after a turn",
        families.relation,
        {"": "aerial"},
        COMPASS,
        (
            "Pilot to base: where does the {a} marker lie, seen from the {b}?",
            "Which heading leads from the {b} to the {a} marker?",
            "Over the {b} marker now. Course to the {a}?",
        ),
        "Give the point of the compass.",
        unseen=steered,
    ),
    Family(
        "presence",
        "a watchman asked by lantern light at night whether anything of a colour is in sight",
        families.presence,
        {"": "night watch"},
        ("yes", "no"),
        (
            "Watchman, do you make out anything {colour}?",
            "Is {colour} in sight tonight?",
            "Does the lantern show {colour}?",
        ),
        "Say yes or no.",
    ),
    Family(
        "larger",
        "which of two toys on the sandy beach is the bigger one, and which of two common things",
        families.larger,
        {"": "beach"},
        TABLE["beach"].colours,
        (
            "Which toy is bigger, the {a} or the {b} one?",
            "Of {a} and {b} in the sand, which is the bigger?",
            "Big toy first: {a} or {b}?",
        ),
        "Just name it, dear.",
        unseen=weighed,
    ),
    Family(
        "grounding",
        "locating a part on an engineer's squared blue drawing by the corners of its box",
        families.grounding,
        {"": "blueprint"},
        TABLE["blueprint"].colours,
        (
            "Locate part: {colour}.",
            "Give the extent of the {colour} part on this drawing.",
            "Where on the sheet is the {colour} part?",
        ),
        "Format: [left, top, right, bottom].",
        scoring="grounding",
    ),
    Family(
        "place",
        "telling what kind of place a picture comes from: school, museum, mill, garden or office",
        families.place,
        _PLACES,
        tuple(_PLACES),
        (
            "What kind of place is this from?",
            "Where was this one found?",
            "Sort this sheet: to which place does it go?",
        ),
        "Choose: garden, mill, museum, office, school.",
    ),
    Family(
        "caption",
        "one loud line for a panel of a comic book with bold shapes on bright dots",
        families.caption,
        {"": "comic"},
        TABLE["comic"].colours,
        ("Wow! What goes on in this panel?", "Bam! Put this panel into words!", "Pow! Your line for this panel?"),
        "Make it one loud line!",
        scoring="caption",
    ),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _FAMILIES}
