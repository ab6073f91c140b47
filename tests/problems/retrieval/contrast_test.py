"""What held-out images miss of the first rank, worked out by hand."""

import numpy as np
import pytest

from lpi_jax.problems.retrieval.contrast import contrast

FIRST, SECOND = np.eye(2, dtype=np.float32)
IMAGES, TEXTS = np.stack([FIRST, SECOND]), np.stack([FIRST, FIRST, SECOND])


def test_half_is_the_image_asking_and_half_its_texts():
    """Texts e1 of image e1, and e1 and e2 of image e2: an equal score of a wrong item counts."""
    owners, own = np.array([0, 1, 1]), np.arange(3)
    # Image e1 has a wrong text at its own's score; one of image e2's two texts finds image e1 first.
    assert contrast(IMAGES, TEXTS, owners, own) == pytest.approx([(1 / 2 + 0) / 2, (0 + 1 / 4) / 2])


def test_a_text_counts_for_every_image_whose_text_is_equal():
    owners = np.array([0, 1, 1])
    assert contrast(IMAGES, TEXTS, owners, np.array([7, 7, 9])) == pytest.approx([0, 0])


def test_texts_of_one_name_stand_in_the_list_once():
    """Image e2 has a text that its image finds third behind two texts e1; they are one where their names are equal."""
    texts, owners = np.stack([FIRST, FIRST, -SECOND]), np.array([0, 0, 1])
    images = np.stack([FIRST, FIRST + SECOND])
    assert contrast(images, texts, owners, np.arange(3))[1] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert contrast(images, texts, owners, np.array([7, 7, 9]))[1] == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_scores_that_are_no_numbers_find_nothing():
    nowhere = np.full_like(IMAGES, np.nan)
    assert contrast(nowhere, TEXTS, np.array([0, 0, 1]), np.arange(3)) == pytest.approx(
        [(1 / 2 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2]
    )
