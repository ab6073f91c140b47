"""How right an answer is, by the kind of its task: as CoIN's and ModalPrompt's releases count, and as it is meant.

`released` reproduces what the releases' scripts count, with what is odd about them; `official` is the metric of the
data set the task comes from. Where both are the same, one function stands twice.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from lpi_jax.data.instructed import Instructed
from lpi_jax.problems.instruction.boxes import Box, clean_parse, coin_parse, iou
from lpi_jax.problems.instruction.cider import cider, consensus
from lpi_jax.problems.instruction.vqa import soft_accuracy

WAYS = ("released", "official")
OPTIONS = "ABCDE"  # of a question with choices, as ScienceQA has at most

Judge = Callable[[str, Instructed], float]  # answer, record -> 0 to 1

_SINGLE = re.compile(r"\b(\w)\b")
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?:[.):,]|\s*$)")
_ANSWER_IS = re.compile(r"\banswer\s*(?:is|:)?\s*:?\s*" + _LETTER.pattern, re.IGNORECASE)


class Scorer(NamedTuple):
    """The two ways of judging an answer.

    Attributes:
      together: of answers that only count among all of a split, how many points each makes; None: each counts by
        itself.
    """

    released: Judge
    official: Judge
    together: Callable[[Sequence[str], Sequence[Instructed]], list[float]] | None = None


def scores(answers: Sequence[str], records: Sequence[Instructed], way: str) -> list[float]:
    """How right each answer is, by its record's scoring; a task's metric is the mean over its split.

    Args:
      answers: of the model, one for each record.
      records: the whole split.
      way: released | official.

    Returns:
      Numbers from 0 to 1, of captions a tenth of CIDEr-D, so that one task of captions weighs no more than others.
    """
    points = [0.0] * len(records)
    for name in dict.fromkeys(record.scoring for record in records):
        places = [place for place, record in enumerate(records) if record.scoring == name]
        own_answers, own_records = [answers[place] for place in places], [records[place] for place in places]
        scorer = SCORERS[name]
        judge = scorer.released if way == WAYS[0] else scorer.official
        judged = scorer.together(own_answers, own_records) if scorer.together else map(judge, own_answers, own_records)
        for place, point in zip(places, judged, strict=True):
            points[place] = point
    return points


# ---- comparing texts -------------------------------------------------------------------------------------------------


def _cleaned(text: str) -> str:
    return text.strip().lower().removesuffix(".").rstrip()


def _clean_match(answer: str, record: Instructed) -> float:
    """Equal but for case, white space around it and a full stop at the end, to one of the answers."""
    return float(_cleaned(answer) in map(_cleaned, record.answers))


def _caseless_match(answer: str, record: Instructed) -> float:
    """Equal to the reference but for case."""
    return float(answer.upper() == record.answers[0].upper())


def _coin_match(answer: str, record: Instructed) -> float:
    """One of answer and reference is part of the other; an empty answer is part of any."""
    return float(record.answers[0] in answer or answer in record.answers[0])


def _gqa_match(answer: str, record: Instructed) -> float:
    """Equal to the reference in lower case without full stops at the end."""
    return float(answer.rstrip(".").lower().removeprefix(" ") == record.answers[0])


def _ocr_match(answer: str, record: Instructed) -> float:
    """Equal to the reference but for case, and never with "Unanswerable" in it."""
    return float("Unanswerable" not in answer and answer.lower() == record.answers[0].lower())


def _agreement(answer: str, record: Instructed) -> float:
    return soft_accuracy(answer, record.answers)


# ---- letters ---------------------------------------------------------------------------------------------------------


def coin_letter(answer: str) -> str:
    """The choice as ScienceQA's script reads it: a letter A to E, one before ". ", else the first lone character."""
    if answer in tuple(OPTIONS):
        return answer
    if answer[:1] in tuple(OPTIONS) and answer[1:3] == ". ":
        return answer[0]
    alone = _SINGLE.search(answer)
    return alone[1].upper() if alone else ""


def letter(answer: str) -> str:
    """The choice: a letter that begins the answer ("B", "(b)", "B. ...") or follows "answer is"; "" where none does."""
    said = _LETTER.match(answer.strip()) or _ANSWER_IS.search(answer)
    return said[1].upper() if said else ""


def _choice(read: Callable[[str], str], answer: str, record: Instructed) -> float:
    chosen = read(answer)
    return float(bool(chosen) and chosen == read(record.answers[0]))


# ---- boxes and captions ----------------------------------------------------------------------------------------------


def _found(parse: Callable[[str], Box | None], answer: str, record: Instructed) -> float:
    """Whether answer and annotation share more than half of what they cover; the images' size cancels out."""
    box = parse(answer)
    return float(box is not None and iou(box, record.annotation["box"]) > 0.5)


def _alone(answer: str, record: Instructed) -> float:
    """What can be said of one caption; what is reported needs all (`Scorer.together`)."""
    return consensus(answer, record.answers)


def _cider(answers: Sequence[str], records: Sequence[Instructed]) -> list[float]:
    return [point / 10 for point in cider(answers, [record.answers for record in records])]


SCORERS: dict[str, Scorer] = {
    "exact": Scorer(_caseless_match, _clean_match),  # UCIT's script compares without regard to case
    "choice": Scorer(partial(_choice, coin_letter), partial(_choice, letter)),
    "science_qa": Scorer(partial(_choice, coin_letter), partial(_choice, letter)),
    "text_vqa": Scorer(_agreement, _agreement),
    "imagenet": Scorer(_coin_match, _clean_match),
    "gqa": Scorer(_gqa_match, _clean_match),
    "vizwiz": Scorer(_caseless_match, _agreement),
    "grounding": Scorer(partial(_found, coin_parse), partial(_found, clean_parse)),
    "vqav2": Scorer(_caseless_match, _agreement),
    "ocr_vqa": Scorer(_ocr_match, _clean_match),
    "caption": Scorer(_alone, _alone, _cider),
}
