"""The search for the largest batch that fits: with few compilations, and only what was compiled is told."""

import pytest

from lpi_jax.plan.largest import MOST, largest


class Chip:
    """A chip whose need grows with the batch; counts what is compiled."""

    def __init__(self, need):
        self.need, self.asked = need, []

    def __call__(self, batch):
        self.asked.append(batch)
        return self.need(batch)


@pytest.mark.parametrize("start", [16, 64, 512, 4096])
@pytest.mark.parametrize("step", [8, 16])
def test_a_need_that_grows_evenly_is_found_to_a_step(start, step):
    chip = Chip(lambda batch: 300 + 7 * batch)
    batch, needed = largest(chip, start, step, memory=5000)
    assert batch == (4700 - 1) // 7 // step * step
    assert needed == 300 + 7 * batch
    assert len(chip.asked) == len({*chip.asked}) <= MOST
    assert all(asked % step == 0 for asked in chip.asked)


def test_a_need_that_grows_faster_is_found_from_below():
    chip = Chip(lambda batch: 100 + batch * batch)
    batch, needed = largest(chip, 8, 8, memory=10_000)
    assert needed == chip.need(batch) < 10_000
    assert 32 <= batch == max(asked for asked in chip.asked if chip.need(asked) < 10_000)
    assert len(chip.asked) <= MOST


def test_from_far_above_a_batch_that_fits_is_found_though_no_line_leads_there():
    chip = Chip(lambda batch: 100 + batch * batch)
    batch, needed = largest(chip, 512, 8, memory=10_000)
    assert needed == chip.need(batch) < 10_000
    assert batch >= 32


def test_where_nothing_fits_the_smallest_that_was_tried_is_told():
    chip = Chip(lambda batch: 9000 + batch)
    assert largest(chip, 64, 8, memory=5000) == (0, 9000 + min(chip.asked))


def test_a_need_that_does_not_grow_ends_the_search():
    chip = Chip(lambda batch: 10)
    assert largest(chip, 8, 8, memory=100) == (16, 10)
