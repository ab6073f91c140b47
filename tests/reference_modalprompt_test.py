"""Holds ModalPrompt's NumPy reference against numbers worked by hand and against finite differences."""

import math

import numpy as np
import pytest

from tests.reference import gradients
from tests.reference import modalprompt as reference

SOFT = -1  # where a row of the assembled input comes from, beside the ids themselves
PATCH = -2


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def random_case(tasks=3, tokens=2, width=4, joint=3, batch=5):
    """(image, text, prompts, transforms), all of them random numbers of seed 0."""
    rng = np.random.default_rng(0)
    transforms = {
        "hidden": {"kernel": rng.normal(size=(tasks, width, width)), "bias": rng.normal(size=(tasks, width))},
        "out": {"kernel": rng.normal(size=(tasks, width, joint)), "bias": rng.normal(size=(tasks, joint))},
    }
    image, text = rng.normal(size=(2, batch, joint))
    return image, text, rng.normal(size=(tasks, tokens, width)), transforms


# ---- prototypes and scores -------------------------------------------------------------------------------------------


def test_a_prototype_is_the_mean_behind_the_network_and_not_the_network_of_the_mean():
    ones = {
        "hidden": {"kernel": np.ones((2, 1, 1)), "bias": np.zeros((2, 1))},
        "out": {"kernel": np.array([[[1.0]], [[3.0]]]), "bias": np.array([[0.0], [-1.0]])},
    }
    prompts = [[[0.0], [2.0]], [[1.0], [1.0]]]
    expected = [[sigmoid(2)], [3 * sigmoid(1) - 1]]  # silu(2) / 2 = sigmoid(2), where silu of the mean is sigmoid(1)
    np.testing.assert_allclose(reference.prototypes(prompts, ones), expected, rtol=1e-12)


def test_kernels_are_multiplied_from_the_right_and_biases_come_after():
    transforms = {
        "hidden": {"kernel": [[[0.0, 5.0], [0.0, 0.0]]], "bias": [[50.0, 0.0]]},
        "out": {"kernel": [[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]], "bias": [[0.0, 7.0, 0.0]]},
    }
    # hidden = (50, 5 * 20), silu of which is itself: out = (50, 100 + 7, 100)
    np.testing.assert_allclose(reference.prototypes([[[20.0, 9.0]]], transforms), [[50, 107, 100]], rtol=1e-12)


def test_scores_weigh_the_two_cosines():
    prototypes = [[2.0, 0.0], [0.0, 0.5], [3.0, 4.0]]
    image, text = [[5.0, 0.0], [0.0, 0.0]], [[0.0, 0.1], [-1.0, 0.0]]
    np.testing.assert_allclose(
        reference.scores(image, text, prototypes), [[0.5, 0.5, 0.7], [-0.5, 0, -0.3]], atol=1e-12
    )
    np.testing.assert_allclose(
        reference.scores(image, text, prototypes, share=0.75)[0], [0.75, 0.25, 0.75 * 0.6 + 0.25 * 0.8], atol=1e-12
    )


# ---- selection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "training", "inference"),
    [
        ([0.1, 0.5, 0.3, 0.9], [3, 2, 4], [3, 2, 4]),
        ([0.1, 0.5, 0.3, 0.2], [3, 2, 4], [4, 3, 2]),
        ([0.9, 0.1], [1, 2], [2, 1]),
        ([0.4], [1], [1]),
        ([0.9, 0.1, 0.2], [2, 1, 3], [2, 3, 1]),
    ],
)
def test_three_sets_stand_in_the_order_of_the_specification(scores, training, inference):
    """Tasks are numbered from 1 in these tables, as the specification does."""
    np.testing.assert_array_equal(reference.select([scores], 3, training=True) + 1, [training])
    np.testing.assert_array_equal(reference.select([scores], 3, training=False) + 1, [inference])


@pytest.mark.parametrize(
    ("k", "scores", "training", "inference"),
    [
        (1, [0.9, 0.1, 0.2], [3], [1]),
        (2, [0.9], [1], [1]),
        (2, [0.9, 0.1], [1, 2], [2, 1]),
        (2, [0.1, 0.9, 0.2], [2, 3], [3, 2]),
    ],
)
def test_fewer_sets_keep_the_current_task_in_training(k, scores, training, inference):
    np.testing.assert_array_equal(reference.select([scores], k, training=True) + 1, [training])
    np.testing.assert_array_equal(reference.select([scores], k, training=False) + 1, [inference])


def test_every_sample_has_its_own_sets_and_a_tie_goes_to_the_earlier_task():
    chosen = reference.select([[0.1, 0.5, 0.3, 0.9], [0.5, 0.3, 0.1, 0.9]], 3, training=True)
    np.testing.assert_array_equal(chosen, [[2, 1, 3], [1, 0, 3]])
    np.testing.assert_array_equal(reference.select([[0.5, 0.5, 0.5, 0.5]], 3, training=True), [[1, 0, 3]])
    np.testing.assert_array_equal(reference.select([[0.5, 0.5, 0.5, 0.5]], 3, training=False), [[2, 1, 0]])


# ---- alignment -------------------------------------------------------------------------------------------------------


def test_the_alignment_losses_are_one_minus_the_mean_cosine():
    found = reference.losses([[3.0, 0.0], [0.0, 2.0]], [[-1.0, 0.0], [3.0, 4.0]], [10.0, 0.0])
    assert found == pytest.approx({"align_image": 0.5, "align_text": 1.2})


def test_the_gradients_are_those_of_finite_differences_and_zero_for_earlier_tasks():
    image, text, prompts, transforms = random_case()
    to_prompts, to_transforms = reference.alignment_gradients(image, text, prompts, transforms)

    def loss(tree):
        return sum(reference.losses(image, text, reference.prototypes(tree["prompts"], tree)[-1]).values())

    slow = gradients.finite_differences(loss, {"prompts": prompts, **transforms})
    np.testing.assert_allclose(to_prompts, slow["prompts"], rtol=1e-6, atol=1e-8)
    assert not to_prompts[:-1].any()
    assert to_prompts[-1].any()
    for part, leaves in to_transforms.items():
        for name, gradient in leaves.items():
            np.testing.assert_allclose(gradient, slow[part][name], rtol=1e-6, atol=1e-8)
            assert not gradient[:-1].any()
            assert gradient[-1].any()


def test_the_best_prototype_points_to_the_sum_of_the_two_mean_directions():
    image, text, prompts, transforms = random_case()
    means = [(rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0) for rows in (image, text)]
    best = means[0] + means[1]
    constant = {part: {name: np.zeros_like(leaf) for name, leaf in tree.items()} for part, tree in transforms.items()}
    constant["out"]["bias"][-1] = 5 * best  # silu(0) = 0: the prototype is this bias, whatever the prompts are
    _, found = reference.alignment_gradients(image, text, prompts, constant)
    np.testing.assert_allclose(found["out"]["bias"], 0, atol=1e-12)
    lowest = 2 - np.linalg.norm(best)
    assert sum(reference.losses(image, text, 5 * best).values()) == pytest.approx(lowest)
    assert sum(reference.losses(image, text, best + np.array([0.1, 0, 0])).values()) > lowest


# ---- the language model's input and loss -----------------------------------------------------------------------------


def assembled(ids, soft, patches, **options):
    """(where each row comes from, labels): the id, SOFT or PATCH; the labels given are 100 + place."""
    table = np.arange(10.0)[:, None]
    labels = [100 + place for place in range(len(ids))]
    rows, targets = reference.assemble(ids, labels, table, [[SOFT]] * soft, [[PATCH]] * patches, **options)
    assert rows.shape == (len(targets), 1)
    return rows[:, 0].tolist(), targets.tolist()


def test_prompts_follow_bos_and_patches_take_the_place_of_the_image():
    rows, labels = assembled([1, 7, reference.IMAGE, 8, 9], soft=2, patches=3)
    assert rows == [1, SOFT, SOFT, 7, PATCH, PATCH, PATCH, 8, 9]
    assert len(rows) == 5 - 1 + 3 + 2
    assert labels == [100, -100, -100, 101, -100, -100, -100, 103, 104]


def test_an_image_right_behind_bos_comes_behind_the_prompts():
    assert assembled([1, reference.IMAGE, 8], soft=1, patches=2)[0] == [1, SOFT, PATCH, PATCH, 8]


def test_without_prompts_or_image_the_text_is_left_as_it_is():
    assert assembled([1, 7, 8], soft=0, patches=3) == ([1, 7, 8], [100, 101, 102])
    assert assembled([1, 7, 8], soft=1, patches=3)[0] == [1, SOFT, 7, 8]


def test_what_is_too_long_keeps_its_front():
    assert assembled([1, 7, reference.IMAGE, 8, 9], soft=2, patches=3, max_length=5)[0] == [1, SOFT, SOFT, 7, PATCH]


def test_cross_entropy_is_shifted_and_averaged_over_all_supervised_tokens_of_the_batch():
    three, even = [0.0, math.log(3)], [5.0, 5.0]  # probabilities 1/4 and 3/4, and 1/2 each
    logits = [[three, even, [9.0, 0.0]], [three, [9.0, 0.0]]]
    # Position 0's logits judge label 1, and so on: label 0 of a sample is never judged, the last logits judge nothing.
    first, second, third = math.log(4 / 3), math.log(2), math.log(4)
    assert reference.cross_entropy(logits, [[0, 1, 0], [0, 0]]) == pytest.approx((first + second + third) / 3)
    assert reference.cross_entropy(logits, [[0, 1, 0], [0, reference.IGNORE]]) == pytest.approx((first + second) / 2)
    assert reference.cross_entropy(logits, [[0, reference.IGNORE, 1], [0, 0]]) == pytest.approx((second + third) / 2)
    assert math.isnan(reference.cross_entropy(logits, [[1, -100, -100], [1, -100]]))


@pytest.mark.parity
def test_cross_entropy_equals_torch():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 6, 5)), rng.integers(0, 5, size=(3, 6))
    labels[:, :2], labels[1, 4:] = reference.IGNORE, reference.IGNORE
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits[:, :-1].reshape(-1, 5)), torch.tensor(labels[:, 1:].reshape(-1))
    )
    assert reference.cross_entropy(logits, labels) == pytest.approx(float(theirs), abs=1e-12)


# ---- learning rate and optimiser -------------------------------------------------------------------------------------


def test_the_rate_starts_whole_falls_to_zero_and_comes_back_along_a_logarithm():
    rates = [reference.ds_log_const(step, 1000, 2e-4, 0.03) for step in range(1000)]
    assert rates[:5] == pytest.approx([2e-4, 0, 4.076e-5, 6.460e-5, 8.152e-5], rel=2e-4)
    assert rates[2] == pytest.approx(2e-4 * math.log(2) / math.log(30))
    assert rates[29] == pytest.approx(1.9801e-4, rel=1e-4)
    assert rates[30:] == [2e-4] * 970
    assert reference.ds_log_const(30, 1001, 2e-4, 0.03) == pytest.approx(2e-4 * math.log(30) / math.log(31))


def test_a_short_task_has_a_warm_up_of_two_steps():
    assert [reference.ds_log_const(step, 4, 2e-4, 0.03) for step in range(4)] == pytest.approx([2e-4, 0, 2e-4, 2e-4])


def test_gradients_are_clipped_together_and_the_first_step_has_the_size_of_the_rate():
    parameters, given = {"a": np.array([1.0, 1.0]), "b": np.array(2.0)}, {"a": np.array([3.0, 0.0]), "b": np.array(-4)}
    new, state = reference.adamw(parameters, given, None, lr=0.1)
    np.testing.assert_allclose(new["a"], [0.9, 1.0], rtol=1e-7)
    np.testing.assert_allclose(new["b"], 2.1, rtol=1e-7)
    steps, first, second = state
    assert steps == 1
    np.testing.assert_allclose(first["a"], [0.06, 0])  # 3 / 5, a tenth of it
    np.testing.assert_allclose(second["b"], 0.001 * 0.64)
    np.testing.assert_array_equal(parameters["a"], [1, 1])


def test_the_second_step_uses_the_corrected_moments_and_a_small_gradient_is_not_clipped():
    parameters, state = reference.adamw({"w": np.array(0.0)}, {"w": np.array(3.0)}, None, lr=0.0)
    assert parameters["w"] == 0
    parameters, _ = reference.adamw(parameters, {"w": np.array(0.5)}, state, lr=1.0)
    mean, square = (0.9 * 0.1 * 1 + 0.1 * 0.5) / 0.19, (0.999 * 0.001 * 1 + 0.001 * 0.25) / (1 - 0.999**2)
    assert parameters["w"] == pytest.approx(-mean / math.sqrt(square), rel=1e-7)


def test_weight_decay_is_no_part_of_the_gradient():
    still, _ = reference.adamw({"w": np.array(2.0)}, {"w": np.array(0.0)}, None, lr=0.1, weight_decay=0.5)
    assert still["w"] == pytest.approx(2 - 0.1 * 0.5 * 2)
    moved, _ = reference.adamw({"w": np.array(2.0)}, {"w": np.array(0.3)}, None, lr=0.1, weight_decay=0.5)
    assert moved["w"] == pytest.approx(1.9 - 0.1, rel=1e-7)


@pytest.mark.parity
def test_five_steps_equal_torch():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    rng = np.random.default_rng(0)
    ours, state = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}, None
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in ours.items()}
    optimiser = torch.optim.AdamW(theirs.values(), weight_decay=0.1)
    for step in range(5):
        given = {name: rng.normal(size=value.shape) for name, value in ours.items()}
        rate = reference.ds_log_const(step, 100, 0.01)
        ours, state = reference.adamw(ours, given, state, rate, weight_decay=0.1)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(given[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name].detach().numpy(), atol=1e-7)
