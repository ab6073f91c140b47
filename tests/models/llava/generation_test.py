"""Answers: the same one by one and in a batch, with the cache and without it, and ended where they end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.models.llava import LLaVA
from lpi_jax.models.llava.generation import Sampling, generate
from lpi_jax.models.llava.llama import empty_cache
from lpi_jax.models.llava.llava import Inputs
from lpi_jax.models.llava.splice import IMAGE
from tests.models.llava import small

CONFIG, PARAMS = small.model()
MODEL = LLaVA(CONFIG)
SOFT = np.random.default_rng(8).standard_normal((5, 1, 4, 32)).astype(np.float32)
PRESENT = np.random.default_rng(9).random((5, 4)) < 0.6
# Lengths 5 to 9, with and without an image; pad ids on the right.
IDS = np.array(
    [
        [1, 4, IMAGE, 6, 7, 8, 9, 10, 11],
        [1, 12, 13, 14, 15, 0, 0, 0, 0],
        [1, 20, 21, 22, IMAGE, 24, 0, 0, 0],
        [1, 30, 31, 32, 33, 34, 35, 36, 0],
        [1, IMAGE, 41, 42, 43, 44, 45, 0, 0],
    ],
    np.int32,
)
HAS_IMAGE = np.array([True, False, True, False, True])
BATCH = Inputs(IDS, small.images(5), SOFT, PRESENT, HAS_IMAGE)


def single(row: int) -> Inputs:
    """A row as it is generated alone: no padding, no absent prompts, no image where it has none."""
    ids = IDS[row, : np.count_nonzero(IDS[row])][None]
    image = small.images(5)[row : row + 1] if HAS_IMAGE[row] else None
    return Inputs(ids, image, SOFT[row][:, PRESENT[row]])


def test_a_batch_of_mixed_lengths_and_kinds_gives_what_single_runs_give():
    together = generate(MODEL, PARAMS, BATCH, 12)
    for row in range(5):
        alone = generate(MODEL, PARAMS, single(row), 12)
        np.testing.assert_array_equal(together.ids[row], alone.ids[0])
        assert together.length[row] == alone.length[0]
    assert len({tuple(row) for row in np.asarray(together.ids)}) == 5  # the rows are told apart


def test_the_cache_gives_what_reading_all_again_gives_with_prompts_once_at_the_start():
    endless = LLaVA(dataclasses.replace(CONFIG, eos=63))
    answers = np.asarray(generate(endless, PARAMS, BATCH, 6).ids)
    lengths = (IDS != 0).sum(axis=1)
    ids = np.pad(IDS, ((0, 0), (0, 6)))
    for row, length in enumerate(lengths):
        ids[row, length : length + 6] = answers[row]
    inputs = BATCH._replace(ids=ids, length=lengths + 6)
    found = jax.jit(lambda tree: MODEL.apply({"params": tree}, *inputs, method="logits"))(PARAMS)
    for row, end in enumerate(np.sum(found.mask, axis=1)):
        np.testing.assert_array_equal(np.argmax(found.logits[row, end - 7 : end - 1], axis=-1), answers[row])
    without = generate(endless, PARAMS, BATCH._replace(prompts=None, present=None), 6).ids
    assert (answers != without).any()


def test_logits_of_decoding_are_those_of_a_full_pass():
    rng = np.random.default_rng(0)
    embeds = jnp.asarray(rng.standard_normal((2, 8, 32), np.float32))
    mask = np.arange(8) >= np.array([[0], [3]])  # padding on the left
    places = np.maximum(np.arange(8) - np.array([[0], [3]]), 0)

    def read(*arguments):
        return MODEL.apply({"params": PARAMS}, *arguments, method="read")

    cache, steps = empty_cache(CONFIG.llama, 2, 8, jnp.float32), []
    for start, end in ((0, 5), (5, 6), (6, 7), (7, 8)):
        part = slice(start, end)
        logits, cache = read(embeds[:, part], places[:, part], mask[:, part], cache)
        steps.append(logits)
    for logits, end in zip(steps, (5, 6, 7, 8), strict=True):
        whole, _ = read(embeds[:, :end], places[:, :end], mask[:, :end], empty_cache(CONFIG.llama, 2, end, jnp.float32))
        np.testing.assert_allclose(logits, whole, rtol=0, atol=1e-5)


def test_each_row_ends_at_its_own_end():
    plain = generate(MODEL, PARAMS, BATCH, 8)
    end = int(plain.ids[2, 3])  # make what the third row says fourth the end of all
    model = LLaVA(dataclasses.replace(CONFIG, eos=end))
    found = generate(model, PARAMS, BATCH, 8)
    for row in range(5):
        said = list(np.asarray(plain.ids[row]))
        length = said.index(end) + 1 if end in said else 8
        assert found.length[row] == length
        np.testing.assert_array_equal(found.ids[row], said[:length] + [CONFIG.pad] * (8 - length))


def test_one_token_and_a_limit_on_the_sequence():
    np.testing.assert_array_equal(generate(MODEL, PARAMS, BATCH, 1).ids, generate(MODEL, PARAMS, BATCH, 4).ids[:, :1])
    cut = generate(
        LLaVA(dataclasses.replace(CONFIG, max_length=5)), PARAMS, BATCH._replace(prompts=None, present=None), 3
    )
    ids = IDS[1:2, :5]
    np.testing.assert_array_equal(cut.ids[1], generate(MODEL, PARAMS, Inputs(ids), 3).ids[0])


def test_a_narrow_dtype_generates():
    found = generate(LLaVA(CONFIG, dtype=jnp.bfloat16), PARAMS, BATCH, 5)
    assert found.ids.shape == (5, 5)
    assert found.ids.dtype == jnp.int32


def test_draws_follow_from_the_key_and_from_the_chances():
    warm = Sampling(temperature=1.5)
    first, again, other = (generate(MODEL, PARAMS, BATCH, 8, warm, jax.random.key(k)).ids for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    cold = generate(MODEL, PARAMS, BATCH, 8, Sampling(temperature=1e-4), jax.random.key(0)).ids
    np.testing.assert_array_equal(cold, generate(MODEL, PARAMS, BATCH, 8).ids)


def test_top_p_draws_among_the_likeliest_only():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.15, 0.25]]))
    keys = jax.random.split(jax.random.key(0), 2000)

    def share(top_p, temperature=1.0):
        chosen = jax.vmap(lambda key: Sampling(temperature, top_p).choose(logits, key)[0])(keys)
        return np.bincount(chosen, minlength=4) / 2000

    np.testing.assert_allclose(share(1.0), [0.1, 0.5, 0.15, 0.25], atol=0.04)
    np.testing.assert_allclose(share(0.7), [0, 2 / 3, 0, 1 / 3], atol=0.04)
    np.testing.assert_array_equal(share(0.4), [0, 1, 0, 0])
    squared = np.array([0.1, 0.5, 0.15, 0.25]) ** 2
    np.testing.assert_allclose(share(1.0, 0.5), squared / squared.sum(), atol=0.04)


def test_what_cannot_be_generated_is_told():
    with pytest.raises(ValueError, match="max_new"):
        generate(MODEL, PARAMS, BATCH, 0)
    with pytest.raises(ValueError, match="key"):
        generate(MODEL, PARAMS, BATCH, 2, Sampling(temperature=1.0))
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match="top_p"):
            Sampling(**wrong)
