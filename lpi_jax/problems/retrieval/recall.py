"""From a gallery to recall on each task, in both directions, and the words that say what was measured."""

from typing import Any

import numpy as np

from lpi_jax.methods.base import PLAIN
from lpi_jax.problems.base import Metric, Row
from lpi_jax.problems.retrieval import chance
from lpi_jax.problems.retrieval.gallery import Gallery, Side
from lpi_jax.problems.retrieval.ranks import ranks, recall

KS = (1, 5, 10)
DIRECTIONS = {"image_to_text": ("image to text", "I→T", "image"), "text_to_image": ("text to image", "T→I", "text")}
METRICS = tuple(
    Metric(f"{direction}/R@{k}", f"R@{k}", words, short, "%", True, side)
    for direction, (words, short, side) in DIRECTIONS.items()
    for k in KS
)


def recall_row(gallery: Gallery, tasks: int, galleries: str, features: str = "features", first: int = 0) -> Row:
    """Recall on each of the tasks `first` .. `tasks` - 1; all of the first `tasks` tasks are in the gallery.

    Args:
      galleries: `union` searches the items of all tasks seen so far; `task` only those of the query's own task.
      features: which of the sides' feature arrays: `features` (under the assigned adapters) or `plain` (zero-shot).
    """
    row: Row = {}
    for direction, (queries, items) in _sides(gallery).items():
        asked = range(first, tasks)
        ranked = _ranks(queries, items, asked, galleries, features)
        per_task = [ranked[queries.task == task] for task in asked]
        row |= {f"{direction}/R@{k}": [recall(own, k) for own in per_task] for k in KS}
    return row


def chance_row(gallery: Gallery, tasks: int, galleries: str) -> Row:
    """The recall that a guess has on each of the first `tasks` tasks; arguments as in `recall_row`."""
    row: Row = {}
    for direction, (queries, items) in _sides(gallery).items():
        right = np.bincount(items.owner, minlength=queries.owner.max() + 1)[queries.owner]
        shown = [len(items.task) if galleries == "union" else int(np.sum(items.task == task)) for task in range(tasks)]
        row |= {
            f"{direction}/R@{k}": [chance.recall(shown[task], right[queries.task == task], k) for task in range(tasks)]
            for k in KS
        }
    return row


def _sides(gallery: Gallery) -> dict[str, tuple[Side, Side]]:
    """Queries and the items that they search, by direction."""
    return {"image_to_text": (gallery.images, gallery.captions), "text_to_image": (gallery.captions, gallery.images)}


def _ranks(queries: Side, items: Side, asked: range, galleries: str, features: str) -> np.ndarray:
    """[N] int32: the rank of every query; 0 for those of tasks that are not asked."""
    q, g = getattr(queries, features), getattr(items, features)
    ranked = np.zeros(len(q), np.int32)
    if galleries == "union":
        own = np.isin(queries.task, asked)
        ranked[own] = ranks(q[own], g, queries.owner[own], items.owner)
        return ranked
    for task in asked:
        own, shown = queries.task == task, items.task == task
        ranked[own] = ranks(q[own], g[shown], queries.owner[own], items.owner[shown])
    return ranked


def routing_accuracy(side: Side, tasks: int) -> list[float]:
    """Per cent of each task's items that were routed to it."""
    return [100.0 * float(np.mean(side.routed[side.task == task] == task)) for task in range(tasks)]


def confusion(side: Side, tasks: int) -> dict[str, list[Any]]:
    """Where the items of each task were routed to.

    Returns:
      matrix: [T][T] int, items by true task and the task they were routed to; none: [T] int, items by true task that
      were routed nowhere, only if there are any.
    """
    seen = side.task < tasks
    counts = np.zeros((tasks, tasks + 1), int)
    np.add.at(counts, (side.task[seen], np.where(side.routed[seen] == PLAIN, tasks, side.routed[seen])), 1)
    none = {"none": counts[:, tasks].tolist()} if counts[:, tasks].any() else {}
    return {"matrix": counts[:, :tasks].tolist(), **none}


def protocol(galleries: str, transform: str, routed: str, asks_with_placeholders: bool) -> str:
    """The protocol in words, for whoever finds the numbers in five years.

    Args:
      galleries, transform: as in section `eval`. routed: whether an item's task is `inferred` or `given`, or `newest`
        (every item gets the newest adapter) or `none` (the frozen backbone).
      asks_with_placeholders: whether captions are routed with placeholders in front.
    """
    asks = "with the placeholders in front" if asks_with_placeholders else "as they are"
    encoded = {
        "given": "under the prompts of its true task.",
        "inferred": "under the prompts of the task with the nearest k-means centre (L1), images and captions apart;"
        f" captions ask {asks}.",
        "newest": "by the backbone as it is after the newest task.",
        "none": "by the frozen backbone.",
    }
    together = "all tasks seen so far is searched together." if galleries == "union" else "its own task is searched."
    cropped = (
        "resized and centre-cropped." if transform == "centre" else "randomly cropped and flipped, as in training."
    )
    return (
        f"After each task, every image and caption of {together}"
        " Image to text counts a hit if any of the image's captions is among the first k; text to image uses the"
        " caption's one image. Equal scores count against the method."
        f" Each item is encoded {encoded[routed]}"
        f" Validation images are {cropped}"
        " R[s][t] is the recall on task t after stage s, per cent."
    )
