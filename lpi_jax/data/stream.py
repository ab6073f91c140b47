"""What the loop learns from: a stream of tasks, each with training and validation pictures and their captions.

Every stream (scenes, jsonl, ...) builds these three records; loop, loader and evaluation know nothing else of it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Split:
    """Captioned pictures in a fixed order; pictures are made or read only when asked for.

    Attributes:
      keys: one unique name per picture (a path, or a generator's coordinates).
      captions: per picture its one or more captions, as written by their author (not yet cleaned).
      load: index -> picture, a decoded Pillow image in mode RGB, of any size. Pure: the same index always gives the
        same picture. (`Image.fromarray` makes one of [H, W, 3] uint8.)
      annotate: index -> what else is known of the picture (objects, boxes, relations); None where nothing is.
    """

    keys: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    load: Callable[[int], Image.Image]
    annotate: Callable[[int], Any] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def pairs(self) -> np.ndarray:
        """[N, 2] int32 rows (picture index, caption index within the picture): each caption is one training example."""
        rows = [(i, j) for i, captions in enumerate(self.captions) for j in range(len(captions))]
        return np.asarray(rows, np.int32).reshape(-1, 2)


@dataclass(frozen=True)
class Task:
    """One task of a stream. `description` is what the semantic distance between tasks is computed from."""

    name: str
    description: str
    train: Split
    val: Split


@dataclass(frozen=True)
class Refused:
    """Bad examples that are not in a stream.

    Attributes:
      counts: by the task they named ("": none is known), then by kind.
      first: what is wrong with the first of them.
    """

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """Tasks in the order in which they arrive.

    Attributes:
      name: for results and messages.
      tasks: at least one.
      fingerprint: a hash of what the stream was made from; two runs are comparable only if it is equal.
      refused: bad examples that were left out.
      notes: anything a reader of the results should know of the data (kept as JSON).
      remarks: sentences about what was decided for the user and may be a mistake; told before a run.
    """

    name: str
    tasks: tuple[Task, ...]
    fingerprint: str
    refused: Refused = Refused()
    notes: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def skipped(self) -> dict[str, int]:
        """Bad examples that were left out, counted by kind."""
        return dict(sum(map(Counter, self.refused.counts.values()), Counter()))
