"""Captions that tell when they are damaged, so that a fuzz test sees a wrong pairing."""

import zlib

from tests.support.pixels import shades
from tests.support.splits import captions_of


def sealed(number):
    """A caption that tells when it is damaged."""
    return f"number {number} seal {zlib.crc32(str(number).encode())}"


def nothing_is_paired_wrongly(stream):
    """Every image whose caption is undamaged has that caption's number as its red."""
    for split in (split for task in stream.tasks for split in (task.train, task.val)):
        for shade, captions in zip(shades(split), captions_of(split), strict=True):
            for words in map(str.split, captions):
                undamaged = len(words) == 4 and words[1].isdigit() and sealed(int(words[1])) == " ".join(words)
                assert not undamaged or int(words[1]) == shade
