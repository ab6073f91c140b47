"""Text of others in one line: names as they may stand in a table, a page or a picture."""

import unicodedata

REPLACEMENT = "�"
# Controls and half characters cannot be written; what turns the direction of writing would disorder its neighbours.
_UNWANTED = {"Cc", "Cs", "Cn", "Zl", "Zp"}
_TURNING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """`text` in one line: white space runs become one space, control and half characters a replacement character."""
    kept = [REPLACEMENT if _unwanted(character) else character for character in " ".join(text.split())]
    return "".join(kept)


def _unwanted(character: str) -> bool:
    return unicodedata.category(character) in _UNWANTED or character in _TURNING


def width(text: str) -> int:
    """Columns that `text` takes where East Asian characters are two wide."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def shortened(text: str, most: int) -> str:
    """`text` in at most so many columns: its beginning, an ellipsis and its end."""
    if width(text) <= most:
        return text
    tail = _fitting(text[::-1], (most - 1) // 3)[::-1]
    return f"{_fitting(text, most - 1 - width(tail)).rstrip()}…{tail.lstrip()}"


def _fitting(text: str, most: int) -> str:
    """As many of the first characters as fit into so many columns."""
    kept = ""
    for character in text:
        if width(kept + character) > most:
            break
        kept += character
    return kept
