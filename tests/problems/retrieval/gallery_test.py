"""The gallery computes each feature once and has the features that encoding everything afresh would have."""

from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lpi_jax.data.captioned import pairs, spoken
from lpi_jax.experiment.experiment import assemble, stream_of
from lpi_jax.methods import kmeans, lpi, routing
from lpi_jax.methods import memory as memories
from lpi_jax.methods.base import NOTHING, PLAIN
from lpi_jax.problems.retrieval.encoder import Encoder, Told
from lpi_jax.problems.retrieval.gallery import Gallery
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.problems.saved import save, saved
from lpi_jax.run import continual
from tests.reference import clustering
from tests.support.splits import split_of

TASKS = 4
SITES = {"image": "vision", "text": "text"}
DOUBTING = routing.Options(rule="lda", shrinkage=1.0)  # a rule that is not sure of any of the few items here


class Counting:
    """An encoder that counts how often each picture and caption is encoded under which prompts."""

    def __init__(self, encoder):
        self._encoder, self.embed_dim, self.batch = encoder, encoder.embed_dim, encoder.batch
        self.pictures, self.captions = Counter(), Counter()

    @property
    def frozen(self):
        return self._encoder.frozen

    def images(self, load, items, group=None):
        self.pictures.update((int(item), _key(group, row)) for row, item in enumerate(items))
        return self._encoder.images(load, items, group)

    def plain_images(self, load, items):
        return Told(*[self.images(load, items)] * 2)

    def plain_texts(self, token_ids):
        return Told(*[self.texts(token_ids)] * 2)

    def texts(self, token_ids, group=None, asking=None):
        self.captions.update((ids.tobytes(), _key(group, row)) for row, ids in enumerate(token_ids))
        return self._encoder.texts(token_ids, group, asking)


def _key(group, row):
    return None if group is None else np.asarray(group.table)[group.chosen[row]].tobytes()


@pytest.fixture(scope="module")
def experiment(make_config):
    return assemble(make_config(), streamed=False)


@pytest.fixture(scope="module")
def encoder(experiment):
    e = experiment
    return Encoder(e.problem.towers, e.backbone.params, e.method, e.mesh, e.config.eval.batch)


@pytest.fixture(scope="module")
def stream(toy_stream):
    return toy_stream(TASKS, train=6, val=6, captions=2)


@pytest.fixture(scope="module", params=[False, True], ids=["asks-plainly", "asks-with-placeholders"])
def asks(request):
    return request.param


@pytest.fixture(scope="module")
def memory(experiment, encoder, stream, asks):
    """Four tasks with random prompts, and the centres of their training items."""
    made, method, captions = {}, experiment.method, experiment.problem.captions
    for number, task in enumerate(stream.tasks):
        trained = lpi.init(method.options, experiment.problem.sites, jax.random.key(100 + number))
        words = spoken(task.train)
        pictures = encoder.images(task.train.load, range(len(task.train)))
        texts = encoder.texts(captions(words, method.reserve["text"] if asks else 0))
        centres = {
            f"{side}_centres": kmeans.kmeans(features, 3, 0)
            for side, features in zip(SITES, (pictures, texts), strict=True)
        }
        made = memories.appended(made, {"trained": trained, **centres, "descriptions": texts[0]})
    return made


def first(memory, count):
    """The memory as it was after `count` tasks."""
    return jax.tree.map(lambda leaf: leaf[:count], memory) if count else {}


def make_gallery(experiment, encoder, oracle, asks):
    return Gallery(
        encoder,
        experiment.method,
        experiment.problem.captions,
        experiment.problem.eval_transform,
        Measured(batch=encoder.batch, seed=0, oracle=oracle, asks_with_placeholders=asks),
    )


def restored(gallery, path, splits):
    """The gallery, which was made anew, with what was saved of one of the same splits."""
    gallery.refill(saved(path, {"stream": gallery.arrays()})["stream"], splits)
    return gallery


@pytest.fixture(scope="module")
def afresh(experiment):
    """(side, rows, prompts) -> features straight from the towers: nothing sorted, nothing cut, nothing kept."""
    towers = experiment.problem.towers
    encode = {"image": jax.jit(towers.image), "text": jax.jit(towers.text)}

    def features(side, rows, prompts=None):
        full = np.pad(rows, [(0, -len(rows) % 48)] + [(0, 0)] * (rows.ndim - 1))
        chunks = [encode[side](experiment.backbone.params, full[i : i + 48], prompts) for i in range(0, len(full), 48)]
        return np.concatenate(chunks)[: len(rows)]

    return features


def naive(experiment, afresh, splits, memory, oracle, asks):
    """(task, routed, features) of all pictures and of all captions, every one encoded afresh."""
    method, captions, transform = experiment.method, experiment.problem.captions, experiment.problem.eval_transform
    pictures = [transform(split.load(i), (0, 0, i)) for split in splits for i in range(len(split))]
    words = [caption for split in splits for caption in spoken(split)]
    plain, hidden = (captions(words, placeholders) for placeholders in (0, method.reserve["text"]))
    items = {"image": [np.stack(pictures)] * 3, "text": [plain, hidden if asks else plain, hidden]}
    counts = {"image": [len(split) for split in splits], "text": [len(pairs(split)) for split in splits]}
    known = memories.count(memory)
    adapters = [
        method.adapt(*method.view(memory, task), experiment.backbone.params, NOTHING)[0] for task in range(known)
    ]
    found = []
    for side, (bare, asking, prompted) in items.items():
        task = np.repeat(np.arange(len(splits)), counts[side])
        routed, features = np.full(len(task), PLAIN), afresh(side, bare)
        if oracle:
            routed = np.where(task < known, task, PLAIN)
        elif known:
            routed = clustering.route(afresh(side, asking), memory[f"{side}_centres"])
        for number, adapter in enumerate(adapters):
            own = afresh(side, prompted, adapter.prompts[SITES[side]])
            features = np.where((routed == number)[:, None], own, features)
        found.append((task, routed, features))
    return found


@pytest.mark.parametrize("oracle", [False, True], ids=["inferred", "oracle"])
def test_features_after_every_stage_are_those_of_encoding_everything_afresh_and_nothing_is_encoded_twice(
    experiment, encoder, afresh, stream, memory, asks, oracle
):
    counting = Counting(encoder)
    gallery = make_gallery(experiment, counting, oracle, asks)
    ever = set()
    for count, task in enumerate(stream.tasks):
        gallery.add(task.val)
        for known in (count, count + 1):  # as the loop does: before the task is learnt, and after
            gallery.follow(first(memory, known), known)
            splits = [task.val for task in stream.tasks[: count + 1]]
            expected = naive(experiment, afresh, splits, first(memory, known), oracle, asks)
            for side, (true, routed, features) in zip((gallery.images, gallery.captions), expected, strict=True):
                np.testing.assert_array_equal(side.task, true)
                np.testing.assert_array_equal(side.routed, routed)
                np.testing.assert_allclose(side.features, features, atol=1e-5)
            ever |= set(enumerate(gallery.images.routed))
    assert max(counting.pictures.values()) == max(counting.captions.values()) == 1
    plain = [what for what, prompts in counting.pictures if prompts is None]
    assert sorted(plain) == list(range(TASKS * 6))
    assert sum(prompts is None for _, prompts in counting.captions) == TASKS * 12 * (2 if asks else 1)
    prompted = [what for what, prompts in counting.pictures if prompts is not None]
    assert len(prompted) == len([task for _, task in ever if task != PLAIN])
    if not oracle:
        assert len(prompted) > TASKS * 6  # the case is not an empty one: some were routed anew


def test_owners_tell_which_caption_describes_which_picture(experiment, encoder, stream):
    gallery = make_gallery(experiment, encoder, False, False)
    for task in stream.tasks[:2]:
        gallery.add(task.val)
    np.testing.assert_array_equal(gallery.images.owner, np.arange(12))
    np.testing.assert_array_equal(gallery.captions.owner, np.repeat(np.arange(12), 2))
    np.testing.assert_array_equal(gallery.captions.task, np.repeat([0, 1], 12))


def test_a_restored_gallery_goes_on_with_the_same_bits_and_encodes_nothing_again(
    experiment, encoder, stream, memory, asks, tmp_path
):
    vals = [task.val for task in stream.tasks]
    whole = make_gallery(experiment, encoder, False, asks)
    for count in (1, 2):
        whole.add(vals[count - 1])
        whole.follow(first(memory, count), count)
    save(tmp_path / "features" / "task_002.json", {"stream": whole.arrays()})
    counting = Counting(encoder)
    again = restored(make_gallery(experiment, counting, False, asks), tmp_path / "features" / "task_002.json", vals[:2])
    again.follow(first(memory, 2), 2)
    assert not counting.pictures
    assert not counting.captions
    for gallery in (whole, again):
        gallery.add(vals[2])
        gallery.follow(first(memory, 3), 3)
    assert_same(whole, again)


def assert_same(one, other):
    assert one.arrays().keys() == other.arrays().keys()
    for name, value in one.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], value)
        assert other.arrays()[name].dtype == value.dtype


@pytest.fixture(scope="module")
def doubtful(experiment, encoder, stream):
    """A method that tells tasks by a discriminant, and its memories after 0, 1, ... tasks."""
    method, memories_ = experiment.method._replace(assign=partial(routing.assign, options=DOUBTING)), [{}]
    for number, task in enumerate(stream.tasks):
        images = encoder.images(task.train.load, range(len(task.train)))
        texts = encoder.texts(experiment.problem.captions(spoken(task.train), 0))
        context = SimpleNamespace(
            features=lambda own=(images, texts): dict(zip(SITES, own, strict=True)), meaning=texts[0]
        )
        trained = lpi.init(method.options, experiment.problem.sites, jax.random.key(100 + number))
        memories_.append(routing.remembered(memories_[-1], trained, context, DOUBTING))
    return method, memories_


def test_posteriors_are_kept_and_go_on_after_a_restart(experiment, encoder, stream, doubtful, tmp_path):
    method, known = doubtful
    doubting, path = replace(experiment, method=method), tmp_path / "features" / "task_002.json"
    whole = make_gallery(doubting, encoder, False, False)
    for count in (1, 2):
        whole.add(stream.tasks[count - 1].val)
        whole.follow(known[count], count)
    for side in (whole.images, whole.captions):
        assert side.posterior.shape == (len(side.task), 3)
        assert ((side.posterior > 0.001) & (side.posterior < 0.999)).any()  # which no adapter id would tell
    save(path, {"stream": whole.arrays()})
    again = restored(make_gallery(doubting, encoder, False, False), path, [task.val for task in stream.tasks[:2]])
    assert_same(whole, again)
    for gallery in (whole, again):
        gallery.add(stream.tasks[2].val)
        assert (gallery.images.posterior[-6:] == [0, 0, 1]).all()  # of none of the two tasks until told otherwise
        gallery.follow(known[3], 3)
    assert_same(whole, again)
    asked = {"image": whole.images.asking, "text": whole.captions.asking}
    afresh = routing.assign(known[3], asked, NOTHING, DOUBTING)
    np.testing.assert_array_equal(whole.images.posterior, afresh["image"].posterior)
    np.testing.assert_array_equal(whole.captions.posterior, afresh["text"].posterior)


def test_a_task_that_is_told_is_certain(experiment, encoder, stream, doubtful):
    method, known = doubtful
    gallery = make_gallery(replace(experiment, method=method), encoder, True, False)
    for task in stream.tasks[:2]:
        gallery.add(task.val)
    for count in (0, 1, 2):
        gallery.follow(known[count], count)
        for side in (gallery.images, gallery.captions):
            place = np.where(side.task < count, side.task, count)
            np.testing.assert_array_equal(side.posterior, np.eye(count + 1)[place])
            np.testing.assert_array_equal(side.routed, np.where(side.task < count, side.task, PLAIN))


def test_captions_of_the_same_tokens_are_one_item_in_all_tasks_also_after_a_restart(
    experiment, encoder, stream, tmp_path
):
    def split(*captions):
        loaded = stream.tasks[0].val.load
        return split_of(tuple("abc"[: len(captions)]), captions, loaded)

    # Cleaned, "A red Circle!" reads like the first one; behind ten words captions are cut.
    long = "one two three four five six seven eight nine ten"
    first_task = split(("a red circle", "two rings"), ("A red  Circle!", f"{long} eleven"))
    second_task = split(("two rings.", "a blue ring"), (f"{long} twelve", "a red circle"), ("two ring s", "a red"))
    expected = [0, 1, 0, 2, 1, 3, 2, 0, 4, 5]
    whole = make_gallery(experiment, encoder, False, False)
    whole.add(first_task)
    save(tmp_path / "features" / "task_001.json", {"stream": whole.arrays()})
    again = restored(
        make_gallery(experiment, encoder, False, False), tmp_path / "features" / "task_001.json", [first_task]
    )
    for gallery in (whole, again):
        gallery.add(second_task)
        np.testing.assert_array_equal(gallery.captions.item, expected)
        np.testing.assert_array_equal(gallery.images.item, np.arange(5))
        for one, other in ((0, 2), (0, 7), (1, 4), (3, 6)):
            np.testing.assert_array_equal(gallery.captions.plain[one], gallery.captions.plain[other])


# ------------------------------------------------------------------------------------------------ a run's whole results


def recalls(queries, items, query_owner, item_owner, k):
    """Recall@k by plain loops, twice: near ties lost, and near ties won. Between them lies every rounding."""
    scores, hits = queries.astype(np.float64) @ items.astype(np.float64).T, np.zeros(2)
    for row, owner in zip(scores, query_owner, strict=True):
        best = max(score for score, other in zip(row, item_owner, strict=True) if other == owner)
        wrong = [score for score, other in zip(row, item_owner, strict=True) if other != owner]
        hits += [sum(s >= best - 1e-6 for s in wrong) < k, sum(s > best + 1e-6 for s in wrong) < k]
    return 100 * hits / len(queries)


@pytest.mark.parametrize("way", [{}, {"task_id": "oracle", "eval.gallery": "task"}], ids=["usual", "oracle-and-task"])
def test_a_runs_results_are_those_of_a_naive_evaluation(
    experiment, afresh, finished_run, make_config, read_progress, tmp_path, way
):
    config, directory, results = finished_run
    if way:
        config, directory = make_config({**way, "reuse": str(finished_run.directory)}), tmp_path / "way"
        results = continual.run(config, directory)
    stream = stream_of(config, 32)
    memory = read_progress(directory).memory
    exact = total = 0
    for stage in range(len(stream.tasks)):
        vals = [task.val for task in stream.tasks[: stage + 1]]
        images, captions = naive(experiment, afresh, vals, first(memory, stage + 1), bool(way), asks=False)
        owners = (
            np.arange(len(images[0])),
            np.repeat(np.arange(len(images[0])), [len(record.captions) for val in vals for record in val.records]),
        )
        for kind, side in (("image", images), ("text", captions)):
            accuracy = [100 * np.mean(side[1][side[0] == t] == t) for t in range(stage + 1)]
            assert results["routing"][kind]["matrix"][stage] == pytest.approx(accuracy)
        for direction, q, g in (("image_to_text", 0, 1), ("text_to_image", 1, 0)):
            sides = (images, captions)
            for t in range(stage + 1):
                asked = sides[q][0] == t
                shown = sides[g][0] == t if way else np.full(len(sides[g][0]), True)
                for k in (1, 5, 10):
                    low, high = recalls(sides[q][2][asked], sides[g][2][shown], owners[q][asked], owners[g][shown], k)
                    measured = results["metrics"][f"{direction}/R@{k}"]["matrix"][stage][t]
                    assert low - 1e-9 <= measured <= high + 1e-9
                    exact, total = exact + (low == high), total + 1
    assert exact > 0.8 * total  # the case decides something: nearly everywhere no rounding matters
