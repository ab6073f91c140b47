"""What a run serves is what it measured: its scores of images and captions, with a prior of their tasks."""

import jax
import numpy as np
import pytest

import lpi_jax
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.problems.retrieval.options import SCORES
from lpi_jax.problems.retrieval.score import SMOOTHING, joined
from lpi_jax.problems.saved import read
from lpi_jax.run import continual
from tests.reference import ranks
from tests.reference import scores as reference
from tests.support.pixels import pixels
from tests.support.splits import captions_of

EXACT = {"rtol": 0, "atol": 2e-6}
CHANGES = {"routing.rule": "lda", "eval.score": "prompted+plain+prior", "eval.equal_texts": "one"}
PARTS = ("features", "plain", "posterior", "encoded")  # of a features file, as the reference takes them


@pytest.fixture(scope="module")
def run(finished_run, make_config, tmp_path_factory):
    """The finished run's prompts, measured in another way."""
    directory = tmp_path_factory.mktemp("scored") / "run"
    config = make_config({**CHANGES, "reuse": str(finished_run.directory)})
    return finished_run._replace(config=config, directory=directory, results=continual.run(config, directory))


@pytest.fixture(scope="module")
def model(run):
    return lpi_jax.load(run.directory)


@pytest.fixture(scope="module")
def own(run):
    """What the run itself computed of its validation items: array by name."""
    (path,) = (run.directory / "features").glob("task_*")
    return {name.removeprefix("stream."): part for name, part in read(path).items()}


@pytest.fixture(scope="module")
def items(run):
    """The validation images and captions of all tasks."""
    tasks = stream_of(run.config, 32).tasks
    pictures = np.stack([pixels(task.val.load(i)) for task in tasks for i in range(len(task.val))])
    return pictures, [caption for task in tasks for own in captions_of(task.val) for caption in own]


@pytest.fixture(scope="module")
def indexed(model, items):
    pictures, words = items
    return model.index_images(pictures), model.index_texts(words)


def logit_scale(model):
    return float(np.exp(np.float64(jax.device_get(model._encoder.frozen["logit_scale"]))))


def test_the_scores_that_are_served_are_those_that_were_measured(model, own, indexed):
    sides = [[own[f"{side}.{part}"] for part in PARTS] for side in ("images", "captions")]
    parts = CHANGES["eval.score"].split("+")
    images, captions = indexed
    expected = reference.matrix(*sides, parts, SMOOTHING, logit_scale(model))
    np.testing.assert_allclose(model.scores(images, captions), expected, **EXACT)
    np.testing.assert_allclose(model.scores(captions, images), expected.T, **EXACT)
    # The case is not an empty one: routing decides, prompts change something, and the router is unsure of some.
    assert len(np.unique(own["images.routed"])) > 1
    assert np.abs(own["images.features"] - own["images.plain"]).max() > 1e-2
    assert ((own["captions.posterior"] > 0.01) & (own["captions.posterior"] < 0.99)).any()


def test_the_results_follow_from_the_scores_that_are_served(model, run, own, indexed):
    """R@1 after the last task; equal captions are one item, the first of them."""
    images, captions = indexed
    names, first = np.unique(own["captions.item"], return_index=True)
    scores = np.asarray(model.scores(images, captions), np.float64)
    describes = [set(own["captions.owner"][own["captions.item"] == name]) for name in names]
    to_text = [[place for place, owners in enumerate(describes) if image in owners] for image in range(len(images))]
    to_image = [sorted(describes[list(names).index(name)]) for name in own["captions.item"]]
    for direction, table, right, task in (
        ("image_to_text", scores[:, first], to_text, own["images.task"]),
        ("text_to_image", scores.T, to_image, own["captions.task"]),
    ):
        # Near ties may round either way.
        near = [ranks.ranks(table + wrong * _wrong(table, right), right) for wrong in (1e-5, -1e-5)]
        measured = run.results["metrics"][f"{direction}/R@1"]["matrix"][-1]
        for number, value in enumerate(measured):
            most, least = (ranks.recall_at(found[task == number], 1) for found in reversed(near))
            assert least - 1e-9 <= value <= most + 1e-9
        assert np.mean(near[0] == near[1]) > 0.8


def _wrong(table, right):
    """1 where an item is no answer."""
    marks = np.ones(table.shape)
    for row, places in zip(marks, right, strict=True):
        row[places] = 0
    return marks


def test_an_item_scores_the_same_alone_and_in_company(model, items, indexed):
    pictures, words = items
    images, captions = indexed
    whole = model.scores(images, captions)
    alone = model.scores(model.index_images(pictures[5]), model.index_texts(words[7]))
    np.testing.assert_allclose(alone, whole[5:6, 7:8], **EXACT)
    parts = joined([model.index_images(pictures[:2]), model.index_images([]), model.index_images(pictures[2:])])
    np.testing.assert_allclose(model.scores(parts, captions), whole, **EXACT)


@pytest.mark.parametrize("score", SCORES)
def test_other_parts_than_the_runs_own_may_be_asked_for(model, own, items, score):
    pictures, words = items
    found = model.scores(model.index_images(pictures[:4], score), model.index_texts(words[:6], score))
    sides = [[own[f"{side}.{part}"][:count] for part in PARTS] for side, count in (("images", 4), ("captions", 6))]
    np.testing.assert_allclose(
        found, reference.matrix(*sides, score.split("+"), SMOOTHING, logit_scale(model)), **EXACT
    )


def test_features_are_those_under_the_adapters_whatever_the_run_scores_by(model, own, items):
    pictures, words = items
    np.testing.assert_allclose(model.encode_image(pictures), own["images.features"], **EXACT)
    np.testing.assert_allclose(model.encode_text(words), own["captions.features"], **EXACT)


def test_an_image_of_a_kind_that_no_task_had_is_encoded_plainly_and_belongs_to_none(model):
    """Stripes of one pixel, which no drawing of the stream is made of."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    found, plain = model.index_images(stripes), model.index_images(stripes, "plain")
    width = plain.features.shape[1]
    np.testing.assert_array_equal(found.features[:, :width], plain.features)
    np.testing.assert_array_equal(found.features[:, width:], plain.features)
    assert found.posterior.argmax() == len(model.tasks)
    assert found.posterior[0, -1] > 0.65  # of one, a share of which is spread over the tasks
    np.testing.assert_array_equal(model.encode_image(stripes), plain.features)


def test_vectors_of_an_index_hold_the_features_and_a_mark_of_the_task(model, indexed):
    images, captions = indexed
    vectors = model.vectors(images)
    assert vectors.shape == (len(images), images.features.shape[1] + len(model.tasks) + 1)
    np.testing.assert_array_equal(vectors[:, : images.features.shape[1]], images.features)
    # Between items that the router is sure of they rank as the score does.
    sure = [np.flatnonzero(side.posterior.max(1) > 1 - 2 * SMOOTHING) for side in (images, captions)]
    if min(map(len, sure)):
        apart = model.scores(captions, images) - model.vectors(captions, asking=True) @ vectors.T
        np.testing.assert_allclose(apart[np.ix_(*sure[::-1])], 0.0, rtol=0, atol=1e-4)
