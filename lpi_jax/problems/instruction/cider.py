"""CIDEr-D: how much a caption says what people say of the image, and people say of no other (Vedantam et al. 2015).

It is what the field reports as CIDEr. With g_n(c) the counts of a caption's word n-grams, each times the logarithm of
(number of images / number of images with it in a reference), and l(c) its words, of a caption c with references S

    CIDEr-D_n(c, S) = 10 / |S| sum_s exp(-(l(c) - l(s))^2 / 72) min(g_n(c), g_n(s)) . g_n(s) / (|g_n(c)| |g_n(s)|)

and CIDEr-D is the mean over n = 1..4. Captions are cut into words as the Penn Treebank does, as far as short captions
need it: lower case, no punctuation, n't and 's apart.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

LONGEST = 4  # words of an n-gram
_SIGMA = 6.0
_NOT = re.compile(r"n't\b")
_WORD = re.compile(r"n't|'(?:s|m|d|re|ve|ll)\b|\w+(?:[-./]\w+)*")

Gram = tuple[str, ...]
Weight = Callable[[Gram], float]


def cider(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of every answer, 0 to 10; the field reports their mean, in hundredths.

    Args:
      answers: one caption for each image of the whole corpus.
      references: by image, at least one caption of a person.
    """
    said = [[_grams(caption) for caption in captions] for captions in references]
    images = Counter(gram for captions in said for gram in {gram for grams in captions for gram in grams})
    log_count = math.log(max(len(said), 1))

    def weight(gram: Gram) -> float:
        return log_count - math.log(max(1, images[gram]))

    return [10 * _likeness(_grams(a), captions, weight) for a, captions in zip(answers, said, strict=True)]


def consensus(answer: str, references: Sequence[str]) -> float:
    """The same of one answer alone, every n-gram weighing alike: 0 to 1."""
    return _likeness(_grams(answer), [_grams(caption) for caption in references], lambda gram: 1.0)


def words(caption: str) -> list[str]:
    """A caption's words."""
    return _WORD.findall(_NOT.sub(" n't", caption.lower()))


def _grams(caption: str) -> Counter[Gram]:
    """How often each n-gram of 1 to LONGEST words occurs."""
    said = words(caption)
    return Counter(tuple(said[at : at + n]) for n in range(1, LONGEST + 1) for at in range(len(said) - n + 1))


def _likeness(answer: Counter[Gram], references: Sequence[Counter[Gram]], weight: Weight) -> float:
    given = _vectors(answer, weight)
    likeness = 0.0
    for reference in references:
        known = _vectors(reference, weight)
        apart = math.exp(-((_length(answer) - _length(reference)) ** 2) / (2 * _SIGMA**2))
        likeness += apart * sum(map(_clipped_cosine, given, known)) / LONGEST
    return likeness / len(references)


def _length(grams: Counter[Gram]) -> int:
    return sum(count for gram, count in grams.items() if len(gram) == 1)


def _vectors(grams: Counter[Gram], weight: Weight) -> list[dict[Gram, float]]:
    """By n the weighted counts."""
    vectors: list[dict[Gram, float]] = [{} for _ in range(LONGEST)]
    for gram, count in grams.items():
        vectors[len(gram) - 1][gram] = count * weight(gram)
    return vectors


def _clipped_cosine(given: dict[Gram, float], known: dict[Gram, float]) -> float:
    norms = math.hypot(*given.values()) * math.hypot(*known.values())
    return sum(min(given[gram], known[gram]) * known[gram] for gram in given.keys() & known.keys()) / (norms or 1.0)
