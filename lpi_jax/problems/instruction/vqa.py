"""How visual question answering compares short answers: a normal form, and the share of people who gave the answer."""

import re
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_ARTICLES = ("a", "an", "the")
# Of words with several apostrophes, all but one are written in each of the forms that are mended.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd've
    he'd he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
    needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905, a list of a hundred strings is harder to read


def _without_one(word: str) -> list[str]:
    """The word without one of its apostrophes, in every way."""
    return [word[:at] + word[at + 1 :] for at, sign in enumerate(word) if sign == "'"]


_MENDED = {bare: word for word in _CONTRACTED for bare in _without_one(word)}


def normalised(answer: str) -> str:
    """An answer as VQA's public evaluation (EvalAI) compares it.

    Lower case; commas and question marks go, 's stands apart, white space is single; a punctuation mark goes if it
    stands beside a space anywhere in the answer, else it becomes a space; full stops go unless a digit follows; words
    for numbers up to ten become digits; articles go; contractions get their apostrophe back.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    plain = text
    for sign in _PUNCTUATION:
        goes = f"{sign} " in text or f" {sign}" in text or _DIGIT_COMMA.search(text)
        plain = plain.replace(sign, "" if goes else " ")
    plain = _FULL_STOP.sub("", plain)
    words = [_NUMBERS.get(word, word) for word in plain.split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """VQA's accuracy: the mean over all choices of all but one of the people of min(1, how many of them said it / 3).

    Args:
      answer: what is judged.
      answers: what people answered, ten as a rule; with a single one, which leaves nobody to agree, equality counts.

    Returns:
      A number from 0 to 1; with ten answers, three of them equal to `answer`: 0.9.
    """
    given, people = normalised(answer), [normalised(one) for one in answers]
    if len(people) == 1:
        return float(given == people[0])
    said = people.count(given)
    return sum(min(1.0, (said - (one == given)) / 3) for one in people) / len(people)
