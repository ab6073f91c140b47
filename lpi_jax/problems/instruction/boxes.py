"""Boxes in answers: (left, top, right, bottom) as shares of an image that is padded to a square."""

import math
import re

Box = tuple[float, float, float, float]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def coin_parse(answer: str) -> Box | None:
    """The box as CoIN's evaluation reads it, which ModalPrompt's release shares; None: there is none.

    It takes the brackets off and then the first and the last character, so that the lower edge loses its last digit:
    "[0.53, 0.2, 0.93, 0.76]" is (.53, .2, .93, .7).
    """
    text = answer.removeprefix(" ").replace("[", "").replace("]", "")
    try:
        return _box([float(part) for part in text[1:-1].split(",")])
    except ValueError:
        return None


def clean_parse(answer: str) -> Box | None:
    """The box of an answer with exactly four numbers in it; None: there is none."""
    return _box([float(number) for number in _NUMBER.findall(answer)])


def _box(numbers: list[float]) -> Box | None:
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return None
    left, top, right, bottom = numbers
    return left, top, right, bottom


def iou(one: Box, other: Box) -> float:
    """What two boxes share of what they cover together, 0 to 1; 0 where an edge lies on the wrong side of another."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
