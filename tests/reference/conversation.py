"""Instruction tasks in text and numbers: CLIP's question, scores of answers and boxes, averages over stages.

Sections 1.3, 2.3, 2.4 and quirks Q4 and Q8 of ModalPrompt's specification.
In the averages A[j][i] is the metric on task i <= j after stage j, both from 0: a lower-triangular list of lists, or an
array whose entries above the diagonal are never read.
"""

import re

# ---- what CLIP reads -------------------------------------------------------------------------------------------------


def question_text(decoded):
    """Behind the first newline, up to the first " ASSISTANT" there; nothing where there is no newline.

    Args:
      decoded: the whole conversation as decoded from the ids without special tokens, the image's place left empty.
    """
    if "\n" not in decoded:
        return ""
    behind = decoded[decoded.index("\n") + 1 :]
    return behind[: behind.index(" ASSISTANT")] if " ASSISTANT" in behind else behind


# ---- short answers ---------------------------------------------------------------------------------------------------

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
# The public standard corrects each of these where exactly one apostrophe is missing.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def normalise(answer):
    """An answer as it is compared: lower case, digits, no articles, almost no punctuation, apostrophes in their place.

    A mark that touches a space anywhere in the answer goes everywhere; any other becomes a space. Full stops go unless
    a digit follows. (The standard's case of a comma between digits never comes: commas go first.)
    """
    answer = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    cleaned = answer
    for mark in PUNCTUATION:
        touches = mark + " " in answer or " " + mark in answer
        cleaned = cleaned.replace(mark, "" if touches else " ")
    cleaned = re.sub(r"\.(?!\d)", "", cleaned)
    numbers = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}
    words = [numbers.get(word, word) for word in cleaned.split()]
    return " ".join(apostrophe(word) for word in words if word not in ("a", "an", "the"))


def apostrophe(word):
    """The contraction that a word is when one apostrophe is put in, or the word itself."""
    for whole in CONTRACTIONS.split():
        for place, letter in enumerate(whole):
            if letter == "'" and whole[:place] + whole[place + 1 :] == word:
                return whole
    return word


def soft_accuracy(prediction, answers):
    """The mean over the people asked of min(1, how many of the others said the same / 3), all of them normalised.

    Args:
      prediction: text.
      answers: texts, ten as a rule.
    """
    prediction, answers = normalise(prediction), [normalise(answer) for answer in answers]
    total = 0.0
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        total += min(1.0, others.count(prediction) / 3)
    return total / len(answers)


# ---- boxes -----------------------------------------------------------------------------------------------------------


def four_numbers(text):
    """(x1, y1, x2, y2) of "x1, y1, x2, y2", or None where it is anything else."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        return None
    return x1, y1, x2, y2


def clean_parse(text):
    """The box of "[x1, y1, x2, y2]", or None."""
    return four_numbers(text.replace("[", "").replace("]", ""))


def coin_parse(text):
    """The same as CoIN reads it: without the brackets, and then without the first and the last character left."""
    return four_numbers(text.replace("[", "").replace("]", "")[1:-1])


def iou(a, b):
    """Area in both boxes over area in either; 0 where neither has any. Boxes: (x1, y1, x2, y2), corners in order."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / either if either > 0 else 0.0


# ---- averages over stages --------------------------------------------------------------------------------------------


def final_average(A):
    """(1/T) sum_i A[T-1][i]: "Last", MFN."""
    return sum(A[-1][i] for i in range(len(A))) / len(A)


def immediate_average(A):
    """(1/T) sum_i A[i][i]: MFT."""
    return sum(A[i][i] for i in range(len(A))) / len(A)


def mean_average(A):
    """(1/T) sum_j (1/(j+1)) sum_{i<=j} A[j][i]: MAA."""
    return sum(sum(A[j][i] for i in range(j + 1)) / (j + 1) for j in range(len(A))) / len(A)


def backward_transfer(A):
    """(1/T) sum_i ( A[T-1][i] - A[i][i] ), CoIN's BWT: over all T tasks; negative = forgot."""
    return sum(A[-1][i] - A[i][i] for i in range(len(A))) / len(A)


def forgetting(A, stage=None):
    """(1/j) sum_{i<j} ( A[i][i] - A[j][i] ) after stage j, RECAP's B: over earlier tasks; positive = forgot.

    Args:
      A: the matrix.
      stage: j from 0; None for the last. After the first there is nothing to forget: 0.
    """
    j = len(A) - 1 if stage is None else stage
    return sum(A[i][i] - A[j][i] for i in range(j)) / j if j else 0.0
