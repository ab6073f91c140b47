"""How well a few items find each other: the missed rank of held-out images and their texts, image by image.

By ranks, as recall is: a cross entropy falls already where scores lie closer together, which helps nobody who searches.
"""

import numpy as np


def contrast(images: np.ndarray, texts: np.ndarray, owners: np.ndarray, names: np.ndarray) -> np.ndarray:
    """[I] float64: 1 - 1 / (1 + rank) of an image's best right answer, rank from 0, averaged over both directions.

    Half of it is the image's own search among the texts, half the mean of its texts' among the images. A wrong item
    with the score of the best right one stands before it.

    Args:
      images: [I, E] float32. texts: [N, E] float32; owners: [N] int, the image that each text describes; an image has
        at least one.
      names: [N] int; texts of one name are one text, right answers to every image that any of them describes.
    """
    scores = images @ texts.T
    owned = owners[None] == np.arange(len(images))[:, None]
    right = owned @ (names[:, None] == names[None])  # of booleans: whether there is any
    _, first = np.unique(names, return_index=True)  # of texts of one name, one stands in the list

    def of_rows(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        return 1 - 1 / (1 + (~(scores < best) & ~right).sum(1))

    of_texts = np.bincount(owners, of_rows(scores.T, right.T), len(images)) / np.bincount(owners, minlength=len(images))
    return (of_rows(scores[:, first], right[:, first]) + of_texts) / 2
