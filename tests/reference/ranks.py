"""Ranks and recall with several captions an image, by counting competitors one by one (section 6).

A rank is the number of competitors placed before the right answer, 0 for the best. A competitor with the same score is
placed before (a model that gives everything the same score must not look good), and so is one with a score that is not
a number, or every competitor if the right answer's is not. An image's own other captions are
never competitors.
"""

import numpy as np


def ranks(scores, right):
    """For each query: how many wrong items score no lower than the best of its right answers.

    Args:
      scores: [Q, G].
      right: for each query the places of its right answers, one at least.

    Returns:
      [Q] integers.
    """
    found = []
    for row, places in zip(np.asarray(scores), right, strict=True):
        best = np.max([row[place] for place in places])
        found.append(sum(not row[place] < best for place in range(len(row)) if place not in places))
    return np.array(found, int)


def image_to_text_ranks(scores, image_of_caption):
    """For each image: how many captions of other images score no lower than the best of its own.

    Args:
      scores: [I, C], image by caption.
      image_of_caption: [C] integers, the image each caption belongs to.

    Returns:
      [I] integers. Raises ValueError for an image without a caption.
    """
    scores = np.asarray(scores)
    ranks = []
    for image in range(scores.shape[0]):
        own = [scores[image, c] for c in range(scores.shape[1]) if image_of_caption[c] == image]
        others = [scores[image, c] for c in range(scores.shape[1]) if image_of_caption[c] != image]
        if not own:
            raise ValueError(f"image {image} has no caption")
        ranks.append(sum(not other < np.max(own) for other in others))
    return np.array(ranks, int)


def text_to_image_ranks(scores, image_of_caption):
    """For each caption: how many other images score no lower than its own one.

    Args:
      scores: [I, C], image by caption.
      image_of_caption: [C] integers, the image each caption belongs to.

    Returns:
      [C] integers.
    """
    scores = np.asarray(scores)
    ranks = []
    for caption in range(scores.shape[1]):
        right = image_of_caption[caption]
        others = [scores[i, caption] for i in range(scores.shape[0]) if i != right]
        ranks.append(sum(not other < scores[right, caption] for other in others))
    return np.array(ranks, int)


def recall_at(ranks, k):
    """Recall@k in percent: the share of ranks below k."""
    return 100.0 * sum(rank < k for rank in ranks) / len(ranks)


def mean_reciprocal_rank(ranks):
    """MRR in percent: the mean of one over the rank, counted from 1."""
    return 100.0 * sum(1 / (rank + 1) for rank in ranks) / len(ranks)


def median_rank(ranks):
    """The middle one of the ranks, counted from 1, or the mean of the two in the middle."""
    ordered, middle = sorted(rank + 1 for rank in ranks), len(ranks) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
