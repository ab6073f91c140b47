"""What an image and a text score with each other: features under their adapters, plain features, a prior of tasks.

  S(i, c) = f_r(i) . f_r(c)  +  plain(i) . plain(c)  +  log( sum_t p(t | i) p(t | c) ) / logit_scale
            `prompted`          `plain`                 `prior`

`eval.score` names the parts. Each is a product of something of the image with something of the text, so that both
sides can be computed apart and kept: the vector [f_r ; plain] and a vector of T + 1 probabilities, the last of which is
that of "none of these". The prior is the logarithm of how likely the two belong to one task, in the units of a cosine.

Features under the prompts of different tasks do not compare. With `matched`, the first part is f_r(i) . f_r(c) where
both have the prompts of one task, and plain(i) . plain(c) where they do not, as the frozen backbone has it. Beside the
vector stands the number of the task, -1 for none.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lpi_jax.errors import UserError

SMOOTHING = 1e-5  # share of every posterior that is spread evenly: a router that is sure may be wrong
ASTRAY = 0.3  # of what belongs to none of the tasks, the share whose partner is taken for one of theirs all the same


class Scored(NamedTuple):
    """Items as a score sees them.

    Attributes:
      features: [N, E] or, of two kinds, [N, 2E] float32. posterior: [N, T + 1] float32 or None, probabilities.
      adapters: [N] int32 or None: whose prompts, where only equal ones are compared and else the second kind.
    """

    features: np.ndarray
    posterior: np.ndarray | None = None
    adapters: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray) -> "Scored":
        return Scored(*(None if part is None else part[rows] for part in self))

    def __len__(self) -> int:
        return len(self.features)


def scored(features: np.ndarray, plain: np.ndarray, posterior: np.ndarray, adapters: np.ndarray, score: str) -> Scored:
    """Items under a score.

    Args:
      features, plain: [N, E] float32, with and without their adapters. posterior: [N, T + 1] float32.
      adapters: [N] int32, whose prompts `features` are made with. score: one of `options.SCORES`.
    """
    parts = score.split("+")
    matched = "matched" in parts
    kinds = [features] if matched or "prompted" in parts else []
    kinds += [plain] if matched or "plain" in parts else []
    both = kinds[0] if len(kinds) == 1 else np.concatenate(kinds, axis=1)
    return Scored(both, smoothed(posterior) if "prior" in parts else None, adapters if matched else None)


def uses_prompts(score: str) -> bool:
    """Whether a score looks at features under prompts."""
    return bool({"prompted", "matched"} & set(score.split("+")))


def smoothed(posterior: np.ndarray) -> np.ndarray:
    """Probabilities [N, T + 1] as the prior takes them, none of them zero.

    An item that belongs to none of the tasks may have a partner that the router took for one of theirs: a share of its
    last column is spread over the tasks. Then a small share of everything is spread evenly.
    """
    if (tasks := posterior.shape[1] - 1) > 0:
        astray = ASTRAY * posterior[:, -1:]
        posterior = np.concatenate([posterior[:, :-1] + astray / tasks, posterior[:, -1:] - astray], axis=1)
    return ((1 - SMOOTHING) * posterior + SMOOTHING / posterior.shape[1]).astype(np.float32)


def vectors(items: Scored, logit_scale: float, asking: bool = False, task: int | None = None) -> np.ndarray:
    """[N, E'] float32 whose inner products rank as the score does, for an index that knows nothing else.

    The vector of an asking item is its features and a 1 at its most likely task; that of an item in the index its
    features and the priors that items of each task have with it. Exact where the posteriors of those that ask are
    certain; else they count as certain.

    Args:
      asking: whether the items ask. task: with the score `matched`, whose prompts the items have that will ask, -1 for
        none (`items.adapters`): there is an index for each, in which of the two halves of an item's features the one
        is zero that they are not compared by.

    Raises:
      UserError: no task where one is needed.
    """
    features = items.features
    if items.adapters is not None and not asking:
        if task is None:
            raise UserError(
                "with the score `matched` there is an index for the queries of each task; expected task, whose index is"
                " meant, -1 for that of queries of none"
            )
        prompted, plain = np.split(features, 2, axis=1)
        same = (items.adapters == task)[:, None]
        features = np.concatenate([np.where(same, prompted, 0), np.where(same, 0, plain)], axis=1)
    if items.posterior is None:
        return features
    classes = np.eye(items.posterior.shape[1], dtype=np.float32)
    if asking:
        marks = classes[np.argmax(items.posterior, axis=1)]
    else:
        marks = np.log(items.posterior @ smoothed(classes).T) / np.float32(logit_scale)
    return np.concatenate([features, marks], axis=1)


def matrix(queries: Scored, items: Scored, logit_scale: float) -> np.ndarray:
    """[Q, N] float32, every score: for few items; rankings are counted in chunks (`ranks`)."""
    scores = products(queries.features, items.features, queries.adapters, items.adapters)
    if queries.posterior is not None:
        scores = scores + np.log(queries.posterior @ items.posterior.T) / np.float32(logit_scale)
    return scores


def products(queries: Any, items: Any, own: Any = None, theirs: Any = None) -> Any:
    """Inner products [Q, N] of features [Q, E] and [N, E], NumPy's or JAX's; or, of two kinds in halves, matched.

    Args:
      own, theirs: None, or the adapters [Q] and [N]: those of the first halves where they are equal, else the second's.
    """
    if own is None:
        return queries @ items.T
    half = queries.shape[1] // 2
    prompted, plain = queries[:, :half] @ items[:, :half].T, queries[:, half:] @ items[:, half:].T
    # Chosen, not multiplied by 0 and 1: prompts that give no numbers spoil the scores of their own task alone.
    return own.__array_namespace__().where(own[:, None] == theirs[None], prompted, plain)


def joined(parts: Sequence[Scored]) -> Scored:
    """The items of several parts as one."""
    return Scored(*(None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True)))
