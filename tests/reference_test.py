"""Holds the NumPy reference itself against numbers worked by hand, so that two equal mistakes cannot agree."""

import math

import numpy as np
import pytest

from tests.reference import captions, clustering, continual, gradients, losses, prompts, ranks, sgd, towers

NAN = math.nan


def softplus(x):
    return math.log(1 + math.exp(x))


# ---------------------------------------------------------------------------------------------------------- prompts


def test_expand_is_the_rank_sum_divided_by_the_rank():
    factors = {
        "layer": [[1, 2], [0, -1]],
        "token_visual": [[3, 1]],
        "token_textual": [[1, 1], [0, 2]],
        "width_visual": [[1, 0], [2, 4]],
        "width_textual": [[1, 1]],
    }
    visual, textual = prompts.expand(factors)
    np.testing.assert_allclose(visual, [[[1.5, 7]], [[0, -2]]])
    np.testing.assert_allclose(textual, [[[1.5], [2]], [[-0.5], [-1]]])


def test_interaction_reads_the_bias_from_the_last_row_of_e2():
    e1, e2, e3 = [[2.0]], [[1.0], [0.0], [5.0]], [[1.0], [0.0], [2.0]]
    back = {"E1": [[1.0]], "E2": np.zeros((4, 1)), "E3": np.ones((2, 1))}
    parameters = {"visual_to_textual": {"E1": e1, "E2": e2, "E3": e3}, "textual_to_visual": back}
    visual, textual = np.array([[[4.0, 3.0]]]), np.array([[[7.0, 7.0, 1.0]]])
    _, new_textual = prompts.interact(visual, textual, parameters, a=1.0)
    np.testing.assert_allclose(new_textual, [[[0, -math.sqrt(1.5), math.sqrt(1.5)]]], rtol=1e-7)  # LN of 18, 0, 36


def test_interaction_of_weight_zero_is_a_layer_norm_of_each_prompt():
    zero = {"E1": [[0.0]], "E2": np.zeros((3, 1)), "E3": np.zeros((2, 1))}
    parameters = {"visual_to_textual": zero, "textual_to_visual": zero}
    visual, textual = prompts.interact([[[100.0, 300.0]]], [[[8.0, -8.0]]], parameters, a=0.0)
    np.testing.assert_allclose(visual, [[[-1, 1]]], rtol=1e-6)
    np.testing.assert_allclose(textual, [[[1, -1]]], rtol=1e-6)


# ----------------------------------------------------------------------------------------------------------- towers


def one_block(width=2):
    """A block whose attention is uniform and whose MLP is silent: x_s + mean over the seen positions of LN(x)."""
    name, zero, eye = "text_model.encoder.layers.", np.zeros((width, width)), np.eye(width)
    weights = {}
    for layer in range(2):
        for part, matrix in {"q_proj": zero, "k_proj": zero, "v_proj": eye, "out_proj": eye}.items():
            weights[f"{name}{layer}.self_attn.{part}.weight"] = matrix
            weights[f"{name}{layer}.self_attn.{part}.bias"] = np.zeros(width)
        for part in ("mlp.fc1", "mlp.fc2"):
            weights[f"{name}{layer}.{part}.weight"], weights[f"{name}{layer}.{part}.bias"] = zero, np.zeros(width)
        for part in ("layer_norm1", "layer_norm2"):
            weights[f"{name}{layer}.{part}.weight"] = np.ones(width)
            weights[f"{name}{layer}.{part}.bias"] = np.zeros(width)
    return weights


def test_quick_gelu_and_layer_norm_have_their_known_values():
    assert towers.quick_gelu(np.float64(1)) == pytest.approx(1 / (1 + math.exp(-1.702)))
    np.testing.assert_allclose(
        towers.layer_norm(np.array([1.0, 3.0]), 2.0, 5.0), [5 - 2 / math.sqrt(1 + 1e-5), 5 + 2 / math.sqrt(1 + 1e-5)]
    )


def test_uniform_attention_averages_what_a_position_may_see():
    x = np.array([[1000.0, -1000.0], [-2000.0, 2000.0], [3000.0, -3000.0]])  # LN: (1, -1), (-1, 1), (1, -1)
    name = "text_model.encoder.layers.0"
    causal = towers.block(x, one_block(), name, heads=1, causal=True) - x
    np.testing.assert_allclose(causal, [[1, -1], [0, 0], [1 / 3, -1 / 3]], atol=1e-6)
    full = towers.block(x, one_block(), name, heads=2, causal=False) - x
    np.testing.assert_allclose(full, [[1 / 3, -1 / 3]] * 3, atol=1e-6)


@pytest.mark.parametrize(("mode", "last"), [("add", [1 / 3, -1 / 3]), ("replace", [-1 / 3, 1 / 3])])
def test_deeper_prompts_meet_positions_one_to_p_just_before_their_block(mode, last):
    x = np.array([[-1000.0, 1000.0], [3000.0, -3000.0], [1000.0, -1000.0]])
    deep = np.array([[[9.0, 9.0]], [[-2000.0, 2000.0]]])  # row 0 is the input's and must not be seen here
    without = towers.blocks(x, one_block(), "text_model", 1, True, deep, 1, mode)
    seen = towers.blocks(x, one_block(), "text_model", 1, True, deep, 2, mode)
    # Block 1 sees, in sign: add (-, 3 - 2 = +, +), replace (-, -, +).
    np.testing.assert_allclose(seen[0], without[0], atol=1e-6)
    before = towers.blocks(x, one_block(), "text_model", 1, True, None, 0, mode)
    np.testing.assert_allclose(before, without)
    np.testing.assert_allclose(seen[2] - x[2] - [1 / 3, -1 / 3], last, atol=1e-6)
    state = seen[1] - (x[1] if mode == "add" else 0) - deep[1, 0]
    np.testing.assert_allclose(state, [0, 0] if mode == "add" else [-1, 1], atol=1e-6)


def test_patches_run_row_by_row_and_kernels_are_oihw():
    image = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    kernel = np.zeros((1, 3, 2, 2))
    kernel[0, 2, 1, 0] = 1  # the pixel in row 1, column 0, channel 2
    np.testing.assert_allclose(towers.embed_patches(image, kernel), [[image[1, 0, 2]], [image[1, 2, 2]]])


def test_the_image_feature_is_the_normed_class_token_behind_the_head():
    ones, zeros = np.ones(2), np.zeros(2)
    weights = {
        "vision_model.embeddings.class_embedding": np.array([100.0, 0.0]),
        "vision_model.embeddings.patch_embedding.weight": np.zeros((2, 3, 1, 1)),
        "vision_model.embeddings.position_embedding.weight": np.array([[200.0, 100.0], [0.0, 0.0]]),
        "vision_model.pre_layrnorm.weight": ones,
        "vision_model.pre_layrnorm.bias": zeros,
        "vision_model.post_layernorm.weight": ones,
        "vision_model.post_layernorm.bias": zeros,
        "visual_projection.weight": np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]),
    }
    feature = towers.encode_image(weights, np.zeros((1, 1, 1, 3)), heads=1)
    np.testing.assert_allclose(feature, [[0.6, -0.8, 0]], rtol=1e-6)


def test_the_text_feature_is_pooled_at_the_highest_id_and_prompts_replace_placeholders_only():
    weights = one_block() | {
        "text_model.embeddings.token_embedding.weight": np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0], [9.0, 1.0]]),
        "text_model.embeddings.position_embedding.weight": np.zeros((5, 2)),
        "text_model.final_layer_norm.weight": np.ones(2),
        "text_model.final_layer_norm.bias": np.zeros(2),
        "text_projection.weight": np.array([[3.0, 0.0], [0.0, 4.0]]),
    }
    ids = np.array([[1, 2, 2, 3, 0]])
    np.testing.assert_allclose(towers.encode_text(weights, ids, heads=1), [[0.6, -0.8]], rtol=1e-3)
    # Two prompts take the placeholders' place; a third would reach the EOT token itself and turn its sign.
    two, three = np.zeros((1, 2, 2)), np.full((1, 3, 2), [0.0, 50.0])
    np.testing.assert_allclose(towers.encode_text(weights, ids, heads=1, prompts=two), [[0.6, -0.8]], rtol=1e-3)
    np.testing.assert_allclose(towers.encode_text(weights, ids, heads=1, prompts=three), [[-0.6, 0.8]], rtol=1e-3)


# ----------------------------------------------------------------------------------------------------------- losses


def test_retrieval_averages_the_rows_and_the_columns():
    eye = np.eye(2)
    assert losses.retrieval_loss(eye, eye, math.log(3)) == pytest.approx(math.log(4 / 3))
    both_alike = np.array([[1.0, 0.0], [1.0, 0.0]])
    expected = ((math.log(4 / 3) + math.log(4)) / 2 + math.log(2)) / 2
    assert losses.retrieval_loss(both_alike, eye, math.log(3)) == pytest.approx(expected)


def test_alignment_scores_layers_against_layers():
    visual = np.array([[[0.0, 0.02]], [[0.02, 0.02]]])  # vbar = 0.01, 0.02
    textual = np.array([[[0.01, 0.01, 0.01]], [[0.03, -0.03, 0.0]]])  # xbar = 0.01, 0
    rows = (softplus(1) - 1 + softplus(2)) / 2  # scores (1, 0) and (2, 0)
    columns = (softplus(1) + math.log(2)) / 2  # scores (1, 2) and (0, 0)
    assert losses.alignment_loss(visual, textual, "released") == pytest.approx((rows + columns) / 2)
    assert losses.alignment_loss(visual, 1 + visual, "cosine") == pytest.approx(math.log(2))  # one token: all cos = 1
    crossed = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    assert losses.alignment_loss(crossed, crossed, "cosine") == pytest.approx(0, abs=1e-12)
    assert losses.alignment_loss(crossed, crossed[::-1], "cosine") == pytest.approx(100)


def test_task_distance_of_two_equal_but_dissimilar_tasks():
    prompt, similarity = np.ones((2, 1, 2, 3)), np.array([[1.0, 0.1], [0.1, 1.0]])
    assert losses.task_loss(prompt, similarity, "intended") == pytest.approx(softplus(10))
    assert losses.task_loss(prompt, similarity, "released") == pytest.approx(softplus(-1) + softplus(1))


def test_task_distance_of_three_orthogonal_tasks():
    prompt = np.eye(3).reshape(3, 1, 1, 3)
    similarity = np.array([[1.0, 0.5, 0.4], [0.5, 1.0, 0.0], [0.4, 0.0, 1.0]])  # 0.4 is not above the threshold
    assert losses.task_loss(prompt, similarity, "intended") == pytest.approx((1.5 + 1.5 + 1) / 3 * math.log(2))
    near, own, far = softplus(-0.5), softplus(-1), softplus(0.5)
    expected = (2 * ((own + near) / 2 + far) + own + far) / 3
    assert losses.task_loss(prompt, similarity, "released") == pytest.approx(expected)


@pytest.mark.parametrize(("form", "diagonal", "other"), [("intended", 0, math.log(2)), ("released", None, None)])
def test_task_distance_without_negatives_counts_that_side_as_zero(form, diagonal, other):
    diagonal, other = (softplus(-1), softplus(-0.5)) if form == "released" else (diagonal, other)
    assert losses.task_loss(np.eye(2).reshape(2, 1, 1, 2), np.ones((2, 2)), form) == pytest.approx(
        (diagonal + other) / 2
    )
    assert losses.task_loss(np.ones((1, 1, 1, 2)), np.ones((1, 1)), form) == pytest.approx(diagonal)


def test_total_weighs_alignment_and_task_distance_with_a_tenth():
    assert losses.total(1, 2, 3, 5) == pytest.approx(1.6)
    assert losses.total(1, 2) == pytest.approx(1.2)


# ---------------------------------------------------------------------------------------------- gradients, optimiser


def test_finite_differences_of_a_cubic():
    point = {"a": np.array([1.0, 2.0]), "b": np.array([[3.0]])}
    gradient = gradients.finite_differences(lambda p: (p["a"] ** 3).sum() * p["b"][0, 0], point)
    np.testing.assert_allclose(gradient["a"], [9, 36], rtol=1e-8)
    np.testing.assert_allclose(gradient["b"], [[9]], rtol=1e-8)
    np.testing.assert_array_equal(point["a"], [1, 2])


def test_sgd_decays_before_the_momentum():
    p, g = {"w": np.array(1.0)}, {"w": np.array(1.0)}
    p, v = sgd.step(p, g, None, lr=0.1, momentum=0.5, weight_decay=0.1)
    assert p["w"] == pytest.approx(0.89)
    p, v = sgd.step(p, g, v, lr=0.1, momentum=0.5, weight_decay=0.1)
    assert v["w"] == pytest.approx(1.639)
    assert p["w"] == pytest.approx(0.7261)


def test_the_rate_falls_once_an_epoch_along_a_cosine():
    assert [sgd.learning_rate(e, 4, 0.05) for e in range(4)] == pytest.approx(
        [0.05, 0.025 * (1 + math.sqrt(0.5)), 0.025, 0.025 * (1 - math.sqrt(0.5))]
    )
    gone = sgd.train({"w": np.array(0.0)}, lambda p, n: {"w": np.array(1.0)}, 2, 2, lr=1.0, momentum=0, weight_decay=0)
    assert [float(p["w"]) for p in gone] == pytest.approx([-1, -2, -2.5, -3])


# --------------------------------------------------------------------------------------------- clustering and routing


def test_lloyd_moves_centres_to_means_and_leaves_an_empty_one():
    points = np.array([[0.0], [2.0], [10.0], [14.0]])
    centres = clustering.lloyd(points, [[0.0], [9.0], [100.0]], iterations=1)
    np.testing.assert_allclose(centres, [[1], [12], [100]])
    assert clustering.inertia(points, centres) == pytest.approx(1 + 1 + 4 + 4)
    np.testing.assert_array_equal(clustering.assign([[5.0]], [[4.0], [6.0]]), [0])


def test_routing_is_by_l1_where_clustering_is_by_l2():
    query = np.array([[0.0, 0.0]])
    centres = np.array([[[3.0, 0.0], [9.0, 9.0]], [[2.0, 2.0], [8.0, 8.0]]])
    np.testing.assert_array_equal(clustering.route(query, centres), [0])
    np.testing.assert_array_equal(clustering.assign(query, centres[:, 0]), [1])


def test_routing_gives_a_tie_to_the_earlier_task():
    np.testing.assert_array_equal(clustering.route([[0.0, 0.0]], [[[1.0, 1.0]], [[2.0, 0.0]], [[0.0, 2.0]]]), [0])


# ----------------------------------------------------------------------------------------------------- ranks, averages


def test_ranks_of_a_small_matrix():
    scores = np.array([[0.9, 0.1, 0.8], [0.3, 0.7, 0.8]])
    owner = [0, 0, 1]  # captions 0 and 1 belong to image 0
    np.testing.assert_array_equal(ranks.image_to_text_ranks(scores, owner), [0, 0])
    np.testing.assert_array_equal(ranks.text_to_image_ranks(scores, owner), [0, 1, 1])  # the last one is a tie
    assert ranks.recall_at([0, 1, 1], 1) == pytest.approx(100 / 3)
    assert ranks.recall_at([0, 1, 1], 5) == 100


def test_equal_scores_rank_last_but_own_captions_never_compete():
    scores, owner = np.zeros((2, 5)), [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(ranks.image_to_text_ranks(scores, owner), [2, 3])
    np.testing.assert_array_equal(ranks.text_to_image_ranks(scores, owner), [1] * 5)


def test_scores_that_are_not_numbers_rank_last():
    scores = np.array([[NAN, 0.5], [0.1, 0.9]])
    np.testing.assert_array_equal(ranks.image_to_text_ranks(scores, [0, 1]), [1, 0])
    np.testing.assert_array_equal(ranks.text_to_image_ranks(scores, [0, 1]), [1, 0])
    np.testing.assert_array_equal(ranks.text_to_image_ranks([[0.9, NAN], [NAN, 0.5]], [0, 1]), [1, 1])


def test_averages_of_a_worked_stream_of_three_tasks():
    matrix = [[50.0, NAN, NAN], [60.0, 40.0, NAN], [30.0, 50.0, 20.0]]
    assert continual.incremental_average(matrix) == pytest.approx((140 / 3 + 45 + 20) / 3)
    assert continual.final_average(matrix) == pytest.approx(100 / 3)
    assert continual.forgetting(matrix) == pytest.approx((-30 + 10) / 2)
    assert continual.forgetting_chaudhry(matrix) == pytest.approx(10)
    assert continual.backward_transfer(matrix) == pytest.approx((-20 + 10) / 2)
    zero = [[45.0, NAN, NAN], [40.0, 42.0, NAN], [40.0, 41.0, 17.0]]
    assert continual.gain_over_zero_shot(matrix, zero) == pytest.approx((5 - 2 + 3) / 3)


def test_a_ragged_list_serves_as_well_and_one_task_forgets_nothing():
    assert continual.final_average([[50.0], [60.0, 40.0]]) == 50
    for measure in (continual.forgetting, continual.forgetting_chaudhry, continual.backward_transfer):
        assert measure([[50.0]]) == 0
    assert continual.incremental_average([[50.0]]) == continual.final_average([[50.0]]) == 50


# ----------------------------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A Dog's ball.", "a dogs ball."),
        ("  Red-and/or  blue\t\n car ", "red and or blue car."),
        (",.'!?\"()*#:;~x", "x."),
        ("a - b", "a b."),
        ("caf\u00e9 \u00a0 au lait", "caf\u00e9 au lait."),
        (" ".join(str(n) for n in range(40)), " ".join(str(n) for n in range(30)) + "."),
    ],
)
def test_captions_are_cleaned(text, cleaned):
    assert captions.clean(text) == cleaned


def test_fewer_words_may_be_asked_for_and_an_empty_caption_is_an_error():
    assert captions.clean("one two three", max_words=2) == "one two."
    for empty in ("", " \t ", "?!.", "-/-"):
        with pytest.raises(ValueError, match="empty"):
            captions.clean(empty)
