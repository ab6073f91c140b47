"""How alike are two tasks? Cosines of their descriptions' text features, or a table given by the user."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpi_jax.errors import UserError
from lpi_jax.types import Tree

CENTRED_FROM = 3  # tasks; the mean of two lies between them and makes opposites of any two
_NO_DIRECTION = 1e-6  # length below which what is left of a description is rounding


class Rule(NamedTuple):
    """Which tasks count as similar.

    Attributes:
      source: of cosines: "text", the tasks' descriptions, or the path of a table.
      threshold: a cosine; tasks above it count as similar.
      share: None, or in place of `threshold` the share of all pairs of tasks so far that count as similar; the cosines
        of descriptions are `centred_cosines` then.
    """

    source: str = "text"
    threshold: float = 0.4
    share: float | None = None

    def cosines(self, descriptions: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """[T, T] float32 cosines of the meanings of tasks.

        Args:
          descriptions: [T, E] float32, L2-normalised. names: of the T tasks.

        Raises:
          UserError: as `from_table`.
        """
        if self.source != "text":
            return from_table(self.source, names)
        return cosines(descriptions) if self.share is None else centred_cosines(descriptions)

    def limit(self, alike: np.ndarray) -> float:
        """The cosine above which tasks count as similar; alike: [T, T], from `cosines`."""
        return self.threshold if self.share is None else share_limit(alike, self.share)


def cosines(descriptions: np.ndarray) -> np.ndarray:
    """[T, T] float32 cosines of L2-normalised description features [T, E]; tasks may arrive one by one."""
    return np.asarray(descriptions @ descriptions.T, np.float32)


def centred_cosines(descriptions: np.ndarray) -> np.ndarray:
    """[T, T] float32 cosines of what T descriptions differ in: cos(d_i - m, d_j - m), m the mean of the tasks so far.

    CLIP's text features lie in a narrow cone, and cosines of any two texts hardly fall below 0.6: a fixed threshold of
    0.4 makes every pair similar. What all share goes with their mean. Of less than three tasks plain cosines: two would
    be opposites whatever they are about. Cosines of two tasks change as others arrive, because the mean does.

    Args:
      descriptions: [T, E] float32, L2-normalised. One that is the mean itself has a cosine of 0 with all others.
    """
    if len(descriptions) < CENTRED_FROM:
        return cosines(descriptions)
    rest = np.asarray(descriptions, np.float64)
    rest = rest - rest.mean(0)
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    rest = np.where(length > _NO_DIRECTION, rest / np.maximum(length, _NO_DIRECTION), 0.0)
    alike = rest @ rest.T
    np.fill_diagonal(alike, 1.0)
    return alike.astype(np.float32)


def share_limit(alike: np.ndarray, share: float) -> float:
    """The cosine above which `share` of all pairs of tasks lie: their quantile at 1 - share, a float32.

    A pair at the quantile itself is not above it. So the only pair of two tasks counts as dissimilar, and the second
    task is pushed away from the first; so do all pairs where they are equally alike.

    Args:
      alike: [T, T] float32 cosines. Without a pair the limit is 1.
      share: from 0 to 1.
    """
    pairs = alike[np.triu_indices(len(alike), 1)]
    return float(np.float32(np.quantile(pairs, 1 - share))) if len(pairs) else 1.0


def from_table(path: str | Path, names: Sequence[str]) -> np.ndarray:
    """Reads a CSV with a header `task,NAME,...` and a row per task: [T, T] float32 for `names`, in their order.

    Raises:
      UserError: the file is missing, is not such a table, lacks a name, or holds what no cosines can be.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = [row for row in csv.reader(file) if row]
        table = {row[0]: dict(zip(header[1:], map(float, row[1:]), strict=True)) for row in rows}
        chosen = np.asarray([[table[a][b] for b in names] for a in names], np.float32).reshape(len(names), len(names))
    except OSError as error:
        raise UserError(f"similarity table {path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise UserError(f"similarity table {path} has no entry for task {error.args[0]!r}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"similarity table {path} is not a table of numbers with a header of task names") from error
    for row, column in np.argwhere(~((np.abs(chosen) <= 1) & np.isclose(chosen, chosen.T))):
        raise UserError(
            f"similarity table {path} says {chosen[row, column]:g} of {names[row]!r} and {names[column]!r}, expected"
            " cosines, the same in both directions"
        )
    return chosen


def fingerprint(path: str | Path) -> str:
    """sha256 of a table's bytes; UserError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"similarity table {path} cannot be read: {error.strerror}") from error


def check(names: Sequence[str], source: str) -> None:
    """Raises UserError unless the table of similarities, if there is one, can be read and knows every task."""
    if source != "text":
        from_table(source, names)


def facts(memory: Tree, names: Sequence[str], rule: Rule | None = None, weight: float = 1.0) -> dict[str, Any]:
    """What the results tell: how alike the finished tasks are, and `remarks` where a rule counts some as similar.

    Args:
      rule: what the loss between tasks goes by; None: there is no such loss. weight: its weight; at 0 nothing is
        remarked on.
    """
    descriptions = memory["descriptions"]
    if rule is None:
        return {"similarity": cosines(descriptions).tolist()}
    told = remarks(descriptions, names, rule) if weight else []
    return {"similarity": rule.cosines(descriptions, names).tolist(), "remarks": told}


def remarks(descriptions: np.ndarray, names: Sequence[str], rule: Rule) -> list[str]:
    """A sentence for every task that had no similar, or no dissimilar, task to be compared with when it was trained.

    Args:
      descriptions: [T, E] float32, L2-normalised. names: of the T tasks, in the order in which they were trained.
    """
    told = []
    for count in range(2, len(names) + 1):
        alike = rule.cosines(descriptions[:count], names[:count])
        limit = rule.limit(alike)
        similar = alike[-1, :-1] > limit
        for kind, none, nothing in (
            ("similar", not similar.any(), f"above {limit:.3g}): nothing is drawn together"),
            ("dissimilar", similar.all(), f"up to {limit:.3g}): nothing is pushed apart"),
        ):
            if none:
                told.append(f"task {names[count - 1]!r} has no earlier task that counts as {kind} (cosine {nothing}")
    return told
