"""The time left counts evaluations in and compiling out."""

import time

import jax
import jax.numpy as jnp
import pytest

from lpi_jax.run.pace import Pace


@pytest.fixture
def pace():
    made = []

    def make(*arguments):
        made.append(Pace(*arguments))
        return made[-1]

    yield make
    for pace in made:
        pace.close()


def compiles(number):
    """Seconds that a new program takes, compiling included."""
    began = time.time()
    jax.jit(lambda x: jnp.linalg.svd(jnp.sin(x * number) @ x).S.sum())(jnp.ones((8, 8))).block_until_ready()
    return time.time() - began


def test_nothing_is_known_before_the_first_steps(pace):
    assert pace(100, 2).left(0) is None


def test_before_the_first_evaluation_the_steps_alone_are_estimated(pace):
    pace = pace(100, 2)
    pace.trained(10, 5.0)
    assert pace.left(10) == (45.0, False)


def test_evaluations_that_are_still_to_come_count(pace):
    pace = pace(100, 3)
    pace.trained(10, 5.0)
    pace.evaluated(7.0)
    assert pace.left(40) == (30.0 + 14.0, True)


def test_what_an_earlier_start_measured_counts(pace):
    pace = pace(100, 2, 7.0)
    pace.trained(10, 5.0)
    assert pace.left(90) == (5.0 + 14.0, True)


def test_a_run_without_steps_is_estimated_by_its_evaluations(pace):
    pace = pace(0, 4)
    assert pace.left(0) is None
    pace.evaluated(7.0)
    assert pace.left(0) == (21.0, True)


def test_a_machine_that_slows_down_is_followed(pace):
    pace = pace(2000, 1, 0.0)
    for _ in range(50):
        pace.trained(10, 1.0)
    for _ in range(50):
        pace.trained(10, 4.0)
    assert pace.left(1000) == (pytest.approx(400.0), True)


def test_compiling_is_left_out_of_steps_and_evaluations(pace):
    pace = pace(101, 2)
    taken = compiles(1)
    pace.trained(1, taken + 1.0)
    steps, whole = pace.left(1)
    assert not whole
    assert 100.0 <= steps < 100.0 + 50 * taken  # at least half of it was compiling
    taken = compiles(2)
    pace.evaluated(taken + 1.0)
    both, whole = pace.left(1)
    assert whole
    assert 1.0 <= both - steps < 1.0 + taken / 2


def test_what_was_compiled_before_a_task_is_not_taken_off_its_steps(pace):
    pace = pace(11, 1, 0.0)
    compiles(3)
    pace.skip()
    pace.trained(1, 1.0)
    assert pace.left(1) == (10.0, True)
