"""A bootstrap over the images of each task, one image drawn at a time."""

import numpy as np


def averages(hits, rng):
    """The mean over tasks of the mean over queries, in one draw of as many images of each task as it has.

    Args:
      hits: by task, by image: what each of its queries counts.
    """
    means = []
    for images in hits:
        drawn = [images[rng.integers(len(images))] for _ in images]
        every = [value for image in drawn for value in image]
        means.append(sum(every) / len(every))
    return sum(means) / len(means)


def draws(hits, count, seed):
    """[count] averages."""
    rng = np.random.default_rng(seed)
    return np.array([averages(hits, rng) for _ in range(count)])
