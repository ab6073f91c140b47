"""Which items of a gallery answer a query: an image's captions, a caption's images.

Captions of the same tokens are one item where `eval.equal_texts` is `one`: every image that any of them describes is a
right answer to it, and it is a right answer to each. `apart` is the release's way: each stands for itself, and another
image's equal caption, whose score is the same, counts against the method.
"""

from typing import NamedTuple

import numpy as np

from lpi_jax.problems.retrieval.gallery import Side
from lpi_jax.problems.retrieval.ranks import NONE


class Asked(NamedTuple):
    """Queries, what they search, and what they should find.

    Attributes:
      queries: [Q] int, rows of the side that asks. items: [G] int, rows of the side that is searched.
      right: [Q, R] int32, places in `items` of each query's right answers, the rest of a row NONE.
    """

    queries: np.ndarray
    items: np.ndarray
    right: np.ndarray


def image_to_text(images: Side, captions: Side, asked: np.ndarray, shown: np.ndarray, apart: bool) -> Asked:
    """Every image of the tasks `asked` searches the captions of the tasks `shown`. asked, shown: [T] task numbers."""
    queries = np.flatnonzero(np.isin(images.task, asked))
    rows = np.flatnonzero(np.isin(captions.task, shown))
    names = rows if apart else captions.item[rows]
    _, first, place = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # items stay in the order in which they came
    place = np.argsort(order, kind="stable")[place]
    return Asked(queries, rows[first[order]], _listed(queries, captions.owner[rows], place))


def text_to_image(images: Side, captions: Side, asked: np.ndarray, shown: np.ndarray, apart: bool) -> Asked:
    """Every caption of the tasks `asked` searches the images of the tasks `shown`. asked, shown: [T] task numbers."""
    queries = np.flatnonzero(np.isin(captions.task, asked))
    items = np.flatnonzero(np.isin(images.task, shown))
    place_of = np.full(len(images.task), NONE)
    place_of[items] = np.arange(len(items))
    rows = np.flatnonzero(np.isin(captions.task, shown))
    names = np.arange(len(captions.task)) if apart else captions.item
    return Asked(queries, items, _listed(names[queries], names[rows], place_of[captions.owner[rows]]))


def _listed(keys: np.ndarray, names: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[Q, R] int32: for each key [Q] the distinct places of the pairs (name, place) [N] with that name, ascending."""
    pairs = np.unique(np.stack([names, places], 1), axis=0)
    begins, ends = (np.searchsorted(pairs[:, 0], keys, side) for side in ("left", "right"))
    column = np.arange(max((ends - begins).max(initial=1), 1))
    taken = begins[:, None] + column
    some = pairs[np.minimum(taken, len(pairs) - 1), 1] if len(pairs) else np.zeros(taken.shape, int)
    return np.where(taken < ends[:, None], some, NONE).astype(np.int32)
