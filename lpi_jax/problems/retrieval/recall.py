"""From a gallery to ranks, and from ranks to metrics on each task, in both directions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lpi_jax.methods.base import PLAIN, one_hot
from lpi_jax.problems.base import Control, Metric, Row
from lpi_jax.problems.retrieval import answers, chance
from lpi_jax.problems.retrieval.gallery import Gallery, Side
from lpi_jax.problems.retrieval.ranks import mean_reciprocal_rank, median_rank, ranks, recall
from lpi_jax.problems.retrieval.score import Scored, scored

KS = (1, 5, 10)
DIRECTIONS = {"image_to_text": ("image to text", "I→T", "image"), "text_to_image": ("text to image", "T→I", "text")}
METRICS = tuple(
    metric
    for direction, (words, short, side) in DIRECTIONS.items()
    for metric in (
        *(Metric(f"{direction}/R@{k}", f"R@{k}", words, short, "%", True, side) for k in KS),
        Metric(f"{direction}/MRR", "MRR", words, short, "%", True, side),
        Metric(f"{direction}/median rank", "median rank", words, short, "", False, side),
    )
)


class Way(NamedTuple):
    """One way of ranking the same items.

    Attributes:
      score: one of `score.SCORES`. galleries: `union` searches the items of all tasks seen so far; `task` only those of
        the query's own task. filtered: whether only items that were routed to the query's routed task can be found.
    """

    score: str
    galleries: str
    filtered: bool = False


# What a method is measured beside: the frozen backbone with what the method knows, and galleries that never grow.
FROZEN = Control("frozen", "zero-shot", measures_method=False)
FILTERED = Control("frozen_filtered", "zero-shot, in the routed task's items", measures_method=False)
PRIOR = Control("frozen_prior", "zero-shot with the routing prior", measures_method=False)
OWN_FROZEN = Control("own_frozen", "zero-shot, in the true task's items", measures_method=False)
OWN = Control("own", "in the true task's items", measures_method=True)


def ways(score: str, galleries: str, routes: bool) -> dict[Control, Way]:
    """The controls of a method that is measured by `score` in `galleries`; routes: whether items are sent to tasks."""
    of_routing = {FILTERED: Way("plain", galleries, filtered=True), PRIOR: Way("plain+prior", galleries)}
    return {
        FROZEN: Way("plain", galleries),
        **(of_routing if routes else {}),
        OWN_FROZEN: Way("plain", "task"),
        OWN: Way(score, "task"),
    }


class Ranked(NamedTuple):
    """Queries of one direction and the rank of each one's best right answer.

    Attributes:
      ranks: [Q] int32 from 0. task: [Q] int32. image: [Q] int32, the image that a query is or describes.
    """

    ranks: np.ndarray
    task: np.ndarray
    image: np.ndarray


def ranked(
    gallery: Gallery, way: Way, asked: Sequence[int], shown: Sequence[int], *, apart: bool, logit_scale: float
) -> dict[str, Ranked]:
    """The ranks of all queries of the tasks `asked` among the items of the tasks `shown`, by direction.

    Args:
      apart: whether equal captions are items of their own (`answers`). logit_scale: the factor itself.
    """
    images, captions = gallery.images, gallery.captions
    seen = {"image": _scored(images, way), "text": _scored(captions, way)}
    found = {}
    for direction, (_, _, side) in DIRECTIONS.items():
        answered = answers.image_to_text if side == "image" else answers.text_to_image
        queries = images if side == "image" else captions
        of_queries, of_items = seen[side], seen["text" if side == "image" else "image"]
        parts = []
        for some, among in [(asked, shown)] if way.galleries == "union" else [([task], [task]) for task in asked]:
            one = answered(images, captions, some, among, apart)
            best = ranks(of_queries[one.queries], of_items[one.items], one.right, logit_scale)
            parts.append(Ranked(best, queries.task[one.queries], queries.owner[one.queries]))
        found[direction] = Ranked(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return found


def _scored(side: Side, way: Way) -> Scored:
    if not way.filtered:
        return scored(side.features, side.plain, side.posterior, side.encoded, way.score)
    # Certain, and not smoothed: what was routed elsewhere scores minus infinity.
    return Scored(side.plain, one_hot(side.routed, side.posterior.shape[1] - 1))


def row(found: Mapping[str, Ranked], asked: Sequence[int]) -> Row:
    """Every metric on each of the tasks `asked`."""
    values: Row = {}
    for direction, (best, task, _) in found.items():
        per_task = [best[task == number] for number in asked]
        values |= {f"{direction}/R@{k}": [recall(own, k) for own in per_task] for k in KS}
        values[f"{direction}/MRR"] = [mean_reciprocal_rank(own) for own in per_task]
        values[f"{direction}/median rank"] = [median_rank(own) for own in per_task]
    return values


def chance_row(gallery: Gallery, tasks: int, galleries: str, apart: bool = True) -> Row:
    """What a guess finds on each of the first `tasks` tasks; of the median rank nothing is said."""
    images, captions = gallery.images, gallery.captions
    values: Row = {}
    for direction, (_, _, side) in DIRECTIONS.items():
        answered = answers.image_to_text if side == "image" else answers.text_to_image
        own = []
        for task in range(tasks):
            one = answered(images, captions, [task], range(tasks) if galleries == "union" else [task], apart)
            own.append((len(one.items), (one.right >= 0).sum(1)))
        values |= {f"{direction}/R@{k}": [chance.recall(shown, right, k) for shown, right in own] for k in KS}
        values[f"{direction}/MRR"] = [chance.mean_reciprocal_rank(shown, right) for shown, right in own]
    return values


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
