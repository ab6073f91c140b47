"""What somebody finds who never looks at the question: one answer for all samples of a task."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lpi_jax.data.instructed import Instructed
from lpi_jax.problems.instruction.scoring import scores

TRIED = 8  # of a task's answers, the commonest


def guess(records: Sequence[Instructed], way: str) -> float:
    """Per cent that the best single answer of a task finds, of the commonest ones to its own samples.

    Args:
      records: the task's samples, at least one. way: released | official.
    """
    common = [answer for answer, _ in Counter(record.answers[0] for record in records).most_common(TRIED)]
    return 100.0 * max(float(np.mean(scores([answer] * len(records), records, way))) for answer in common)
