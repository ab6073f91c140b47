"""What an image and a text score with each other: features under their adapters, plain features, a prior of tasks.

  S(i, c) = f_r(i) . f_r(c)  +  plain(i) . plain(c)  +  log( sum_t p(t | i) p(t | c) ) / logit_scale
            `prompted`          `plain`                 `prior`

`eval.score` names the parts. Each is a product of something of the image with something of the text, so that both
sides can be computed apart and kept: the vector [f_r ; plain] and a vector of T + 1 probabilities, the last of which is
that of "none of these". The prior is the logarithm of how likely the two belong to one task, in the units of a cosine.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SMOOTHING = 1e-5  # share of every posterior that is spread evenly: a router that is sure may be wrong
ASTRAY = 0.3  # of what belongs to none of the tasks, the share whose partner is taken for one of theirs all the same


class Scored(NamedTuple):
    """Items as a score sees them.

    Attributes:
      features: [N, E] or, of two kinds, [N, 2E] float32. posterior: [N, T + 1] float32 or None, probabilities.
    """

    features: np.ndarray
    posterior: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray) -> "Scored":
        return Scored(self.features[rows], None if self.posterior is None else self.posterior[rows])

    def __len__(self) -> int:
        return len(self.features)


def scored(features: np.ndarray, plain: np.ndarray, posterior: np.ndarray, score: str) -> Scored:
    """Items under a score.

    Args:
      features, plain: [N, E] float32, with and without their adapters. posterior: [N, T + 1] float32.
      score: one of `options.SCORES`.
    """
    parts = score.split("+")
    kinds = [kind for name, kind in (("prompted", features), ("plain", plain)) if name in parts]
    both = kinds[0] if len(kinds) == 1 else np.concatenate(kinds, axis=1)
    return Scored(both, smoothed(posterior) if "prior" in parts else None)


def smoothed(posterior: np.ndarray) -> np.ndarray:
    """Probabilities [N, T + 1] as the prior takes them, none of them zero.

    An item that belongs to none of the tasks may have a partner that the router took for one of theirs: a share of its
    last column is spread over the tasks. Then a small share of everything is spread evenly.
    """
    if (tasks := posterior.shape[1] - 1) > 0:
        astray = ASTRAY * posterior[:, -1:]
        posterior = np.concatenate([posterior[:, :-1] + astray / tasks, posterior[:, -1:] - astray], axis=1)
    return ((1 - SMOOTHING) * posterior + SMOOTHING / posterior.shape[1]).astype(np.float32)


def vectors(items: Scored, logit_scale: float, asking: bool = False) -> np.ndarray:
    """[N, E'] float32 whose inner products rank as the score does, for an index that knows nothing else.

    The vector of an asking item is its features and a 1 at its most likely task; that of an item in the index its
    features and the priors that items of each task have with it. Exact where the posteriors of those that ask are
    certain; else they count as certain.
    """
    if items.posterior is None:
        return items.features
    classes = np.eye(items.posterior.shape[1], dtype=np.float32)
    if asking:
        marks = classes[np.argmax(items.posterior, axis=1)]
    else:
        marks = np.log(items.posterior @ smoothed(classes).T) / np.float32(logit_scale)
    return np.concatenate([items.features, marks], axis=1)


def matrix(queries: Scored, items: Scored, logit_scale: float) -> np.ndarray:
    """[Q, N] float32, every score: for few items; rankings are counted in chunks (`ranks`)."""
    scores = queries.features @ items.features.T
    if queries.posterior is not None:
        scores = scores + np.log(queries.posterior @ items.posterior.T) / np.float32(logit_scale)
    return scores


def joined(parts: Sequence[Scored]) -> Scored:
    """The items of several parts as one."""
    features = np.concatenate([part.features for part in parts])
    certain = [part.posterior for part in parts]
    return Scored(features, None if certain[0] is None else np.concatenate(certain))
