"""The spliced sequence against one that is put together token by token."""

import jax
import numpy as np
import pytest

from lpi_jax.models.llava.splice import IGNORE, IMAGE, Segments, splice

WIDTH = 3


def by_hand(segments: Segments, row: int) -> list[tuple[np.ndarray, int]]:
    """(embedding, label) of every position of a row."""
    ids, length = segments.ids[row], int(segments.length[row])
    tokens = [(segments.embeds[row, 0], segments.labels[row, 0])]
    tokens += [
        (prompt, IGNORE) for prompt, there in zip(segments.prompts[row], segments.present[row], strict=True) if there
    ]
    for place in range(1, length):
        if ids[place] != IMAGE:
            tokens.append((segments.embeds[row, place], segments.labels[row, place]))
        elif segments.has_image[row]:
            tokens += [(token, IGNORE) for token in segments.visual[row]]
    return tokens


def random_segments(rng, batch=6, n=8, prompts=5, visual=4, **changes) -> Segments:
    ids = rng.integers(1, 40, (batch, n), np.int32)
    ids[:, 0] = 1
    length = rng.integers(3, n + 1, batch).astype(np.int32)
    for row in range(batch - 1):  # the last has no image
        ids[row, rng.integers(1, length[row])] = IMAGE
    segments = Segments(
        ids,
        length,
        rng.standard_normal((batch, n, WIDTH), np.float32),
        rng.integers(0, 40, (batch, n), np.int32),
        rng.standard_normal((batch, prompts, WIDTH), np.float32),
        rng.random((batch, prompts)) < 0.6,
        rng.standard_normal((batch, visual, WIDTH), np.float32),
        rng.random(batch) < 0.7,
    )
    return segments._replace(**changes)


@pytest.mark.parametrize("longest", [128, 9, 1])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("prompts", "visual"), [(5, 4), (0, 4), (5, 1), (5, 0), (0, 0)])
def test_a_row_is_what_it_is_by_hand(prompts, visual, left, longest):
    segments = random_segments(np.random.default_rng(prompts * 9 + visual), prompts=prompts, visual=visual)
    found = jax.jit(splice, static_argnums=(1, 2))(segments, longest, left)
    places = min(8 + prompts + visual - (visual > 0), longest)
    assert found.embeds.shape == (6, places, WIDTH)
    assert found.mask.shape == found.positions.shape == found.labels.shape == (6, places)
    for row in range(6):
        tokens = by_hand(segments, row)[:places]  # the first positions are kept
        there = slice(places - len(tokens), None) if left else slice(0, len(tokens))
        mask = np.zeros(places, bool)
        mask[there] = True
        np.testing.assert_array_equal(found.mask[row], mask)
        np.testing.assert_array_equal(found.embeds[row][mask], [embed for embed, _ in tokens])
        np.testing.assert_array_equal(found.labels[row][mask], [label for _, label in tokens])
        np.testing.assert_array_equal(found.positions[row][mask], range(len(tokens)))
        assert not found.embeds[row][~mask].any()
        assert (found.labels[row][~mask] == IGNORE).all()


def test_padding_passes_no_gradient_and_no_number_that_is_none():
    segments = random_segments(np.random.default_rng(1))
    embeds = np.where((np.arange(8) < segments.length[:, None])[..., None], segments.embeds, np.nan)
    prompts = np.where(segments.present[..., None], segments.prompts, np.nan)

    def total(prompts):
        return splice(segments._replace(embeds=embeds, prompts=prompts), 128).embeds.sum()

    value, gradient = jax.value_and_grad(total)(prompts)
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, np.broadcast_to(segments.present[..., None], prompts.shape))


def test_a_low_limit_removes_the_answer_entirely():
    segments = random_segments(np.random.default_rng(2))
    labels = np.full_like(segments.labels, IGNORE)
    labels[:, 2:] = 7
    found = splice(segments._replace(labels=labels, present=np.ones((6, 5), bool)), 6)
    assert found.mask.all()
    assert (found.labels == IGNORE).all()
