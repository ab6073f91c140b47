"""The tasks' questions without an image: for a wanted answer, all that can be asked, always in the same order."""

from collections.abc import Callable

from lpi_jax.data.questions.knowledge import BY_SIZE, COLOUR_OF, COMPASS, MIXED, TURNS, sums, turned
from lpi_jax.data.questions.picture import with_article

Pool = Callable[[str], list[tuple[str, str]]]  # the answer whose turn it is -> (question, answer) of each


def reckoned(figure: str) -> list[tuple[str, str]]:
    """Sums in words with this result."""
    frames = ("No box today: what is {} {} {}?", "Add up the stock: {} {} {}.")
    return [(frame.format(*one), figure) for one in sums(int(figure)) for frame in frames]


def coloured(colour: str) -> list[tuple[str, str]]:
    """Things that have this colour, and what it is mixed from."""
    frames = ("No shield here: of what tincture is {}?", "Which tincture has {}?", "Name the tincture of {}.")
    asked = [(frame.format(with_article(thing)), colour) for thing in COLOUR_OF[colour] for frame in frames]
    pairs = [MIXED[colour], MIXED[colour][::-1]] if colour in MIXED else []
    return asked + [(f"What tincture do you get from {a} and {b}?", colour) for a, b in pairs]


def steered(direction: str) -> list[tuple[str, str]]:
    """Turns after which one goes in this direction."""
    frames = (
        "No view, pilot. You fly {} and turn {}: which way now?",
        "Flying {}, you turn {}. What is your heading?",
        "Course {}, then turn {}: new course?",
    )
    ways = [(start, turn) for start in COMPASS for turn in TURNS if turned(start, turn) == direction]
    return [(frame.format(*way), direction) for way in ways for frame in frames]


def weighed(_: str) -> list[tuple[str, str]]:
    """Two things of different size, named either way round."""
    frames = (
        "No toys about: which is bigger, {} or {}?",
        "Between {} and {}, which one would need the bigger bucket?",
        "Of {} and {}, which is the bigger?",
    )
    pairs = [
        (BY_SIZE[i], BY_SIZE[j], BY_SIZE[max(i, j)]) for i in range(len(BY_SIZE)) for j in range(len(BY_SIZE)) if i != j
    ]
    return [(frame.format(with_article(a), with_article(b)), larger) for a, b, larger in pairs for frame in frames]
