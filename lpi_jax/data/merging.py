"""Several lines, rows or members that name one image in one task and split become one example."""

from collections.abc import Hashable
from dataclasses import replace

from lpi_jax.data.examples import BadExample, Example, shown


class Merged:
    """Examples by image, each image once, in the order in which they were first named."""

    called = "images"

    def __init__(self) -> None:
        self._examples: dict[Hashable, Example] = {}
        self._more: dict[Hashable, dict[str, None]] = {}  # captions of an image's later lines, each once

    def add(self, example: Example) -> BadExample | None:
        """Takes an example; what is wrong with it if its image stands already in another task or split."""
        first = self._examples.setdefault(example.identity, example)
        if first is example:
            return None
        if (first.task, first.split) != (example.task, example.split):
            return _named_twice(example, first)
        self._more.setdefault(example.identity, {}).update(dict.fromkeys(example.captions))
        return None

    def examples(self) -> list[Example]:
        """Of each image the example that named it first, with the captions of all in the order of their appearance.

        A later line's caption that is exactly a known one counts once. Within one line captions stay as they are: COCO
        has some twice, and published numbers count both.
        """
        merged = dict(self._examples)
        for identity, later in self._more.items():
            captions_of_first = self._examples[identity].captions
            new = later.keys() - set(captions_of_first)
            captions = (*captions_of_first, *(caption for caption in later if caption in new))
            merged[identity] = replace(self._examples[identity], captions=captions)
        return list(merged.values())


def _named_twice(example: Example, first: Example) -> BadExample:
    where = first.place if first.source == example.source else first.where
    where += "" if first.split == example.split else f", in the other split ({first.split})"
    message = f"{example.where}: image {shown(example.key)} stands already in {where}"
    return BadExample("repeated image", message, example.task)
