"""Which items answer a query: worked out by hand, and against plain sets."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.problems.retrieval import answers
from lpi_jax.problems.retrieval.ranks import NONE

FEW = settings(max_examples=60, deadline=None, derandomize=True)

# Images 0 and 1 are of task 0, images 2 and 3 of task 1. Captions by image, equal letters being equal captions:
# 0: a b, 1: b, 2: a c, 3: d. So b describes two images of one task, and a one of each task.
IMAGES = SimpleNamespace(task=np.array([0, 0, 1, 1]), owner=np.arange(4))
CAPTIONS = SimpleNamespace(
    task=np.array([0, 0, 0, 1, 1, 1]), owner=np.array([0, 0, 1, 2, 2, 3]), item=np.array([0, 1, 1, 0, 2, 3])
)


def told(asked):
    """Queries, items, and by query the set of places that are right."""
    assert asked.right.dtype == np.int32
    for row in asked.right:
        places = row[row != NONE]
        assert len(places) == len(set(places))
        assert (row[len(places) :] == NONE).all()
    return asked.queries.tolist(), asked.items.tolist(), [set(row[row != NONE].tolist()) for row in asked.right]


def image_to_text(asked, shown, apart):
    return told(answers.image_to_text(IMAGES, CAPTIONS, asked, shown, apart))


def text_to_image(asked, shown, apart):
    return told(answers.text_to_image(IMAGES, CAPTIONS, asked, shown, apart))


def test_apart_an_image_is_answered_by_its_own_captions_alone():
    found = image_to_text([0, 1], [0, 1], apart=True)
    assert found == ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [{0, 1}, {2}, {3, 4}, {5}])


def test_as_one_equal_captions_are_one_item_where_the_first_stood_and_answer_every_image_that_they_describe():
    found = image_to_text([0, 1], [0, 1], apart=False)
    assert found == ([0, 1, 2, 3], [0, 1, 4, 5], [{0, 1}, {1}, {0, 2}, {3}])


def test_apart_a_caption_is_answered_by_its_own_image_alone():
    found = text_to_image([0, 1], [0, 1], apart=True)
    assert found == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3], [{0}, {0}, {1}, {2}, {2}, {3}])


def test_as_one_a_caption_is_answered_by_every_image_with_an_equal_caption_also_of_another_task():
    found = text_to_image([0, 1], [0, 1], apart=False)
    assert found == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3], [{0, 2}, {0, 1}, {0, 1}, {0, 2}, {2}, {3}])


def test_in_the_items_of_one_task_what_another_task_shows_is_no_answer():
    assert image_to_text([1], [1], apart=False) == ([2, 3], [3, 4, 5], [{0, 1}, {2}])
    assert image_to_text([0], [0], apart=False) == ([0, 1], [0, 1], [{0, 1}, {1}])
    assert text_to_image([1], [1], apart=False) == ([3, 4, 5], [2, 3], [{0}, {0}, {1}])
    assert text_to_image([0], [0], apart=False) == ([0, 1, 2], [0, 1], [{0}, {0, 1}, {0, 1}])


def test_some_tasks_may_ask_among_the_items_of_more():
    assert image_to_text([1], range(2), apart=False) == ([2, 3], [0, 1, 4, 5], [{0, 2}, {3}])
    assert text_to_image([0], range(2), apart=True) == ([0, 1, 2], [0, 1, 2, 3], [{0}, {0}, {1}])
    assert text_to_image([0], range(2), apart=False) == ([0, 1, 2], [0, 1, 2, 3], [{0, 2}, {0, 1}, {0, 1}])


def test_tasks_without_items_ask_nothing():
    for asking in (image_to_text, text_to_image):
        queries, items, right = asking([7], [7], apart=False)
        assert (queries, items, right) == ([], [], [])


@st.composite
def galleries(draw):
    """Images of several tasks with one to three captions each out of few, and which tasks ask and are shown."""
    tasks = draw(st.integers(1, 3))
    image_task = sorted([*range(tasks), *draw(st.lists(st.integers(0, tasks - 1), max_size=5))])
    owner = [image for image in range(len(image_task)) for _ in range(draw(st.integers(1, 3)))]
    item = draw(st.lists(st.integers(0, 4), min_size=len(owner), max_size=len(owner)))
    shown = draw(st.lists(st.integers(0, tasks - 1), min_size=1, unique=True))
    asked = draw(st.lists(st.sampled_from(shown), min_size=1, unique=True))
    images = SimpleNamespace(task=np.array(image_task), owner=np.arange(len(image_task)))
    captions = SimpleNamespace(task=np.array(image_task)[owner], owner=np.array(owner), item=np.array(item))
    return images, captions, asked, shown


def naive(images, captions, asked, shown, apart, to_text):
    """Queries, and of every query the right rows and the wrong rows that are searched, in plain sets."""
    rows = [row for row in range(len(captions.task)) if captions.task[row] in shown]
    name = {row: row if apart else captions.item[row] for row in range(len(captions.task))}
    found = []
    if to_text:
        items = list(dict.fromkeys(name[row] for row in rows))
        for image in range(len(images.task)):
            if images.task[image] in asked:
                right = {name[row] for row in rows if captions.owner[row] == image}
                found.append((image, {items.index(one) for one in right}))
        first = [next(row for row in rows if name[row] == one) for one in items]
        return [query for query, _ in found], first, [right for _, right in found]
    items = [image for image in range(len(images.task)) if images.task[image] in shown]
    for caption in range(len(captions.task)):
        if captions.task[caption] in asked:
            right = {captions.owner[row] for row in rows if name[row] == name[caption]}
            found.append((caption, {items.index(image) for image in right}))
    return [query for query, _ in found], items, [right for _, right in found]


@pytest.mark.parametrize("apart", [True, False])
@FEW
@given(gallery=galleries())
def test_queries_items_and_answers_are_those_of_plain_sets(apart, gallery):
    images, captions, asked, shown = gallery
    for to_text, answered in ((True, answers.image_to_text), (False, answers.text_to_image)):
        found = told(answered(images, captions, asked, shown, apart))
        assert found == naive(images, captions, asked, shown, apart, to_text)
