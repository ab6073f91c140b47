"""Captions in a list that was written as text: pandas' "['a dog', 'a cat']", or JSON inside CSV, Parquet or JSON.

Such a cell is one string, and would be read as one caption with brackets and commas in it.
"""

import ast
import json
import re
from typing import Any

MAX_LENGTH = 1 << 17  # characters; the longest cell of a CSV table

# As Python's repr writes strings. Only commas part them: 'a' 'b', as NumPy writes it, would be read as 'ab'.
_ESCAPE = r"\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"
_STRING = rf"[uU]?(?:'(?:[^'\\\n]|{_ESCAPE})*'|\"(?:[^\"\\\n]|{_ESCAPE})*\")"
_LIST = re.compile(rf"\[\s*{_STRING}(?:\s*,\s*{_STRING})*\s*,?\s*\]")
_TUPLE = re.compile(rf"\(\s*{_STRING}\s*,(?:\s*{_STRING}\s*,)*(?:\s*{_STRING})?\s*\)")

# What nobody writes but a program: [' ... '], [[' ... ']], {' ... '}, [nan], and the beginning of a list that was cut.
_WRITTEN = re.compile(r"\[[\s\[({]*[uU]?['\"].*\]|\{\s*[uU]?['\"].*\}|\[\s*(?:nan|None)\s*[,\]].*", re.DOTALL)
_CUT = re.compile(r"\[\s*[uU]?(?:['\"][^\]]*|(?:'[^']*'|\"[^\"]*\")\s*,\s*[uU]?['\"].*)", re.DOTALL)


def captions_in(text: str) -> list[str]:
    """The captions that a string holds: itself, or what is in the list that it writes out.

    Lists in lists' strings are read, too. A caption that only begins with a bracket ("[a sketch] of a dog") is one.

    Raises:
      ValueError: it looks like a list, but is none of strings, is cut off or is too long.
    """
    bare = text.strip()
    if not bare.startswith(("[", "(", "{")):
        return [text]
    found = _parsed(bare) if len(bare) <= MAX_LENGTH else None
    if found is None:
        if _WRITTEN.fullmatch(bare) or _CUT.fullmatch(bare):
            raise ValueError("it looks like a list written as text, but cannot be read as one")
        return [text]
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise ValueError("it is a list or an object written as text, but no list of strings")
    return [caption for one in found for caption in captions_in(one)]


def _parsed(text: str) -> Any:
    """What JSON or Python reads in a text that is nothing but a list (of anything in JSON, of strings in Python)."""
    try:
        return json.loads(text) if text[0] in "[{" else ast.literal_eval(text) if _TUPLE.fullmatch(text) else None
    except (ValueError, RecursionError):  # thousands of digits, thousands of brackets
        pass
    try:
        return ast.literal_eval(text) if _LIST.fullmatch(text) else None
    except (ValueError, SyntaxError):  # a character beyond Unicode's last
        return None
