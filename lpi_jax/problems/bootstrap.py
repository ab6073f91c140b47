"""A bootstrap: how well an average over tasks is known, by drawing the items of each task again and again.

Several ways of answering the same items are compared on the same draws (paired), which tells a small difference that is
always there from one that comes and goes.
"""

from collections.abc import Iterator, Sequence

import numpy as np

DRAWS = 2000
LEVEL = 0.95
SEED = 0  # of the draws: the same items give the same interval


def drawn(counts: Sequence[int], seed: int = SEED) -> Iterator[np.ndarray]:
    """By task how often each of its items is drawn, [DRAWS, n] int64; counts: the numbers n of the tasks' items."""
    rng = np.random.default_rng(seed)
    for count in counts:
        yield rng.multinomial(count, np.full(count, 1.0 / count), size=DRAWS)


def bounds(values: np.ndarray) -> list[float]:
    """[low, high]: between them lies the middle LEVEL of values [DRAWS]."""
    return [float(value) for value in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
