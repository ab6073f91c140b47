"""Holds the optimiser, what may stand around it, and its schedule against the NumPy reference and optax by hand."""

import math

import chex
import jax
import numpy as np
import optax
import pytest

from lpi_jax import config as configs
from lpi_jax.errors import UserError
from lpi_jax.train.optimizer import Options, learning_rate, make_optimizer, named
from tests.reference import sgd as reference

SGD = {"momentum": 0.9, "weight_decay": 2e-4}
SHAPES = {"a": (4, 3), "b": (5,)}


def draw(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    return {name: (spread * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def by_package(parameters, gradient_of, steps_per_epoch, options):
    """The parameters after each step, the rate multiplied in as the training step does it."""
    optimizer = make_optimizer(options)
    state, trajectory = optimizer.init(parameters), []
    for number in range(options.epochs * steps_per_epoch):
        updates, state = optimizer.update(gradient_of(parameters, number), state, parameters)
        rate = learning_rate(options, steps_per_epoch)(number)
        parameters = optax.apply_updates(parameters, jax.tree.map(lambda u, rate=rate: rate * u, updates))
        trajectory.append(parameters)
    return trajectory


@pytest.mark.parametrize("arguments", [SGD, {"momentum": 0.5, "weight_decay": 0.3}, {"momentum": 0, "weight_decay": 0}])
def test_sgd_is_pytorchs_over_steps_and_epochs(arguments):
    def gradient_of(parameters, number):
        return draw(100 + number)

    ours = by_package(draw(0), gradient_of, 4, Options(epochs=3, lr=0.05, optimizer_args=arguments))
    theirs = reference.train(draw(0), gradient_of, 3, 4, lr=0.05, **arguments)
    assert len(ours) == len(theirs) == 12
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_sgd_is_pytorchs_where_the_gradient_follows_the_parameters():
    """A quadratic bowl: a mistake of one step would carry into all that follow."""
    weight = draw(1)

    def gradient_of(parameters, number):
        return {name: (1 + weight[name] ** 2) * parameters[name] - 1 for name in SHAPES}

    ours = by_package(draw(0), gradient_of, 3, Options(epochs=10, lr=0.05, optimizer_args=SGD))
    theirs = reference.train(draw(0), gradient_of, 10, 3, lr=0.05, **SGD)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 5), (2, 3), (10, 7)])
def test_the_cosine_falls_once_an_epoch_and_would_reach_zero_after_the_last(epochs, steps):
    cosine = learning_rate(Options(lr=0.05, epochs=epochs), steps)
    rates = [cosine(n) for n in range(epochs * steps)]
    assert rates == pytest.approx([reference.learning_rate(n // steps, epochs, 0.05) for n in range(epochs * steps)])
    assert rates[0] == 0.05
    assert min(rates) > 0
    assert cosine(epochs * steps) == pytest.approx(0, abs=1e-12)
    assert learning_rate(Options(lr=0.05, schedule="constant", epochs=epochs), steps)(epochs * steps - 1) == 0.05


def test_an_optimiser_or_schedule_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="'sdg'"):
        make_optimizer(Options(optimizer="sdg", optimizer_args={}))
    with pytest.raises(UserError, match="momentun"):
        make_optimizer(Options(optimizer_args={"momentun": 0.9}))
    config = configs.intended()
    config.train.schedule = "cosinus"
    with pytest.raises(UserError, match=r"config\.train\.schedule is 'cosinus', expected 'cosine' or 'smooth' or"):
        configs.check(config)


def test_an_optax_optimiser_built_for_rate_one_gives_updates_that_scale_with_the_rate():
    parameters, gradient = draw(0), draw(1)
    ours, theirs = named("adam", {"b1": 0.8}), optax.adam(0.05, b1=0.8)
    update, _ = ours.update(gradient, ours.init(parameters), parameters)
    expected, _ = theirs.update(gradient, theirs.init(parameters), parameters)
    chex.assert_trees_all_close(jax.tree.map(lambda u: 0.05 * u, update), expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------------- around the optimiser


def updates_of(options, gradients, parameters=None):
    """The update that each gradient makes, one after the other, at the same parameters."""
    optimizer, parameters = make_optimizer(options), draw(0) if parameters is None else parameters
    state, found = optimizer.init(parameters), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, parameters)
        found.append(updates)
    return found


def norm_of(gradient):
    return math.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(gradient)))


def test_a_gradient_longer_than_clip_norm_is_shortened_as_a_whole_and_another_is_left_alone():
    long, short = draw(1, spread=2.0), draw(2, spread=0.01)
    assert norm_of(short) < 0.5 < norm_of(long)
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    found = updates_of(Options(clip_norm=0.5, optimizer_args=plain), [long, short])
    chex.assert_trees_all_close(found[0], {n: -g * np.float32(0.5 / norm_of(long)) for n, g in long.items()}, rtol=1e-5)
    assert norm_of(found[0]) == pytest.approx(0.5, rel=1e-5)
    chex.assert_trees_all_equal(found[1], {name: -leaf for name, leaf in short.items()})


def test_the_gradient_is_clipped_before_weight_decay_and_momentum():
    gradients = [draw(number, spread=3.0) for number in range(1, 4)]
    clipped = [{name: g / norm_of(gradient) for name, g in gradient.items()} for gradient in gradients]
    velocity, parameters = None, draw(0)
    for update, gradient in zip(
        updates_of(Options(clip_norm=1.0, optimizer_args=SGD), gradients), clipped, strict=True
    ):
        new, velocity = reference.step(parameters, gradient, velocity, 1.0, **SGD)
        chex.assert_trees_all_close(update, {n: new[n] - parameters[n] for n in new}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_decay_of_matrices_leaves_vectors_alone(optimizer):
    arguments, nothing = {"weight_decay": 0.1}, jax.tree.map(np.zeros_like, draw(0))
    every, matrices = (
        updates_of(Options(optimizer=optimizer, optimizer_args=arguments, decay=decay), [nothing])[0]
        for decay in ("all", "matrices")
    )
    shrunk = {name: -0.1 * leaf for name, leaf in draw(0).items()}
    chex.assert_trees_all_close(every, shrunk, rtol=1e-5)
    chex.assert_trees_all_close(matrices, {"a": shrunk["a"], "b": np.zeros(5)}, rtol=1e-5)


def test_an_optimiser_without_weight_decay_has_no_matrices_to_choose():
    with pytest.raises(UserError, match=r"do not fit optimiser 'adam': .*mask"):
        make_optimizer(Options(optimizer="adam", optimizer_args={}, decay="matrices"))


def test_the_first_group_that_fits_a_path_scales_its_updates():
    parameters = {"layers_0": {"kernel": np.ones((2, 2), np.float32)}, "head": {"bias": np.ones(2, np.float32)}}
    parameters["other"] = np.ones(3, np.float32)
    gradient = jax.tree.map(lambda leaf: 2 * leaf, parameters)
    groups = (("^layers_0/", 0.5), ("kernel$", 7.0), ("bias", 0.0))
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    (found,) = updates_of(Options(groups=groups, optimizer_args=plain), [gradient], parameters)
    expected = {"layers_0": {"kernel": -np.ones((2, 2))}, "head": {"bias": np.zeros(2)}, "other": -2 * np.ones(3)}
    chex.assert_trees_all_close(found, expected)


def test_a_factor_scales_the_rate_and_not_the_gradient():
    """Adam does not feel the size of a gradient: scaled before it, the factor would be lost."""
    gradients = [draw(number) for number in range(1, 3)]
    options = {"optimizer": "adam", "optimizer_args": {}}
    plain = updates_of(Options(**options), gradients)
    scaled = updates_of(Options(groups=(("b", 0.25),), **options), gradients)
    for one, other in zip(plain, scaled, strict=True):
        chex.assert_trees_all_equal(other, {"a": one["a"], "b": np.float32(0.25) * one["b"]})


@pytest.mark.parametrize("group", ["a", ("(", 1.0), ("a", "b"), ("a",), (1, 1.0)])
def test_what_is_no_group_is_named(group):
    with pytest.raises(UserError, match=r"^config\.train\.groups holds .*, expected a pair of a regular expression"):
        Options(groups=(group,))


def test_accumulated_batches_make_one_update_of_their_mean():
    gradients = [draw(number) for number in range(1, 7)]
    found = updates_of(Options(accumulate=3, optimizer_args=SGD), gradients)
    means = [{n: sum(g[n] for g in gradients[at : at + 3]) / 3 for n in SHAPES} for at in (0, 3)]
    expected = updates_of(Options(optimizer_args=SGD), means)
    nothing = jax.tree.map(np.zeros_like, draw(0))
    for number, update in enumerate(found):
        whole = expected[number // 3] if number % 3 == 2 else nothing
        chex.assert_trees_all_close(update, whole, rtol=1e-4, atol=1e-6)


def test_the_norm_that_is_clipped_is_that_of_the_mean_of_accumulated_batches():
    gradient = draw(1, spread=5.0)
    opposite = {name: -leaf for name, leaf in gradient.items()}
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    options = Options(accumulate=2, clip_norm=1.0, optimizer_args=plain)
    found = updates_of(options, [gradient, opposite, gradient, gradient])
    chex.assert_trees_all_close(found[1], jax.tree.map(np.zeros_like, gradient), atol=1e-6)
    assert norm_of(found[3]) == pytest.approx(1.0, rel=1e-5)


# ----------------------------------------------------------------------------------------------------- schedules, sizes


def test_the_smooth_cosine_falls_with_every_step_and_ends_just_above_zero():
    rate = learning_rate(Options(lr=0.4, schedule="smooth", epochs=3), 4)
    expected = [0.4 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert [rate(step) for step in range(12)] == pytest.approx(expected)
    assert [float(optax.cosine_decay_schedule(0.4, 12)(step)) for step in range(12)] == pytest.approx(
        expected, rel=1e-5
    )
    assert rate(12) == pytest.approx(0, abs=1e-12)


def test_the_smooth_cosine_behind_a_warm_up_is_optaxs():
    rate = learning_rate(Options(lr=0.4, schedule="smooth", epochs=2, warmup=5), 10)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.4, 5, 20)
    assert [rate(step) for step in range(20)] == pytest.approx([float(theirs(step)) for step in range(20)], rel=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "smooth"])
def test_a_warm_up_rises_linearly_from_nothing_to_the_schedule(schedule):
    options = {"lr": 0.4, "schedule": schedule, "epochs": 3}
    plain, warm = learning_rate(Options(**options), 4), learning_rate(Options(**options, warmup=4), 4)
    assert [warm(step) for step in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    if schedule != "smooth":
        assert [warm(step) for step in range(4, 12)] == [plain(step) for step in range(4, 12)]
    assert warm(4) == (plain(4) if schedule != "smooth" else 0.4)


def test_a_warm_up_longer_than_the_task_only_rises():
    for schedule in ("constant", "smooth"):
        rate = learning_rate(Options(lr=1.0, schedule=schedule, epochs=1, warmup=100), 10)
        assert [rate(step) for step in range(10)] == pytest.approx([step / 100 for step in range(10)])


def test_the_logarithmic_warm_up_is_deepspeeds_and_ends_in_a_constant():
    """The numbers are those that DeepSpeed 0.11's WarmupLR of type "log" gave."""
    rate = learning_rate(Options(lr=2e-4, schedule="log", epochs=10), 100)
    rates = [rate(step) for step in range(1000)]
    assert rates[:5] == pytest.approx([2e-4, 0, 4.076e-5, 6.460e-5, 8.152e-5], rel=1e-3)
    assert rates[2] == pytest.approx(2e-4 * math.log(2) / math.log(30))
    assert rates[29] == pytest.approx(1.9801e-4, rel=1e-4)
    assert set(rates[30:]) == {2e-4}
    few = learning_rate(Options(lr=2e-4, schedule="log", epochs=1), 4)
    assert [few(step) for step in range(4)] == pytest.approx([2e-4, 0, 2e-4, 2e-4])
    # Of 8,000 batches eight make an update: the rates of a thousand updates, each of them eight times.
    eight = learning_rate(Options(lr=2e-4, schedule="log", epochs=10, accumulate=8), 800)
    assert [eight(step) for step in range(8000)] == [rate for rate in rates for _ in range(8)]
    half = learning_rate(Options(lr=1.0, schedule="log", epochs=1, warmup_share=0.5), 20)
    assert [half(step) for step in (9, 10, 19)] == pytest.approx([math.log(9) / math.log(10), 1, 1])


def test_a_warm_up_is_read_by_the_schedules_that_have_it():
    config = configs.intended()
    config.train.warmup_share = 0.1
    with pytest.raises(
        UserError, match=r"^config\.train\.warmup_share is 0\.1, but .* with config\.train\.schedule=log "
    ):
        configs.check(config, given=["train.warmup_share"])
    config.train.schedule, config.train.warmup = "log", 5
    configs.check(config, given=["train.warmup_share"])
    with pytest.raises(UserError, match=r"^config\.train\.warmup is 5, but nothing reads it"):
        configs.check(config, given=["train.warmup"])


def test_batches_are_one_for_each_task():
    options = Options(batch=8, batches=(4, 16))
    assert [options.batch_of(task) for task in range(3)] == [4, 16, 8]
    assert Options(batch=8).batch_of(5) == 8


@pytest.mark.parametrize("batches", [(0,), (4, -1), (4, 2.5), ("4",)])
def test_what_is_no_size_of_a_batch_is_named(batches):
    with pytest.raises(UserError, match=r"^config\.train\.batches is .*, expected whole numbers of pairs, one for"):
        Options(batches=batches)
