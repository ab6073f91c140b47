"""Prototypes, scores, choices and alignment losses against hand-worked cases, the NumPy reference and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.methods.modalprompt import losses, prototypes, scores, select
from lpi_jax.methods.prototypes import select_padded
from tests.reference import modalprompt as reference
from tests.support.small_modalprompt import CLOSE, B, C, D, drawn, through, unit

# ---- which tasks are chosen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "k", "training", "serving"),
    [
        ((0.1, 0.5, 0.3, 0.9), 3, [3, 2, 4], [3, 2, 4]),
        ((0.1, 0.5, 0.3, 0.2), 3, [3, 2, 4], [4, 3, 2]),
        ((0.5, 0.1, 0.3, 0.2), 3, [3, 1, 4], [4, 3, 1]),
        ((0.9, 0.1), 3, [1, 2], [2, 1]),
        ((0.9, 0.1, 0.5), 3, [2, 1, 3], [2, 3, 1]),
        ((0.4,), 3, [1], [1]),
        ((0.4,), 2, [1], [1]),
        ((0.9, 0.1), 2, [1, 2], [2, 1]),
        ((0.1, 0.9, 0.5), 2, [2, 3], [3, 2]),
        ((0.9, 0.1, 0.5), 1, [3], [1]),
        ((0.9, 0.1, 0.5), 5, [1, 2, 3], [2, 3, 1]),
    ],
)
def test_the_order_of_what_is_chosen_is_as_worked_by_hand(row, k, training, serving):
    rows = np.array([row], np.float32)
    for mode, expected in ((True, training), (False, serving)):
        found = select(rows, k, training=mode)
        assert found.dtype == np.int32
        assert (found[0] + 1).tolist() == expected


def test_of_equal_scores_the_earlier_task_counts_as_the_better():
    rows = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
    assert select(rows, 2, training=False).tolist() == [[1, 0]]
    assert select(rows, 3, training=True).tolist() == [[1, 0, 3]]


def by_rule(row, k, training):
    """One sample's choice, by sorting."""
    tasks = list(range(len(row)))
    if not training:
        return sorted(tasks, key=lambda i: row[i])[-k:]
    if len(tasks) < k or k == 1:
        return tasks[-k:]
    return [*sorted(tasks[:-1], key=lambda i: row[i])[-(k - 1) :], tasks[-1]]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_choice_is_the_rule_and_the_same_under_a_larger_capacity(k, count):
    rng = np.random.default_rng([k, count])
    rows = rng.uniform(-1, 1, (9, count)).astype(np.float32)
    room = np.concatenate([rows, rng.uniform(-1, 1, (9, 12 - count)).astype(np.float32)], 1)
    for training in (False, True):
        expected = [by_rule(row, k, training) for row in rows]
        np.testing.assert_array_equal(select(rows, k, training), expected)
        choose = jax.jit(lambda rows, count, mode=training: select_padded(rows, count, k, mode))
        tasks, there = choose(room, count)
        assert tasks.shape == there.shape == (9, k)
        kept = min(k, count)
        np.testing.assert_array_equal(tasks[:, k - kept :], expected)
        np.testing.assert_array_equal(there, np.broadcast_to(np.arange(k) >= k - kept, (9, k)))


# ---- scores, prototypes, losses --------------------------------------------------------------------------------------


def test_a_prototype_is_the_mean_behind_the_network_and_not_before_it():
    stacked = drawn(3, 4)
    found = prototypes(stacked["prompts"], stacked["transform"])
    assert found.shape == (4, C)
    assert found.dtype == np.float32
    for number in range(4):
        one = jax.tree.map(lambda leaf, n=number: leaf[n].astype(np.float64), stacked)
        expected = through(one["transform"], one["prompts"]).mean(0)
        np.testing.assert_allclose(found[number], expected, **CLOSE)
        assert np.abs(through(one["transform"], one["prompts"].mean(0)) - expected).max() > 1e-2


def test_prototypes_and_scores_are_float32_whatever_comes_in():
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), drawn(3, 2))
    found = prototypes(stacked["prompts"], stacked["transform"])
    assert found.dtype == jnp.float32
    rows = jnp.ones((3, C), jnp.bfloat16)
    assert scores(rows, rows, found).dtype == jnp.float32
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), stacked)
    np.testing.assert_array_equal(found, prototypes(exact["prompts"], exact["transform"]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_score_is_the_images_share_of_its_cosine_and_the_texts_rest(share):
    rng = np.random.default_rng(4)
    image, text, rows = (rng.normal(size=(n, C)).astype(np.float32) for n in (B, B, 3))
    expected = share * unit(image) @ unit(rows).T + (1 - share) * unit(text) @ unit(rows).T
    np.testing.assert_allclose(scores(image, text, rows, share), expected, **CLOSE)
    if share == 0.5:
        np.testing.assert_array_equal(scores(image, text, rows), scores(image, text, rows, share))


def test_the_losses_are_one_less_the_mean_cosines_and_least_along_the_mean_direction():
    rng = np.random.default_rng(5)
    image, text, row = (rng.normal(size=shape).astype(np.float32) for shape in ((B, C), (B, C), C))

    def total(prototype):
        return sum(losses(image, text, prototype).values())

    found = losses(image, text, row)
    assert found.keys() == {"align_image", "align_text"}
    np.testing.assert_allclose(found["align_image"], 1 - (unit(image) @ unit(row)).mean(), **CLOSE)
    np.testing.assert_allclose(found["align_text"], 1 - (unit(text) @ unit(row)).mean(), **CLOSE)
    best = 3 * (unit(image).mean(0) + unit(text).mean(0))
    np.testing.assert_allclose(jax.grad(total)(best), np.zeros(C), atol=1e-6)
    assert all(total(best) < total(best + 0.1 * rng.normal(size=C)) for _ in range(20))
    np.testing.assert_allclose(total(best), 2 - np.linalg.norm(best) / 3, **CLOSE)


def test_features_of_length_zero_have_cosines_of_zero_and_no_gradient():
    nothing, row = np.zeros((2, C), np.float32), np.ones(C, np.float32)
    np.testing.assert_array_equal(scores(nothing, nothing, row[None]), np.zeros((2, 1)))
    gradient = jax.grad(lambda p: sum(losses(np.ones((2, C), np.float32), nothing, p).values()))(np.zeros(C))
    assert np.isfinite(gradient).all()


def test_prototypes_scores_and_losses_are_pytorchs():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    stacked, rng = drawn(6, 3), np.random.default_rng(6)
    image, text = (rng.normal(size=(B, C)).astype(np.float32) for _ in range(2))
    image[0] *= 1e-9
    theirs = []
    for number in range(3):
        first, second = torch.nn.Linear(D, D), torch.nn.Linear(D, C)
        for layer, name in ((first, "hidden"), (second, "out")):
            own = stacked["transform"][name]
            layer.weight.data = torch.tensor(own["kernel"][number].T.copy())
            layer.bias.data = torch.tensor(own["bias"][number])
        network = torch.nn.Sequential(first, torch.nn.SiLU(), second)
        theirs.append(network(torch.tensor(stacked["prompts"][number])).mean(0))
    theirs = torch.stack(theirs).detach()
    ours = prototypes(stacked["prompts"], stacked["transform"])
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    v, q = (torch.tensor(rows)[:, None] for rows in (image, text))
    alike = [torch.cosine_similarity(rows, theirs[None], dim=-1) for rows in (v, q)]
    np.testing.assert_allclose(scores(image, text, ours), (alike[0] + alike[1]) / 2, **CLOSE)
    found = losses(image, text, ours[1])
    np.testing.assert_allclose(found["align_image"], 1 - alike[0][:, 1].mean(), **CLOSE)
    np.testing.assert_allclose(found["align_text"], 1 - alike[1][:, 1].mean(), **CLOSE)


@pytest.mark.parametrize("seed", range(4))
def test_prototypes_scores_choices_losses_and_their_gradients_are_the_references(seed):
    rng = np.random.default_rng([13, seed])
    tasks, share = int(rng.integers(1, 7)), float(rng.uniform())
    stacked = drawn([13, seed], tasks)
    image, text = (rng.normal(size=(B, C)).astype(np.float32) for _ in range(2))
    ours = prototypes(stacked["prompts"], stacked["transform"])
    theirs = reference.prototypes(stacked["prompts"], stacked["transform"])
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    ranked = scores(image, text, ours, share)
    np.testing.assert_allclose(ranked, reference.scores(image, text, theirs, share), **CLOSE)
    for k in (1, 2, 3, 5):
        for training in (False, True):
            expected = reference.select(np.asarray(ranked), k, training)
            np.testing.assert_array_equal(select(ranked, k, training), expected)

    def total(tree):
        return sum(losses(image, text, prototypes(tree["prompts"], tree["transform"])[-1]).values())

    assert total(stacked) == pytest.approx(sum(reference.losses(image, text, theirs[-1]).values()), rel=1e-5)
    expected = reference.alignment_gradients(image, text, stacked["prompts"], stacked["transform"])
    gradient = jax.grad(total)(stacked)
    np.testing.assert_allclose(gradient["prompts"], expected[0], **CLOSE)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **CLOSE), gradient["transform"], expected[1])
