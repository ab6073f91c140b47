"""What the loop learns from: a stream of tasks, each with training and validation images and what is said of them.

Every stream (scenes, jsonl, ...) builds these three classes; loop and loader know nothing else of it. What is said of
an image is a record of a class of its own (captions: `lpi_jax.data.captioned`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from PIL import Image


class Record(Protocol):
    """What is said of one image; `key` is a name of it, unique in its split."""

    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Split(Generic[R]):
    """Images and what is said of them, in a fixed order; images are made or read only when asked for.

    Attributes:
      records: what is said of each image.
      load: index -> image, a decoded Pillow image in mode RGB, of any size. Pure: the same index always gives the
        same image. (`Image.fromarray` makes one of [H, W, 3] uint8.)
    """

    records: tuple[R, ...]
    load: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def keys(self) -> tuple[str, ...]:
        """The images' names."""
        return tuple(record.key for record in self.records)


@dataclass(frozen=True)
class Task(Generic[R]):
    """One task of a stream.

    Attributes:
      description: what the semantic distance between tasks is computed from.
      train, val: what is learnt from and what is measured on. held_out: training images that train nothing, or none.
    """

    name: str
    description: str
    train: Split[R]
    val: Split[R]
    held_out: Split[R] | None = None


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
class Stream(Generic[R]):
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
    tasks: tuple[Task[R], ...]
    fingerprint: str
    refused: Refused = Refused()
    notes: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def skipped(self) -> dict[str, int]:
        """Bad examples that were left out, counted by kind."""
        return dict(sum(map(Counter, self.refused.counts.values()), Counter()))
