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

# What programs write of a list in ways that are not read: b'a', np.str_('a'), nan, a list inside a call.
_BEFORE = r"(?:\w+(?:\.\w+)*\()?[bBrRuU]{0,2}"
_OPEN = rf"{_BEFORE}['\"]"
_ITEM = rf"{_BEFORE}(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\)?"
_MISSING = r"(?:(?:\w+\.)?nan|NaN|NaT|None|null|pd\.NA|<NA>)"
_NUMBER = r"-?\d[\d.eE+-]*"
_NEXT = rf"(?:{_OPEN}|{_MISSING}|{_NUMBER}\s*[,)\]])"  # another item
_CALL = r"(?:[A-Za-z_]\w*(?:\.\w+)*\(|<[^<>\n]*>)\s*"  # array(, <StringArray>

# What nobody writes but a program; the end may be cut off.
_WRITTEN = re.compile(
    "|".join(
        (
            rf"\[[\s\[({{]*{_OPEN}.*\]",
            rf"\[\s*{_OPEN}[^\]]*",
            rf"\[\s*{_ITEM}\s*,\s*{_OPEN}.*",
            rf"\[\s*{_MISSING}(?:\s*[,\]]|\s+{_OPEN}).*",
            rf"\[\s*{_NUMBER}\s*,\s*(?:{_OPEN}|{_MISSING}).*",
            rf"\(\s*{_ITEM}\s*,\s*(?:{_NEXT}.*)?",
            rf"\(\s*{_ITEM}\s*{_OPEN}.*\)",
            rf"\(\s*{_MISSING}\s*,\s*{_NEXT}.*",
            rf"\(\s*{_BEFORE}(?:'[^')]*|\"[^\")]*)",
            rf"\{{\s*{_OPEN}.*\}}",
            rf"\{{\s*{_ITEM}\s*[,:].*",
            rf"{_CALL}[\[({{][\s\[({{]*(?:{_OPEN}|{_MISSING}|[\])}}]).*",
        )
    ),
    re.DOTALL,
)
_BEGINNING = re.compile(rf"[\[({{]|{_CALL}[\[({{]")


def captions_in(text: str) -> list[str]:
    """The captions that a string holds: itself, or what is in the list that it writes out.

    Lists in lists' strings are read, too, and in a string that was itself written as text ("['a']" with its quotes). A
    caption that only begins with a bracket ("[a sketch] of a dog") or stands in quotes is one.

    Raises:
      ValueError: it looks like a list, but is none of strings, is cut off or is too long.
    """
    bare = text.strip().removeprefix("\ufeff").strip()
    if bare.startswith(("'", '"')):
        return _in_quotes(text, bare)
    if not _BEGINNING.match(bare):
        return [text]
    items = _parsed(bare) if len(bare) <= MAX_LENGTH else None
    if items is None:
        if _WRITTEN.fullmatch(bare):
            raise ValueError("it looks like a list written as text, but cannot be read as one")
        return [text]
    if not isinstance(items, list | tuple) or not all(isinstance(one, str) for one in items):
        raise ValueError("it is a list or an object written as text, but no list of strings")
    return [caption for one in items for caption in captions_in(one)]


def _in_quotes(text: str, bare: str) -> list[str]:
    """The captions in a text that begins with a quote: those of the list between its quotes, else itself."""
    whole = _string(bare) if len(bare) <= MAX_LENGTH else None
    if whole is None:  # no string, or one that was cut off
        if _WRITTEN.fullmatch(bare[1:].replace('\\"', '"').replace("\\'", "'").strip()):
            raise ValueError("it looks like a list written as text, but cannot be read as one")
        return [text]
    found = captions_in(whole)
    return [text] if found == [whole] else found


def _string(text: str) -> str | None:
    """What JSON or Python reads in a text that is nothing but a string."""
    try:
        if text[0] == '"':
            return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if re.fullmatch(_STRING, text) else None
    except (ValueError, SyntaxError):  # a character beyond Unicode's last
        return None


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
