"""What can be asked without an image: sums, colours, sizes and directions, all small enough to be known by heart."""

from collections.abc import Mapping

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMPASS = ("north", "east", "south", "west")  # clockwise
MAP: Mapping[str, str] = dict(zip(("up", "right", "down", "left"), COMPASS, strict=True))
TURNS: Mapping[str, int] = {"right": 1, "left": -1, "round": 2}
BY_SIZE = ("ant", "mouse", "cat", "goat", "horse", "elephant", "house", "mountain")  # each larger than the one before
COLOUR_OF: Mapping[str, tuple[str, ...]] = {
    "yellow": ("banana", "lemon", "chick", "sunflower"),
    "green": ("frog", "cucumber", "cactus", "pea"),
    "blue": ("sea", "sky", "sapphire", "cornflower"),
    "black": ("raven", "piece of coal", "tyre", "beetle"),
    "pink": ("piglet", "flamingo", "cherry blossom", "rosy cheek"),
    "red": ("tomato", "cherry", "strawberry", "fire engine"),
    "orange": ("carrot", "pumpkin", "tangerine"),
    "brown": ("bear", "chestnut", "clod of earth"),
}
MIXED: Mapping[str, tuple[str, str]] = {
    "green": ("blue", "yellow"), "pink": ("red", "white"), "orange": ("red", "yellow"), "purple": ("red", "blue"),
    "turquoise": ("blue", "green"),
}  # fmt: skip


def sums(result: int) -> list[tuple[str, str, str]]:
    """(number, plus or minus, number) in words for every small sum and difference with this result."""
    added = [(NUMBERS[a], "plus", NUMBERS[result - a]) for a in range(1, result)]
    return added + [(NUMBERS[result + b], "minus", NUMBERS[b]) for b in range(1, len(NUMBERS) - result)]


def turned(direction: str, turn: str) -> str:
    """Where somebody goes who went in a direction and took a turn."""
    return COMPASS[(COMPASS.index(direction) + TURNS[turn]) % len(COMPASS)]
