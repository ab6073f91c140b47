"""How well an average over tasks is known: a bootstrap over the images of each task.

An image is drawn together with its captions, whose ranks depend on each other.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lpi_jax.problems import bootstrap
from lpi_jax.problems.bootstrap import SEED, bounds, drawn
from lpi_jax.problems.retrieval.recall import KS, Ranked


def per_image(found: Ranked, tasks: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """By task the sums over each image's queries of what the metrics average.

    Returns:
      For every task sums [I, M], M metrics as in `NAMES`, and [I] numbers of queries.
    """
    values = np.stack([*(found.ranks < k for k in KS), 1.0 / (1.0 + found.ranks)], 1) * 100.0
    rows = []
    for task in tasks:
        own = found.task == task
        _, image = np.unique(found.image[own], return_inverse=True)
        sums = np.zeros((image.max(initial=-1) + 1, values.shape[1]))
        np.add.at(sums, image, values[own])
        rows.append((sums, np.bincount(image, minlength=len(sums)).astype(float)))
    return rows


NAMES = (*(f"R@{k}" for k in KS), "MRR")


def draws(found: Sequence[Ranked], tasks: Sequence[int], seed: int = SEED) -> list[np.ndarray]:
    """The final averages of each way of ranking under the same draws of images, each [DRAWS, M], per cent.

    Args:
      found: the same queries, ranked in several ways.
    """
    every = [per_image(one, tasks) for one in found]
    totals = [np.zeros((bootstrap.DRAWS, len(NAMES))) for _ in found]
    for place, weights in enumerate(drawn([len(queries) for _, queries in every[0]], seed)):
        for total, rows in zip(totals, every, strict=True):
            sums, queries = rows[place]
            total += (weights.astype(float) @ sums) / (weights.astype(float) @ queries)[:, None] / len(tasks)
    return totals


def intervals(
    method: Mapping[str, Ranked], controls: Mapping[str, Mapping[str, Ranked]], tasks: Sequence[int]
) -> dict[str, dict]:
    """By metric the interval of the method's final average, and of its differences to each control.

    Args:
      method: by direction. controls: by name, then by direction, of the same queries.

    Returns:
      {"DIRECTION/METRIC": {"interval": [low, high], "over": {control: [difference, low, high]}}}, per cent.
    """
    found: dict[str, dict] = {}
    for direction, own in method.items():
        # Queries stand in the order of their tasks in some ways and of their arrival in others: sums do not mind.
        averages = draws([own, *(control[direction] for control in controls.values())], tasks)
        exact = [final(one, tasks) for one in (own, *(control[direction] for control in controls.values()))]
        for place, name in enumerate(NAMES):
            over = {
                control: [
                    float(exact[0][place] - exact[1 + number][place]),
                    *bounds(averages[0][:, place] - averages[1 + number][:, place]),
                ]
                for number, control in enumerate(controls)
            }
            found[f"{direction}/{name}"] = {"interval": bounds(averages[0][:, place]), "over": over}
    return found


def final(found: Ranked, tasks: Sequence[int]) -> np.ndarray:
    """[M]: the metrics' means over tasks, per cent."""
    return np.mean([sums.sum(0) / queries.sum() for sums, queries in per_image(found, tasks)], axis=0)
