"""From a gallery to recall matrices: one row per stage, every average, and the words that say what was measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lpi_jax import metrics
from lpi_jax.problems.retrieval import chance
from lpi_jax.problems.retrieval.gallery import NOT_ROUTED, Gallery, Side

KS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")

Row = dict[str, dict[str, list[float]]]  # direction -> k -> recall per task, per cent


def recall_row(gallery: Gallery, tasks: int, galleries: str, features: str = "features", first: int = 0) -> Row:
    """Recall on each of the tasks `first` .. `tasks` - 1; all of the first `tasks` tasks are in the gallery.

    Args:
      galleries: `union` searches the items of all tasks seen so far; `task` only those of the query's own task.
      features: which of the sides' feature arrays: `features` (under the routed prompts) or `plain` (zero-shot).
    """
    row: Row = {}
    for direction, (queries, items) in _sides(gallery).items():
        asked = range(first, tasks)
        found = _ranks(queries, items, asked, galleries, features)
        per_task = [found[queries.task == task] for task in asked]
        row[direction] = {str(k): [metrics.recall(own, k) for own in per_task] for k in KS}
    return row


def chance_row(gallery: Gallery, tasks: int, galleries: str) -> Row:
    """The recall that a guess has on each of the first `tasks` tasks; arguments as in `recall_row`."""
    row: Row = {}
    for direction, (queries, items) in _sides(gallery).items():
        right = np.bincount(items.owner, minlength=queries.owner.max() + 1)[queries.owner]
        shown = [len(items.task) if galleries == "union" else int(np.sum(items.task == task)) for task in range(tasks)]
        row[direction] = {
            str(k): [chance.recall(shown[task], right[queries.task == task], k) for task in range(tasks)] for k in KS
        }
    return row


def _sides(gallery: Gallery) -> dict[str, tuple[Side, Side]]:
    """Queries and the items that they search, by direction."""
    return {"image_to_text": (gallery.images, gallery.captions), "text_to_image": (gallery.captions, gallery.images)}


def _ranks(queries: Side, items: Side, asked: range, galleries: str, features: str) -> np.ndarray:
    """[N] int32: the rank of every query; 0 for those of tasks that are not asked."""
    q, g = getattr(queries, features), getattr(items, features)
    found = np.zeros(len(q), np.int32)
    if galleries == "union":
        own = np.isin(queries.task, asked)
        found[own] = metrics.ranks(q[own], g, queries.owner[own], items.owner)
        return found
    for task in asked:
        own, shown = queries.task == task, items.task == task
        found[own] = metrics.ranks(q[own], g[shown], queries.owner[own], items.owner[shown])
    return found


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
    np.add.at(counts, (side.task[seen], np.where(side.routed[seen] == NOT_ROUTED, tasks, side.routed[seen])), 1)
    none = {"none": counts[:, tasks].tolist()} if counts[:, tasks].any() else {}
    return {"matrix": counts[:, :tasks].tolist(), **none}


def stage(gallery: Gallery, tasks: int, galleries: str) -> dict[str, Any]:
    """What is measured after a stage, JSON-ready: recall, zero-shot's and a guess's on the same galleries, routing."""
    return {
        "recall": recall_row(gallery, tasks, galleries),
        "zero_shot": recall_row(gallery, tasks, galleries, "plain"),
        "chance": chance_row(gallery, tasks, galleries),
        "routing": {
            "image": routing_accuracy(gallery.images, tasks),
            "text": routing_accuracy(gallery.captions, tasks),
        },
        "confusion": {"image": confusion(gallery.images, tasks), "text": confusion(gallery.captions, tasks)},
    }


def report(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The raw matrices and every average, from what `stage` measured after each task.

    Each stage also carries `arrival`: the recall row of the new task alone, just before it was learnt. Stages of a run
    that began before `chance` and `confusion` were measured lack them, and so does the report.
    """
    result: dict[str, Any] = {"recall": {}, "zero_shot": {}, "routing_accuracy": {}}
    last = len(stages) - 1
    for direction in DIRECTIONS:
        result["recall"][direction], result["zero_shot"][direction] = {}, {}
        for k in map(str, KS):
            learnt = _matrix([s["recall"][direction][k] for s in stages])
            frozen = _matrix([s["zero_shot"][direction][k] for s in stages])
            before = np.array([s["arrival"][direction][k][-1] for s in stages])
            untouched = np.diagonal(frozen)
            result["recall"][direction][k] = {
                "matrix": _rows(learnt),
                "before_learning": before.tolist(),
                **metrics.summary(learnt),
                "forward_transfer": metrics.forward_transfer(before, untouched),
                "zero_shot_retention": metrics.zero_shot_retention(before, untouched),
            }
            result["zero_shot"][direction][k] = {"matrix": _rows(frozen), **metrics.summary(frozen)}
    for kind in ("image", "text"):
        rows = [s["routing"][kind] for s in stages]
        result["routing_accuracy"][kind] = {"matrix": rows, "final_average": float(np.mean(rows[last]))}
    if "confusion" in stages[last]:
        result["routing_confusion"] = stages[last]["confusion"]
    if all("chance" in stage for stage in stages):
        result["chance"] = {direction: _chance([s["chance"][direction] for s in stages]) for direction in DIRECTIONS}
    return result


def _chance(rows: Sequence[dict[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """By k the matrix of a guess's recall and its averages."""
    found = {}
    for k in map(str, KS):
        matrix = _matrix([row[k] for row in rows])
        found[k] = {
            "matrix": _rows(matrix),
            "incremental_average": metrics.incremental_average(matrix),
            "final_average": metrics.final_average(matrix),
        }
    return found


def _matrix(rows: Sequence[Sequence[float]]) -> np.ndarray:
    matrix = np.full((len(rows), len(rows)), np.nan)
    for s, row in enumerate(rows):
        matrix[s, : s + 1] = row
    return matrix


def _rows(matrix: np.ndarray) -> list[list[float]]:
    return [row[: s + 1].tolist() for s, row in enumerate(matrix)]


def protocol(galleries: str, oracle: bool, transform: str, asks_with_placeholders: bool) -> str:
    """The protocol in words, for whoever finds the numbers in five years."""
    return " ".join(
        [
            "After each task, every image and caption of "
            + ("all tasks seen so far is searched together." if galleries == "union" else "its own task is searched."),
            "Image to text counts a hit if any of the image's captions is among the first k; text to image uses the"
            " caption's one image. Equal scores count against the method.",
            "Each item is encoded under the prompts of "
            + (
                "its true task."
                if oracle
                else "the task with the nearest k-means centre (L1), images and captions apart;"
                f" captions ask {'with the placeholders in front' if asks_with_placeholders else 'as they are'}."
            ),
            "Validation pictures are "
            + (
                "resized and centre-cropped."
                if transform == "centre"
                else "randomly cropped and flipped, as in training."
            ),
            "R[s][t] is the recall on task t after stage s, per cent.",
        ]
    )
